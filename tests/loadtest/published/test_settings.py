"""The rivals get the same file, the same inputs and the same number of workers, in the notation of each."""

import ast
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench.front import write_mlp
from bench.published.figures import ERG
from bench.published.machine import pinned, split_cores
from bench.published.measure import turn_of
from bench.published.models import MODELS, converted_artifact, grpc_payloads, newest_version, raw_bodies
from bench.published.servers import (
    RIVALS,
    SETTINGS,
    Batching,
    mlserver_model_settings,
    mlserver_settings,
    mosec_settings,
)
from erg_loadtest.errors import LoadTestError
from erg_loadtest.samples import Samples
from erg_loadtest.server_cpu import CpuSeconds
from erg_server.pb import inference_pb2

ROOT = Path(__file__).parents[3]
MLP, MINILM, _ = MODELS


def test_no_batching_is_said_as_mlserver_understands_it():
    settings = mlserver_model_settings(MLP, Path("m.onnx"), Batching(max_batch_size=1, wait_ms=0))
    assert (settings["max_batch_size"], settings["max_batch_time"]) == (0, 0.0)


def test_mlserver_takes_seconds_and_mosec_milliseconds():
    batching = Batching(max_batch_size=16, wait_ms=2)
    assert mlserver_model_settings(MLP, Path("m.onnx"), batching)["max_batch_time"] == 0.002
    assert mosec_settings(MLP, Path("m.onnx"), batching, 2)["max_wait_ms"] == 2


def test_every_rival_is_told_the_same_workers_and_sizes():
    for batching in SETTINGS:
        mosec = mosec_settings(MINILM, Path("m.onnx"), batching, 3)
        assert (mosec["workers"], mosec["max_batch_size"]) == (3, batching.max_batch_size)
    assert mlserver_settings(1, 2, 3, 3)["parallel_workers"] == 3


def test_one_setting_is_no_batching_at_all():
    assert any(batching.max_batch_size == 1 for batching in SETTINGS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_grpc_and_http_carry_the_same_values(model):
    for payload, body in zip(grpc_payloads(model), raw_bodies(model), strict=True):
        request = inference_pb2.ModelInferRequest.FromString(payload.body)
        assert b"".join(request.raw_input_contents) == body
        assert [list(entry.shape) for entry in request.inputs] == [[1, *spec.shape] for spec in model.inputs]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_requests_differ_so_that_a_mixed_up_answer_shows(model):
    assert len(set(raw_bodies(model))) == len(raw_bodies(model))


def test_the_model_that_the_benchmark_writes_has_the_inputs_that_are_sent(tmp_path):
    write_mlp(tmp_path)
    graph = onnx.load(tmp_path / "mlp" / "1" / "model.onnx").graph
    (entry,) = graph.input
    assert (entry.name, entry.type.tensor_type.shape.dim[1].dim_value) == ("x", 16)
    assert [output.name for output in graph.output] == [MLP.output]


def test_rivals_run_the_onnx_runtime_that_erg_runs():
    ours = pinned(ROOT / "constraints.txt")["onnxruntime"]
    for name in ("mlserver", "mosec"):
        rival = pinned(RIVALS / f"{name}.txt")
        assert rival["onnxruntime"] == ours
        assert name in rival


@pytest.mark.parametrize("name", ["mlserver", "mosec"])
def test_every_requirement_of_a_rival_is_pinned(name):
    lines = (RIVALS / f"{name}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line) for line in lines if line and line[0] != "#")


@pytest.mark.parametrize("name", ["mlserver_onnx.py", "mosec_onnx.py"])
def test_rivals_files_import_nothing_that_their_environments_lack(name):
    """Nothing of Erg is installed there, so an import of it would be found by `make bench` alone."""
    requirements = pinned(RIVALS / f"{name.partition('_')[0]}.txt")
    allowed = {package.replace("-", "_").lower() for package in requirements} | {"__future__", "json", "os"}
    tree = ast.parse((RIVALS / name).read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {module.partition(".")[0] for module in found} <= allowed


@pytest.mark.parametrize("name", ["mlserver_onnx.py", "mosec_onnx.py"])
def test_rivals_sessions_have_one_thread_that_does_not_spin(name):
    """As the server's own session_options: a rival with other ones would be another comparison."""
    text = (RIVALS / name).read_text()
    assert "options.intra_op_num_threads = 1" in text
    assert "options.inter_op_num_threads = 1" in text
    for pool in ("intra", "inter"):
        assert f'options.add_session_config_entry("session.{pool}_op.allow_spinning", "0")' in text


def test_the_client_gets_the_cores_that_the_servers_leave():
    assert split_cores([0, 1, 2, 3], 2) == ([0, 1], [2, 3])
    assert split_cores([4, 5], 2) == ([4, 5], [4, 5])


def test_the_newest_version_is_the_highest_number(tmp_path):
    for name in ("2", "10", "9.part", "x"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert newest_version(tmp_path, "m") == tmp_path / "m" / "10"
    assert newest_version(tmp_path, "other") is None


@pytest.mark.parametrize(("selected", "wanted"), [("int8", "int8"), ("source", None)])
def test_a_model_of_which_nothing_cheaper_won_has_no_converted_line(tmp_path, selected, wanted):
    manifest = (
        '{"artifacts": [{"name": "int8", "file": "int8.onnx"}, {"name": "source", "file": "model.onnx"}], '
        f'"selected": [{{"device": "cpu", "artifact": "{selected}"}}]}}'
    )
    (tmp_path / "manifest.json").write_text(manifest)
    assert converted_artifact(tmp_path) == wanted


def samples(*status):
    count = len(status)
    due = np.arange(count, dtype=np.int64) * 1_000_000
    return Samples(
        due_ns=due, sent_ns=due, done_ns=due + 2_000_000, status=np.array(status, dtype=np.int64),
        payload=np.zeros(count, dtype=np.int64),
    )  # fmt: skip


def test_a_turn_counts_cpu_time_for_each_request_answered():
    spent = CpuSeconds(front=0.002, by_worker={"1": 0.001, "2": 0.001})
    turn = turn_of(samples(0, 0, 14), spent, 0.0002, model="m", server=ERG, in_flight=1, number=0)
    assert turn.cpu_us == pytest.approx(2000)
    assert turn.client_cpu_us == pytest.approx(100)
    assert turn.failed == 1
    assert turn.requests_per_s == pytest.approx(2 / 0.004)


def test_a_turn_without_an_answer_has_no_figures():
    with pytest.raises(LoadTestError, match="answered none of 1"):
        turn_of(samples(14), CpuSeconds(front=1.0, by_worker={}), 0.1, model="m", server=ERG, in_flight=1, number=0)
