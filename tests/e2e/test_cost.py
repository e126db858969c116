"""Cost in a real server: unmodified clients that ask, tenants that flood, and what a price file makes of /metrics."""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.tenants import MAX_TENANTS
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from tests.e2e.conftest import fill_repository
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.e2e

PRICES = Path(__file__).parents[2] / "docs" / "prices.toml"
SENT = {"erg_queue_us", "erg_compute_us", "erg_batch_rows", "erg_joules_source", "erg_usd", "erg_model_variant"}


@pytest.fixture(scope="module", params=["erg", "grpcio"])
def priced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = fill_repository(tmp_path_factory.mktemp("priced"))
    with ServerProcess(
        "--model-repository", str(root), "--price-file", str(PRICES), "--tenant-metadata-key", "x-tenant",
        "--grpc-transport", request.param, "--cpu-workers", "1", "--model-control-mode", "explicit",
        "--load-model", "mlp", "--load-model", "bare", "--power-source", "modelled", "--power-watts", "cpu=10:50",
    ) as process:  # fmt: skip
        yield process


def tensor(rows: int) -> triton.InferInput:
    made = triton.InferInput("x", [rows, 16], "FP32")
    made.set_data_from_numpy(np.ones((rows, 16), np.float32))
    return made


def message(*, cost: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="mlp", raw_input_contents=[bytes(64)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    if cost:
        request.parameters["erg_cost"].bool_param = True
    return request


def infer_call(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable:
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )


def test_an_unmodified_client_is_told_what_its_answer_cost(priced: ServerProcess) -> None:
    with triton.InferenceServerClient(priced.grpc_address) as client:
        for model, variant in (("mlp", "onnxruntime"), ("bare", "onnxruntime")):
            told = client.infer(model, [tensor(3)], parameters={"erg_cost": True}).get_response().parameters
            assert told.keys() >= SENT
            assert told["erg_batch_rows"].int64_param == 3
            assert told["erg_compute_us"].int64_param > 0
            assert told["erg_usd"].double_param > 0
            assert told["erg_model_variant"].string_param == variant
        for stated in ({}, {"erg_cost": False}):
            assert not client.infer("mlp", [tensor(3)], parameters=stated).get_response().parameters
        with pytest.raises(InferenceServerException, match="parameter 'erg_cost' is true or false"):
            client.infer("mlp", [tensor(3)], parameters={"erg_cost": "yes"})


def test_a_stream_is_told_in_each_answer(priced: ServerProcess) -> None:
    answers: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    with triton.InferenceServerClient(priced.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers={"x-tenant": "streamer"})
        for cost in (True, False, True):
            client.async_stream_infer("mlp", [tensor(2)], parameters={"erg_cost": cost}, request_id=str(cost))
        for _ in range(3):
            result, error = answers.get(timeout=30)
            assert error is None
            response = result.get_response()
            assert (response.parameters.keys() >= SENT) is (response.id == "True")
        client.stop_stream()


def test_the_cost_is_in_a_unary_calls_trailers(priced: ServerProcess) -> None:
    with grpc.insecure_channel(priced.grpc_address) as channel:
        infer = infer_call(channel)
        for cost in (True, False, True):
            response, call = infer.with_call(message(cost=cost))
            trailers = {key: value for key, value in call.trailing_metadata() or () if key.startswith("erg-")}
            assert trailers.keys() == {name.replace("_", "-") for name in response.parameters}
            assert bool(trailers) is cost
            if cost:
                assert float(trailers["erg-usd"]) == pytest.approx(response.parameters["erg_usd"].double_param)
                assert trailers["erg-model-variant"] == "onnxruntime"


def test_metrics_have_what_workers_and_models_hold(priced: ServerProcess) -> None:
    with triton.InferenceServerClient(priced.grpc_address) as client:
        for _ in range(600):
            client.infer("mlp", [tensor(32)])
            if priced.metric("erg_worker_memory_bytes", worker="cpu0", kind="slab") > 0:
                break
    live = {
        kind: priced.metric("erg_worker_memory_bytes", worker="cpu0", kind=kind)
        for kind in ("pss", "rss", "slab", "base", "models", "rest")
    }
    assert all(nbytes > 0 for kind, nbytes in live.items() if kind not in {"models", "rest"}), live
    assert live["base"] < live["rss"]
    assert priced.metric("erg_worker_memory_peak_bytes", worker="cpu0", kind="rss") >= live["base"]
    assert priced.metric("erg_model_memory_bytes", worker="cpu0") == live["models"], "two models share the worker"
    assert priced.metric("erg_model_memory_peak_bytes", model="mlp") >= priced.metric(
        "erg_model_memory_bytes", model="mlp"
    )


def test_a_models_time_and_energy_are_in_dollars_by_tenant_and_idle_time_apart(priced: ServerProcess) -> None:
    with triton.InferenceServerClient(priced.grpc_address) as client:
        # Energy is booked once the counter was read after the batch.
        for _ in range(1000):
            client.infer("mlp", [tensor(32)], headers={"x-tenant": "payer"})
            if priced.metric("erg_tenant_cost_usd_total", tenant="payer", component="energy"):
                break
        told = client.infer("mlp", [tensor(32)], parameters={"erg_cost": True}).get_response().parameters
    assert told["erg_joules"].double_param > 0
    assert told["erg_joules_source"].string_param == "modelled"
    before_s = time.monotonic()
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(priced.http("/metrics")[1])
        for sample in family.samples
    }
    after_s = time.monotonic()

    def usd(name: str, **labels: str) -> float:
        return sum(v for (found, of), v in samples.items() if found == name and labels.items() <= dict(of).items())

    for component, source in (("device_time", None), ("energy", "modelled")):
        one = {"component": component, **({} if source is None else {"source": source})}
        assert usd("erg_cost_usd_total", model="mlp", account="inference", **one) > 0
        assert usd("erg_cost_usd_total", account="idle", model="", **one) > 0
        assert usd("erg_tenant_cost_usd_total", model="mlp", tenant="payer", **one) > 0
        assert usd("erg_tenant_cost_usd_total", **one) == pytest.approx(
            sum(usd("erg_cost_usd_total", model=model, **one) for model in ("mlp", "bare"))
        )
    assert usd("erg_cost_usd_per_1000_inferences", model="mlp", source="modelled") > 0
    assert usd("erg_carbon_grams_total", model="mlp", source="modelled") > 0
    assert usd("erg_carbon_intensity_info", grams_per_kwh="380") == 1
    # Every joule that is booked is paid, at 0.15 dollars a kWh and 1.2 joules for each: nothing of it is lost.
    booked = usd("erg_energy_counter_joules_total") - usd("erg_energy_pending_joules") - usd("erg_energy_drift_joules")
    assert usd("erg_cost_usd_total", component="energy") == pytest.approx(booked / 3.6e6 * 1.2 * 0.15)
    # One core at 0.04 dollars an hour, for as long as the server is up: nothing of it is lost or there twice.
    paid_s = usd("erg_cost_usd_total", component="device_time") / 0.04 * 3600
    up_s = time.time() - usd("erg_start_time_seconds") - (time.monotonic() - before_s)
    assert up_s - 0.5 < paid_s < up_s + (after_s - before_s) + 0.5


def test_a_flood_of_tenants_leaves_a_server_that_serves_and_metrics_that_end(own_repository: Path) -> None:
    with (
        ServerProcess(
            "--model-repository", str(own_repository), "--price-file", str(PRICES),
            "--tenant-metadata-key", "x-tenant", "--cpu-workers", "1",
        ) as flooded,
        grpc.insecure_channel(flooded.grpc_address) as channel,
    ):  # fmt: skip
        infer = infer_call(channel)
        infer(message(cost=False), metadata=(("x-tenant", "ours"),))
        for start in range(0, 2 * MAX_TENANTS, 50):
            names = [f"flood-{number}" for number in range(start, start + 50)]
            calls = [infer.future(message(cost=False), metadata=(("x-tenant", name),)) for name in names]
            for call in calls:
                call.result(timeout=60)
        for bad in (("x" * 65,), ("one", "two")):
            with pytest.raises(grpc.RpcError) as raised:
                infer(message(cost=False), metadata=tuple(("x-tenant", name) for name in bad))
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "x-tenant" in (raised.value.details() or "")
        assert infer(message(cost=False)).model_name == "mlp"
        tenants = {
            sample.labels["tenant"]
            for family in text_string_to_metric_families(flooded.http("/metrics")[1])
            for sample in family.samples
            if "tenant" in sample.labels
        }
    assert len(tenants) == MAX_TENANTS + 2, "those told apart, the others, and nobody"
    assert {"ours", "other", ""} <= tenants


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("usd_per_kw = 1", "did you mean 'usd_per_kwh'?"),
        ("[device_hour_usd]\ngpu = 2", "no device_hour_usd for cpu0"),
        ("usd_per_kwh = -1", "'usd_per_kwh' takes a number from 0"),
        (None, "No such file"),
    ],
)
def test_a_bad_price_file_ends_the_start_with_its_cause(tmp_path: Path, text: str | None, told: str) -> None:
    (tmp_path / "repository").mkdir()
    prices = tmp_path / "prices.toml"
    if text is not None:
        prices.write_text(text)
    ended = subprocess.run(
        [sys.executable, "-m", "erg_server", "serve", "--model-repository", str(tmp_path / "repository"),
         "--price-file", str(prices), "--grpc-port", "0", "--metrics-port", "0", "--devices", "cpu"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode not in (0, -11)
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
