import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from erg_server.backends.base import ModelLoad
from erg_server.backends.openvino import OpenVinoBackend, OpenVinoModel, compile_properties
from erg_server.backends.openvino_library import new_core
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import (
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    UnimplementedError,
)
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec, TensorSpec
from onnx import TensorProto, helper, numpy_helper

CPU = Device(kind="cpu", id=0)
ONNX_TYPES = {
    DataType.BOOL: TensorProto.BOOL,
    DataType.UINT8: TensorProto.UINT8,
    DataType.UINT16: TensorProto.UINT16,
    DataType.UINT32: TensorProto.UINT32,
    DataType.UINT64: TensorProto.UINT64,
    DataType.INT8: TensorProto.INT8,
    DataType.INT16: TensorProto.INT16,
    DataType.INT32: TensorProto.INT32,
    DataType.INT64: TensorProto.INT64,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP64: TensorProto.DOUBLE,
    DataType.BF16: TensorProto.BFLOAT16,
    DataType.BYTES: TensorProto.STRING,
}


def save(
    path: Path, nodes: Sequence[onnx.NodeProto], *, inputs: Sequence[str] = ("x",), elem_type: int = TensorProto.FLOAT
) -> Path:
    """A model of `inputs` [batch, 4] to y, any shape of rank 2."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, elem_type, ["batch", 4]) for name in inputs],
        [helper.make_tensor_value_info("y", elem_type, [None, None])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


WEIGHTS = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
MATMUL = [helper.make_node("MatMul", ["x", "w"], ["y"])]


def model_load(
    path: Path,
    *,
    inputs: Sequence[str] = ("x",),
    datatype: DataType = DataType.FP32,
    device: Device = CPU,
    output: str = "y",
    **parameters: str,
) -> ModelLoad:
    spec = ModelSpec(
        name="m",
        backend="openvino",
        max_batch_size=8,
        inputs=tuple(TensorSpec(name=name, datatype=datatype, dims=(4,)) for name in inputs),
        outputs=(TensorSpec(name=output, datatype=datatype, dims=(-1,)),),
        parameters=parameters,
    )
    return ModelLoad(name="m", version=1, config=ModelConfig(), spec=spec, path=path, device=device)


def load(path: Path, **rest) -> OpenVinoModel:
    return OpenVinoBackend().load(model_load(path, **rest))


def random_rows(rows: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)


def test_any_number_of_rows_is_answered_in_float32(tmp_path: Path) -> None:
    model = load(save(tmp_path / "model.onnx", MATMUL))
    for rows in (1, 3, 8, 2, 0):
        x = random_rows(rows)
        [y] = model.run([x])
        assert (y.dtype == np.float32, y.shape) == (True, (rows, 64))
        np.testing.assert_allclose(y, x @ WEIGHTS, rtol=1e-5, atol=1e-6)
    model.close()


def test_the_precision_is_float32_unless_stated(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", MATMUL)
    x = random_rows()
    exact = x @ WEIGHTS
    stated = load(path, INFERENCE_PRECISION_HINT="bf16").run([x])[0]
    unstated = load(path).run([x])[0]
    assert np.abs(unstated - exact).max() < 1e-5
    if stated.tobytes() != unstated.tobytes():  # the CPU has bf16
        assert 1e-4 < np.abs(stated - exact).max() < 0.1


def test_answers_stay_when_the_next_batch_runs(tmp_path: Path) -> None:
    model = load(save(tmp_path / "model.onnx", MATMUL))
    [first] = model.run([random_rows()])
    kept = first.copy()
    model.run([random_rows() * 2])
    np.testing.assert_array_equal(first, kept)


def test_inputs_are_left_as_they_were(tmp_path: Path) -> None:
    """Relu could run in place, and its memory is the caller's."""
    model = load(save(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])]))
    x = random_rows()
    kept = x.copy()
    [y] = model.run([x])
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(y, np.maximum(kept, 0))


@pytest.mark.parametrize(
    "present",
    [
        pytest.param(lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape), id="read only"),
        pytest.param(lambda x: np.repeat(x, 2, axis=1)[:, ::2], id="not contiguous"),
        pytest.param(
            lambda x: np.frombuffer(bytearray(4) + bytearray(x.tobytes()), np.float32, offset=4).reshape(x.shape),
            id="not aligned",
        ),
    ],
)
def test_any_array_is_taken(tmp_path: Path, present: Callable[[np.ndarray], np.ndarray]) -> None:
    x = random_rows()
    [y] = load(save(tmp_path / "model.onnx", MATMUL)).run([present(x)])
    np.testing.assert_allclose(y, x @ WEIGHTS, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "datatype",
    [each for each in DataType if each not in (DataType.BYTES, DataType.FP64, DataType.UINT64)],
)
def test_every_datatype_comes_back_as_it_went_in(tmp_path: Path, datatype: DataType) -> None:
    path = save(tmp_path / "m", [helper.make_node("Identity", ["x"], ["y"])], elem_type=ONNX_TYPES[datatype])
    x = np.array([[0, 1, 1, 0], [1, 1, 0, 0]]).astype(datatype.numpy)
    if datatype is DataType.BF16:
        x = np.array([[0x3F80, 0x4000, 0x7F80, 0x0001]], np.uint16)
    elif datatype is not DataType.BOOL and x.dtype.kind in "iu":
        limits = np.iinfo(np.int32 if datatype is DataType.INT64 else x.dtype)
        x[0, 0], x[0, 1] = limits.min, limits.max
    [y] = load(path, datatype=datatype).run([x])
    assert y.dtype == datatype.numpy
    np.testing.assert_array_equal(y, x)


def test_bfloat16_is_computed_with(tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Add", ["x", "x"], ["y"])], elem_type=TensorProto.BFLOAT16)
    [y] = load(path, datatype=DataType.BF16).run([np.array([[0x3F80, 0x4000, 0x4040, 0]], np.uint16)])
    assert y.tolist() == [[0x4000, 0x4080, 0x40C0, 0]]  # 1, 2, 3 and 0, doubled


@pytest.mark.parametrize("datatype", [DataType.BYTES, DataType.FP64, DataType.UINT64])
def test_what_openvino_would_change_is_refused_at_load(tmp_path: Path, datatype: DataType) -> None:
    path = save(tmp_path / "m", [helper.make_node("Identity", ["x"], ["y"])], elem_type=ONNX_TYPES[datatype])
    with pytest.raises(UnimplementedError, match=f"'x' of type {datatype.value}.*use backend 'onnxruntime'"):
        load(path, datatype=datatype)


def test_integers_outside_32_bits_are_refused_and_the_model_stays(tmp_path: Path) -> None:
    path = save(tmp_path / "m", [helper.make_node("Identity", ["x"], ["y"])], elem_type=TensorProto.INT64)
    model = load(path, datatype=DataType.INT64)
    for value in (2**31, -(2**31) - 1, 2**63 - 1):
        with pytest.raises(InvalidArgumentError, match="'x' has a value outside 32 bits"):
            model.run([np.array([[0, 0, 0, value]], np.int64)])
    assert model.run([np.array([[1, 2, 3, -4]], np.int64)])[0].tolist() == [[1, 2, 3, -4]]


@pytest.mark.parametrize("shape", [(3, 5), (4,), (1, 3, 4), ()])
def test_a_bad_shape_is_the_callers_fault_and_breaks_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = load(save(tmp_path / "model.onnx", MATMUL))
    with pytest.raises(InvalidArgumentError, match="OpenVINO refuses input"):
        model.run([np.zeros(shape, np.float32)])
    with pytest.raises(InvalidArgumentError, match="'x' is missing"):
        model.run([None])
    x = random_rows()
    np.testing.assert_allclose(model.run([x])[0], x @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_inputs_that_do_not_fit_each_other_are_refused_before_the_plugin_meets_them(tmp_path: Path) -> None:
    """The plugin answers such a batch with the answer of the batch before, or with nothing but failures ever after."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["a", "z"], ["y"])],
        "two lengths",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", f"length_{name}"]) for name in "xz"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(tmp_path / "m"))
    model = load(tmp_path / "m", inputs=("x", "z"))

    def run(rows: tuple[int, int], lengths: tuple[int, int]) -> np.ndarray:
        return model.run([np.ones((rows[0], lengths[0]), np.float32), np.full((rows[1], lengths[1]), 2, np.float32)])[0]

    assert run((2, 2), (5, 5)).tolist() == [[3.0] * 5] * 2
    for lengths in ((5, 7), (7, 5)):
        with pytest.raises(InvalidArgumentError, match=r"shapes \[2, \d\], \[2, \d\]: .*inconsistent"):
            run((2, 2), lengths)
        assert run((2, 2), (5, 5)).tolist() == [[3.0] * 5] * 2
    with pytest.raises(InvalidArgumentError, match=r"different numbers of rows: \[2, 3\]"):
        run((2, 3), (5, 5))
    assert run((3, 3), (5, 5)).tolist() == [[3.0] * 5] * 3


def test_a_failure_inside_the_model_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    """The constant has three rows: batches of one and of three go through, which only the run finds out."""
    three = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "three")
    nodes = [helper.make_node("Constant", [], ["c"], value=three), helper.make_node("Add", ["x", "c"], ["y"])]
    model = load(save(tmp_path / "model.onnx", nodes))
    x = random_rows()
    for _ in range(2):
        with pytest.raises(InternalError, match=r"OpenVINO failed: .*mismatch"):
            model.run([x[:2]])
        np.testing.assert_array_equal(model.run([x])[0], x + numpy_helper.to_array(three))


def test_a_model_that_failed_half_way_is_compiled_anew(tmp_path: Path) -> None:
    """How long the table's slice is depends on the values of z, so only the run finds out that it does not fit x."""
    table = np.arange(64, dtype=np.float32).reshape(1, 64)
    constants: dict[str, np.ndarray] = {"table": table, "zero": np.zeros(1, np.int64), "one": np.ones(1, np.int64)}
    nodes = [
        helper.make_node("ReduceMax", ["z"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["number"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["number", "one"], ["end"]),
        helper.make_node("Slice", ["table", "zero", "end", "one"], ["s"]),
        helper.make_node("Relu", ["s"], ["positions"]),
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Add", ["a", "positions"], ["y"]),
    ]
    nodes = [
        *(helper.make_node("Constant", [], [k], value=numpy_helper.from_array(v, k)) for k, v in constants.items()),
        *nodes,
    ]
    model = load(save(tmp_path / "m", nodes, inputs=("x", "z")), inputs=("x", "z"))
    x = np.abs(random_rows())
    four, seven = np.full((3, 4), 4, np.float32), np.full((3, 4), 7, np.float32)
    for _ in range(2):
        np.testing.assert_allclose(model.run([x, four])[0], x + table[:, :4])
        with pytest.raises(InternalError, match="OpenVINO failed: "):
            model.run([x, seven])
    np.testing.assert_allclose(model.run([x, four])[0], x + table[:, :4])


def test_what_openvino_does_not_load_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(FailedPreconditionError, match=r"does not load broken\.onnx"):
        load(tmp_path / "broken.onnx")
    with pytest.raises(FailedPreconditionError, match=r"does not load missing\.onnx"):
        load(tmp_path / "missing.onnx")
    custom = save(tmp_path / "custom.onnx", [helper.make_node("Nope", ["x"], ["y"], domain="com.example")])
    with pytest.raises(FailedPreconditionError, match=r"No conversion rule.*Nope"):
        load(custom)
    with pytest.raises(FailedPreconditionError, match=r"no output 'logits' in model\.onnx; it has 'y'"):
        load(save(tmp_path / "model.onnx", MATMUL), output="logits")


def test_a_gpu_is_not_its_device(tmp_path: Path) -> None:
    with pytest.raises(UnimplementedError, match="gpu0 is none"):
        load(save(tmp_path / "model.onnx", MATMUL), device=Device(kind="gpu", id=0))


def test_the_worker_decides_of_threads_and_the_configuration_of_the_rest() -> None:
    device = Device(kind="cpu", id=0, cores=(0, 1, 2))
    properties = compile_properties(model_load(Path("m"), device=device))
    assert properties == {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "CPU_RUNTIME_CACHE_CAPACITY": "1000",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": 3,
        "ENABLE_CPU_PINNING": False,
    }
    stated = {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32", "owner": "search team"}
    model = model_load(Path("m"))
    model = dataclasses.replace(model, spec=dataclasses.replace(model.spec, parameters=stated))
    properties = compile_properties(model)
    assert [properties[key] for key in list(stated)[:2]] == ["bf16", "32"]
    assert "owner" not in properties


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"INFERENCE_PRECISION_HINT": "int4"}, "is 'int4'; allowed: f32, bf16, f16"),
        ({"INFERENCE_PRECISION": "f32"}, "did you mean INFERENCE_PRECISION_HINT?"),
        ({"INFERENCE_NUM_THREADS": "8"}, "is the worker's to set"),
        ({"CACHE_DIR": "/tmp"}, "is no property that backend 'openvino' takes; allowed: "),
        ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": "many"}, "DYNAMIC_QUANTIZATION_GROUP_SIZE"),
    ],
)
def test_a_wrong_parameter_is_told(tmp_path: Path, parameters: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        load(save(tmp_path / "model.onnx", MATMUL), **parameters)
    assert told in raised.value.message


def test_a_less_exact_precision_than_stated_is_refused(tmp_path: Path) -> None:
    """CPUs with bf16 and without f16 are given bf16 by OpenVINO, unasked."""
    capabilities = new_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "FP16" in capabilities or "BF16" not in capabilities:
        pytest.skip("this CPU has float16, or no bfloat16")
    with pytest.raises(FailedPreconditionError, match="would run the model in bf16"):
        load(save(tmp_path / "model.onnx", MATMUL), INFERENCE_PRECISION_HINT="f16")


@pytest.mark.e2e
def test_it_stays_on_the_workers_core_and_reports_to_nobody(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", MATMUL)
    core = min(os.sched_getaffinity(0))
    program = f"""
        import json, os, sys
        os.sched_setaffinity(0, [{core}])  # as a worker does
        from pathlib import Path
        from tests.server.backends.test_openvino import load, random_rows, Device
        model = load(Path({str(path)!r}), device=Device(kind="cpu", id=0, cores=({core},)))
        for rows in range(1, 9):
            model.run([random_rows(rows)])
        tasks = [int(task) for task in os.listdir("/proc/self/task")]
        print(json.dumps([
            sorted({{core for task in tasks for core in os.sched_getaffinity(task)}}),
            [name for name in sys.modules if name.split(".")[0] == "openvino_telemetry"],
        ]))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True
    )
    assert json.loads(result.stdout) == [[core], []], result.stderr
