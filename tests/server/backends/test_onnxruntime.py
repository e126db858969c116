"""What ONNX Runtime does that no other backend need: its datatypes' edges, its options and its providers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from erg_server.backends.onnxruntime import OnnxRuntimeBackend, execution_providers, session_options
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import FailedPreconditionError, InvalidArgumentError, UnimplementedError
from onnx import TensorProto, helper

from tests.contract import onnx_models
from tests.contract.onnx_models import WIDTH, model_load

GPU = Device(kind="gpu", id=1, gpu_uuid="GPU-0")
HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()


def objects(items: list[bytes]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(-1, WIDTH)


def test_bf16_is_the_upper_half_of_fp32_in_both_directions(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 0.15625], [np.inf, -0.0, 3.0e38]], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    exact = (halves.astype(np.uint32) << 16).view(np.float32)
    bf16, fp32 = DataType.BF16, DataType.FP32
    for source, target, given, expected in ((bf16, fp32, halves, exact), (fp32, bf16, exact, halves)):
        path = onnx_models.cast(tmp_path / "model.onnx", source, target)
        model = OnnxRuntimeBackend().load(model_load("onnxruntime", path, [("x", source)], [("y", target)]))
        (output,) = model.run([given])
        assert output.dtype == target.numpy
        assert output.tobytes() == expected.tobytes()
        model.close()


def test_bf16_goes_in_beside_bytes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["b"], ["q"]), helper.make_node("Cast", ["a"], ["p"], to=TensorProto.FLOAT)]
    inputs, outputs = [("a", DataType.BF16), ("b", DataType.BYTES)], [("p", DataType.FP32), ("q", DataType.BYTES)]
    path = onnx_models.save(tmp_path / "model.onnx", nodes, inputs, outputs)
    model = OnnxRuntimeBackend().load(model_load("onnxruntime", path, inputs, outputs))
    texts = objects([b"a", b"", "é".encode()])
    p, q = model.run([np.array([[0x3F80, 0x4000, 0]], np.uint16), texts])
    assert p.tolist() == [[1.0, 2.0, 0.0]]
    assert q.tolist() == texts.tolist()
    model.close()


def test_bf16_comes_out_beside_bytes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["p"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["x"], ["q"], to=TensorProto.STRING),
    ]
    inputs, outputs = [("x", DataType.FP32)], [("p", DataType.BF16), ("q", DataType.BYTES)]
    path = onnx_models.save(tmp_path / "model.onnx", nodes, inputs, outputs)
    model = OnnxRuntimeBackend().load(model_load("onnxruntime", path, inputs, outputs))
    p, q = model.run([np.array([[1, 2, 0]], np.float32)])
    assert p.tolist() == [[0x3F80, 0x4000, 0]]
    assert q.tolist() == [[b"1", b"2", b"0"]]
    model.close()


def test_bytes_in_and_bf16_out_is_refused_at_load(tmp_path: Path) -> None:
    inputs, outputs = [("a", DataType.BF16), ("b", DataType.BYTES)], [("p", DataType.BF16), ("q", DataType.BYTES)]
    path = onnx_models.two_echoes(tmp_path / "model.onnx", DataType.BF16, DataType.BYTES)
    with pytest.raises(UnimplementedError, match="takes BYTES and answers BF16"):
        OnnxRuntimeBackend().load(model_load("onnxruntime", path, inputs, outputs))


def test_a_precision_that_only_the_file_could_give_is_refused_at_load(tmp_path: Path) -> None:
    path = onnx_models.echo(tmp_path / "model.onnx", DataType.FP32)
    values = [("x", DataType.FP32)], [("y", DataType.FP32)]
    stated = 'parameters {{ key: "INFERENCE_PRECISION_HINT" value {{ string_value: "{}" }} }}'
    with pytest.raises(UnimplementedError, match=r"INFERENCE_PRECISION_HINT is bf16.* use backend 'openvino'"):
        OnnxRuntimeBackend().load(model_load("onnxruntime", path, *values, extra=stated.format("bf16")))
    OnnxRuntimeBackend().load(model_load("onnxruntime", path, *values, extra=stated.format("f32"))).close()


def test_bytes_that_are_no_utf8_are_the_callers_error(tmp_path: Path) -> None:
    path = onnx_models.echo(tmp_path / "model.onnx", DataType.BYTES)
    strings = [("x", DataType.BYTES)], [("y", DataType.BYTES)]
    model = OnnxRuntimeBackend().load(model_load("onnxruntime", path, *strings))
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        model.run([objects([b"a", b"\xff\xfe", b"c"])])
    nul = objects([b"a\x00b", b"\x00", b""])
    assert model.run([nul])[0].tolist() == nul.tolist()
    model.close()


def test_a_refused_shape_tells_what_came_and_what_was_expected(tmp_path: Path) -> None:
    path = onnx_models.echo(tmp_path / "model.onnx", DataType.FP32)
    model = OnnxRuntimeBackend().load(model_load("onnxruntime", path, [("x", DataType.FP32)], [("y", DataType.FP32)]))
    with pytest.raises(InvalidArgumentError, match=r"input: x .* Got: 5 Expected: 3"):
        model.run([np.zeros((2, 5), np.float32)])
    model.close()


@pytest.mark.parametrize("cores", [(), (0,), (0, 1, 2)])
def test_a_session_has_as_many_threads_as_its_device_has_cores_and_none_spins(cores: tuple[int, ...]) -> None:
    device = Device(kind="cpu", id=0, cores=cores)
    options = session_options(model_load("onnxruntime", Path("model.onnx"), [], [], device=device))
    assert options.intra_op_num_threads == max(1, len(cores))
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("", ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
        ("level: -1", ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
        ("level: 0", ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
        ("level: 1", ort.GraphOptimizationLevel.ORT_ENABLE_BASIC),
        ("level: 2", ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
    ],
)
def test_the_configured_graph_level_reaches_the_session(level: str, expected: ort.GraphOptimizationLevel) -> None:
    extra = f"optimization {{ graph {{ {level} }} }}"
    options = session_options(model_load("onnxruntime", Path("model.onnx"), [], [], extra=extra))
    assert options.graph_optimization_level == expected


def accelerated(text: str) -> str:
    return f"optimization {{ execution_accelerators {{ gpu_execution_accelerator: {text} }} }}"


def test_a_gpu_gets_the_configured_accelerators_then_cuda_on_the_only_gpu_its_worker_sees() -> None:
    extra = accelerated('{ name: "tensorrt" parameters { key: "trt_fp16_enable" value: "1" } }')
    load = model_load("onnxruntime", Path("model.onnx"), [], [], device=GPU, extra=extra)
    assert execution_providers(load) == [
        ("TensorrtExecutionProvider", {"trt_fp16_enable": "1", "device_id": "0"}),
        ("CUDAExecutionProvider", {"device_id": "0"}),
    ]


def test_cuda_stated_with_options_is_not_added_again() -> None:
    extra = accelerated('{ name: "cuda" parameters { key: "gpu_mem_limit" value: "9" } }')
    load = model_load("onnxruntime", Path("model.onnx"), [], [], device=GPU, extra=extra)
    assert execution_providers(load) == [("CUDAExecutionProvider", {"gpu_mem_limit": "9", "device_id": "0"})]


def test_an_accelerator_nobody_has_is_named_with_those_that_exist() -> None:
    load = model_load("onnxruntime", Path("model.onnx"), [], [], device=GPU, extra=accelerated('{ name: "warp" }'))
    with pytest.raises(InvalidArgumentError, match="'warp' is not one of cuda, tensorrt"):
        execution_providers(load)


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA: the refusal cannot be seen")
def test_a_gpu_without_its_provider_is_refused_instead_of_served_by_the_cpu(tmp_path: Path) -> None:
    path = onnx_models.echo(tmp_path / "model.onnx", DataType.FP32)
    load = model_load("onnxruntime", path, [("x", DataType.FP32)], [("y", DataType.FP32)], device=GPU)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(FailedPreconditionError, match="gpu1"):
        OnnxRuntimeBackend().load(load)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and an NVIDIA GPU")
@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.BF16], ids=lambda datatype: datatype.value)
def test_a_gpu_answers_in_memory_the_host_can_read(datatype: DataType, tmp_path: Path) -> None:
    path = onnx_models.echo(tmp_path / "model.onnx", datatype)
    device = Device(kind="gpu", id=0)
    model = OnnxRuntimeBackend().load(
        model_load("onnxruntime", path, [("x", datatype)], [("y", datatype)], device=device)
    )
    values = np.arange(2 * WIDTH).reshape(2, WIDTH).astype(datatype.numpy)
    assert np.array_equal(model.run([values])[0], values)
    model.close()
