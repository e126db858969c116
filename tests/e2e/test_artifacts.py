"""A version of several artifacts on a real server: what its manifest selects serves, unless a configuration objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from erg_server.repository.manifest import Artifact, Golden, Manifest, Selection
from erg_server.repository.publication import publish
from erg_server.tensor import Tensor
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, mlp_weights, write_mlp

pytestmark = pytest.mark.e2e

Served = tuple[ServerProcess, triton.InferenceServerClient]

ROWS = np.random.default_rng(4).standard_normal((8, 16)).astype(np.float32)
SOURCE_SEED, FAST_SEED = 0, 1
"""The artifacts have different weights, so that an answer tells which of them gave it."""


def answer_of(seed: int, rows: np.ndarray = ROWS) -> np.ndarray:
    answer: np.ndarray = np.maximum(rows @ mlp_weights(seed), 0)
    return answer


def publish_version(root: Path, name: str, build: Path, *, golden_of: int | None = None) -> None:
    write_mlp(build, seed=SOURCE_SEED)
    write_mlp(build / "fast", seed=FAST_SEED)
    golden = None
    if golden_of is not None:
        expected = answer_of(golden_of, ROWS[:1])
        golden = Golden(
            inputs=(Tensor.from_numpy("x", ROWS[:1]),),
            outputs=(Tensor.from_numpy("y", expected),),
            absolute_tolerance=0.1,
        )
    artifacts = (
        Artifact(name="source", file="model.onnx", backend="onnxruntime", precision="f32"),
        Artifact(name="fast", file="fast/model.onnx", backend="openvino", precision="bf16", batch_limit=4),
    )
    selected = (
        Selection(device="cpu", artifact="fast", reason="1.9 x cheaper at every batch size"),
        Selection(device="cpu", artifact="source", reason="the yardstick"),
    )
    publish(root, name, build, Manifest(model=name, golden=golden, artifacts=artifacts, selected=selected))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("artifacts")
    root = folder / "repository"
    publish_version(root, "plain", folder / "plain")
    publish_version(root, "golden", folder / "golden", golden_of=FAST_SEED)
    publish_version(root, "stated", folder / "stated")
    (root / "stated" / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 8\n')
    flags = ["--model-repository", str(root), "--model-control-mode", "explicit", "--load-model", "*"]
    with (
        ServerProcess(*flags, "--cpu-workers", "1") as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        yield server, client


def infer(client: triton.InferenceServerClient, model: str) -> np.ndarray:
    tensor = triton.InferInput("x", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS)
    answer: np.ndarray | None = client.infer(model, [tensor]).as_numpy("y")
    assert answer is not None
    return answer


def test_an_answer_names_the_artifact_that_gave_it_to_who_asks_for_its_cost(served: Served) -> None:
    _, client = served
    tensor = triton.InferInput("x", [2, 16], "FP32")
    tensor.set_data_from_numpy(ROWS[:2])
    variants = {
        model: client.infer(model, [tensor], parameters={"erg_cost": True}).get_response().parameters
        for model in ("plain", "stated")
    }
    assert variants["plain"]["erg_model_variant"].string_param == "fast/openvino"
    assert variants["stated"]["erg_model_variant"].string_param == "source/onnxruntime"


def override(**changes: object) -> str:
    return json.dumps({"max_batch_size": 8} | changes)


def test_the_selected_artifact_serves_and_the_config_rpc_says_so(served: Served) -> None:
    server, client = served
    client.load_model("plain", config=override())
    config = client.get_model_config("plain").config
    assert (config.backend, config.default_model_filename) == ("openvino", "fast/model.onnx")
    assert config.parameters["INFERENCE_PRECISION_HINT"].string_value == "bf16"
    # Eight rows are a request's, whatever the artifact's batch limit is.
    assert config.max_batch_size == 8
    np.testing.assert_allclose(infer(client, "plain"), answer_of(FAST_SEED), atol=0.1)
    server.wait_for(
        r"model plain version 1 is served as 'fast' \(fast/model.onnx by openvino in bf16, at most 4 rows a batch\): "
        "1.9 x cheaper at every batch size"
    )


def test_callers_see_the_same_model_whatever_runs_it(served: Served) -> None:
    _, client = served
    fast, stated = (client.get_model_metadata(name) for name in ("plain", "stated"))
    assert [fast.platform, fast.versions] == [stated.platform, stated.versions] == ["onnxruntime_onnx", ["1"]]
    assert (list(fast.inputs), list(fast.outputs)) == (list(stated.inputs), list(stated.outputs))
    before = client.get_inference_statistics("plain").model_stats[0].inference_count
    infer(client, "plain")
    assert client.get_inference_statistics("plain").model_stats[0].inference_count == before + len(ROWS)


def test_a_backend_that_the_configuration_states_wins(served: Served) -> None:
    server, client = served
    assert client.get_model_config("stated").config.backend == "onnxruntime"
    np.testing.assert_allclose(infer(client, "stated"), answer_of(SOURCE_SEED), rtol=1e-4, atol=1e-4)
    server.wait_for(
        r"model stated version 1 is served as 'source' .*not 'fast', since the configuration states backend"
    )


def test_one_that_a_load_request_states_wins_as_long_as_it_is_loaded(served: Served) -> None:
    _, client = served
    client.load_model("plain", config=override(backend="onnxruntime"))
    np.testing.assert_allclose(infer(client, "plain"), answer_of(SOURCE_SEED), rtol=1e-4, atol=1e-4)
    client.load_model("plain", config=override())
    assert client.get_model_config("plain").config.backend == "openvino"
    np.testing.assert_allclose(infer(client, "plain"), answer_of(FAST_SEED), atol=0.1)


def test_a_parameter_that_the_configuration_states_wins(served: Served) -> None:
    _, client = served
    parameters = {"INFERENCE_PRECISION_HINT": {"string_value": "f32"}}
    client.load_model("plain", config=override(parameters=parameters))
    assert client.get_model_config("plain").config.backend == "openvino"
    np.testing.assert_allclose(infer(client, "plain"), answer_of(FAST_SEED), rtol=1e-4, atol=1e-4)


def test_the_golden_sample_is_held_against_what_was_chosen(served: Served) -> None:
    _, client = served
    assert client.get_model_config("golden").config.backend == "openvino"
    with pytest.raises(InferenceServerException, match="does not reproduce its golden sample"):
        client.load_model("golden", config=override(backend="onnxruntime"))
    assert client.get_model_config("golden").config.backend == "openvino"
