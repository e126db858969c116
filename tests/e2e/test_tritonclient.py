"""Unmodified tritonclient against a real server: sync, aio, stream, and every RPC it has a call for."""

from __future__ import annotations

import asyncio
import json
import queue

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as triton_shm
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, mlp_weights

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(server: ServerProcess):
    with triton.InferenceServerClient(server.grpc_address) as client:
        yield client


def expected(x: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.asarray(np.maximum(x @ mlp_weights(seed), 0))


def fp32(name: str, array: np.ndarray) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)


def test_health_and_metadata(client, server) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("nothing")
    metadata = client.get_server_metadata(as_json=True)
    assert metadata["name"] == "erg"
    assert "statistics" in metadata["extensions"]
    model = client.get_model_metadata("mlp", as_json=True)
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "16"]}]
    assert model["versions"] == ["1"]


def test_a_model_without_configuration_is_completed_from_its_file(client) -> None:
    config = client.get_model_config("bare", as_json=True)["config"]
    assert config["input"][0]["name"] == "x"
    assert config["input"][0]["dims"] == ["16"]
    assert config["max_batch_size"] > 0
    x = rows(2)
    assert np.allclose(client.infer("bare", [fp32("x", x)]).as_numpy("y"), expected(x, 1), atol=1e-4)


def test_infer_answers_with_the_models_numbers(client) -> None:
    x = rows(3)
    result = client.infer("mlp", [fp32("x", x)], request_id="abc")
    assert np.allclose(result.as_numpy("y"), expected(x), atol=1e-4)
    assert result.get_response().id == "abc"
    assert result.get_response().model_version == "1"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_calls_are_answered(client, compression: str) -> None:
    x = rows(8)
    result = client.infer("mlp", [fp32("x", x)], compression_algorithm=compression)
    assert np.allclose(result.as_numpy("y"), expected(x), atol=1e-4)


def test_future_calls_are_answered_each_with_its_own(client) -> None:
    done: queue.Queue = queue.Queue()
    for number in range(32):
        x = np.full((1, 16), number, np.float32)
        client.async_infer("mlp", [fp32("x", x)], lambda result, error, x=x: done.put((x, result, error)))
    for _ in range(32):
        x, result, error = done.get(timeout=30)
        assert error is None
        assert np.allclose(result.as_numpy("y"), expected(x), rtol=1e-4)


def test_classification_gives_value_index_and_label(client) -> None:
    x = rows(1)
    output = triton.InferRequestedOutput("y", class_count=3)
    answer = client.infer("mlp", [fp32("x", x)], outputs=[output]).as_numpy("y")
    top = np.argsort(-expected(x)[0])[:3]
    assert [int(item.decode().split(":")[1]) for item in answer.ravel()] == top.tolist()
    assert answer.ravel()[0].decode().split(":")[2] == f"class{top[0]}"


@pytest.mark.parametrize(
    ("name", "datatype", "array"),
    [
        ("identity_int64", "INT64", np.array([[1, -(2**62)]], np.int64)),
        ("identity_fp16", "FP16", np.array([[1.5, -2.25]], np.float16)),
        ("identity_bool", "BOOL", np.array([[True, False, True]])),
        ("identity_string", "BYTES", np.array([[b"one", "zw\u00f6lf".encode(), b""]], dtype=object)),
        ("identity_fp32", "FP32", np.zeros((1, 0), np.float32)),
        ("identity_fp32", "FP32", np.arange(1_000_000, dtype=np.float32).reshape(1, -1)),
    ],
    ids=["int64", "fp16", "bool", "bytes", "zero-size", "4 MB"],
)
def test_every_datatype_comes_back_as_it_went(client, name: str, datatype: str, array: np.ndarray) -> None:
    tensor = triton.InferInput("INPUT0", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    answer = client.infer(name, [tensor]).as_numpy("OUTPUT0")
    assert answer.shape == array.shape
    assert np.array_equal(answer, array)


def test_bf16_comes_back_as_it_went(client) -> None:
    array = np.array([[1.0, -0.5, 3.0]], ml_dtypes.bfloat16)
    tensor = triton.InferInput("INPUT0", [1, 3], "BF16")
    tensor.set_data_from_numpy(array)
    assert np.array_equal(client.infer("identity_bf16", [tensor]).as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize(
    ("make", "status", "message"),
    [
        (lambda: ("nothing", [fp32("x", rows(1))]), "NOT_FOUND", "nothing"),
        (lambda: ("mlp", [fp32("z", rows(1))]), "INVALID_ARGUMENT", "z"),
        (lambda: ("mlp", [fp32("x", rows(1)[:, :8])]), "INVALID_ARGUMENT", "x"),
        (lambda: ("mlp", [fp32("x", rows(64))]), "INVALID_ARGUMENT", "32"),
        (lambda: ("mlp", []), "INVALID_ARGUMENT", "x"),
    ],
    ids=["unknown model", "unknown input", "wrong shape", "too many rows", "missing input"],
)
def test_a_wrong_request_gets_a_status_and_a_cause(client, make, status: str, message: str) -> None:
    name, inputs = make()
    with pytest.raises(InferenceServerException) as caught:
        client.infer(name, inputs)
    assert caught.value.status() == f"StatusCode.{status}"
    assert message in caught.value.message()


def test_a_wrong_byte_count_is_named(client) -> None:
    tensor = fp32("x", rows(1))
    tensor._raw_content = tensor._raw_content[:-1]
    with pytest.raises(InferenceServerException, match=r"x.*63.*64|x.*64.*63") as caught:
        client.infer("mlp", [tensor])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_client_timeout_is_a_deadline(client) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("patient", [fp32("x", rows(1))], client_timeout=0.05)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_a_stream_answers_each_request_and_puts_errors_in_the_message(server) -> None:
    answers: queue.Queue = queue.Queue()
    with triton.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            x = np.full((1, 16), number, np.float32)
            client.async_stream_infer("mlp", [fp32("x", x)], request_id=str(number))
        client.async_stream_infer("nothing", [fp32("x", rows(1))])
        client.async_stream_infer("mlp", [fp32("x", rows(1))], request_id="last", enable_empty_final_response=True)
        got = [answers.get(timeout=30) for _ in range(22)]
        client.stop_stream()
    errors = [error for _, error in got if error is not None]
    assert len(errors) == 1
    assert "nothing" in errors[0].message()
    results = {result.get_response().id: result for result, _ in got if result is not None}
    for number in range(20):
        x = np.full((1, 16), number, np.float32)
        assert np.allclose(results[str(number)].as_numpy("y"), expected(x), rtol=1e-4)
    assert results["last"].get_response().parameters["triton_final_response"].bool_param


async def test_the_aio_client_is_answered(server) -> None:
    async with triton_aio.InferenceServerClient(server.grpc_address) as client:
        assert await client.is_server_ready()
        inputs = [rows(number % 4 + 1) for number in range(40)]
        results = await asyncio.gather(*(client.infer("mlp", [fp32("x", x)]) for x in inputs))
        for x, result in zip(inputs, results, strict=True):
            assert np.allclose(result.as_numpy("y"), expected(x), atol=1e-4)

        async def requests():
            for number in range(5):
                yield {"model_name": "mlp", "inputs": [fp32("x", rows(1))], "request_id": str(number)}

        streamed = [item async for item in client.stream_infer(requests())]
        assert sorted(result.get_response().id for result, error in streamed if error is None) == list("01234")


def test_the_index_load_with_an_override_and_unload(client) -> None:
    index = {(entry.name, entry.version): entry for entry in client.get_model_repository_index().models}
    assert index["mlp", "1"].state == "READY"
    config = json.loads(json.dumps(client.get_model_config("bare", as_json=True)["config"]))
    config["max_batch_size"] = 3
    client.load_model("bare", config=json.dumps(config))
    assert client.get_model_config("bare", as_json=True)["config"]["max_batch_size"] == 3
    client.unload_model("bare")
    assert not client.is_model_ready("bare")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("bare", [fp32("x", rows(1))])
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("bare")
    assert client.is_model_ready("bare")
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("no_such_model")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_a_model_loads_from_the_bytes_a_client_sends(client, repository) -> None:
    content = (repository / "bare" / "1" / "model.onnx").read_bytes()
    config = {
        "backend": "onnxruntime",
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [16]}],
    }
    client.load_model("from_client", config=json.dumps(config), files={"file:1/model.onnx": content})
    x = rows(2)
    assert np.allclose(client.infer("from_client", [fp32("x", x)]).as_numpy("y"), expected(x, 1), atol=1e-4)
    client.unload_model("from_client")


def test_statistics_count_what_was_sent(client) -> None:
    def numbers() -> tuple[int, int, int]:
        stats = client.get_inference_statistics("mlp").model_stats[0]
        return stats.inference_count, stats.execution_count, stats.inference_stats.success.count

    before = numbers()
    for _ in range(5):
        client.infer("mlp", [fp32("x", rows(2))])
    after = numbers()
    assert after[0] - before[0] == 10
    assert 1 <= after[1] - before[1] <= 5
    assert after[2] - before[2] == 5


def test_log_and_trace_settings_answer_and_change(client) -> None:
    before = client.get_log_settings(as_json=True)["settings"]
    changed = client.update_log_settings({"log_verbose_level": 1, "log_format": "ISO8601"}, as_json=True)["settings"]
    assert changed["log_format"]["string_param"] == "ISO8601"
    client.update_log_settings({"log_verbose_level": 0, "log_format": before["log_format"]["string_param"]})
    settings = client.get_trace_settings(as_json=True)["settings"]
    assert settings["trace_level"]["value"] == ["OFF"]


def test_traces_hold_each_sampled_requests_phases(client, trace_folder) -> None:
    file = trace_folder / "trace.json"
    client.update_trace_settings(
        "mlp", {"trace_file": str(file), "trace_level": ["TIMESTAMPS"], "trace_rate": "1", "log_frequency": "1"}
    )
    client.infer("mlp", [fp32("x", rows(1))], request_id="traced")
    client.update_trace_settings("mlp", {"trace_level": ["OFF"]})
    files = list(trace_folder.glob("trace.json*"))
    text = "".join(path.read_text() for path in files)
    for name in ("REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"):
        assert name in text
    client.update_trace_settings(
        "mlp", {"trace_file": None, "trace_level": None, "trace_rate": None, "log_frequency": None}
    )


def test_system_shared_memory_carries_inputs_and_outputs(client) -> None:
    x = rows(2)
    region = triton_shm.create_shared_memory_region("in", "/erg_test_in", x.nbytes)
    out = triton_shm.create_shared_memory_region("out", "/erg_test_out", x.nbytes)
    try:
        triton_shm.set_shared_memory_region(region, [x])
        client.unregister_system_shared_memory()
        client.register_system_shared_memory("in", "/erg_test_in", x.nbytes)
        client.register_system_shared_memory("out", "/erg_test_out", x.nbytes)
        assert set(client.get_system_shared_memory_status().regions) == {"in", "out"}
        tensor = triton.InferInput("x", [2, 16], "FP32")
        tensor.set_shared_memory("in", x.nbytes)
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory("out", x.nbytes)
        result = client.infer("mlp", [tensor], outputs=[output])
        assert list(result.get_response().raw_output_contents) == [b""]
        got = triton_shm.get_contents_as_numpy(out, np.float32, [2, 16])
        assert np.allclose(got, expected(x), atol=1e-4)
        client.unregister_system_shared_memory("in")
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
    finally:
        triton_shm.destroy_shared_memory_region(region)
        triton_shm.destroy_shared_memory_region(out)


def test_cuda_shared_memory_is_clearly_unimplemented_without_a_gpu(client) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.register_cuda_shared_memory("r", b"", 0, 64)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_perf_analyzers_order_of_calls_gets_what_it_parses(client) -> None:
    metadata = client.get_model_metadata("mlp", as_json=True)
    config = client.get_model_config("mlp", as_json=True)["config"]
    assert config["max_batch_size"] > 0
    assert metadata["inputs"][0]["shape"][0] == "-1"
    assert {item["name"] for item in config["input"]} <= {item["name"] for item in metadata["inputs"]}
    assert {item["name"] for item in config["output"]} <= {item["name"] for item in metadata["outputs"]}
    assert "dynamic_batching" in config
    assert "model_transaction_policy" not in config or "decoupled" in config["model_transaction_policy"]
    assert "statistics" in client.get_server_metadata(as_json=True)["extensions"]
    before = client.get_inference_statistics("mlp", as_json=True)["model_stats"][0]
    for _ in range(10):
        client.infer("mlp", [fp32("x", rows(1))])
    after = client.get_inference_statistics("mlp", as_json=True)["model_stats"][0]
    assert int(after["inference_count"]) - int(before["inference_count"]) == 10
    for key in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert int(after["inference_stats"][key]["count"]) > 0
