"""What every backend promises, whoever wrote it: a new one is one more entry of CASES."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from erg_server.backends.base import Backend, LoadedModel
from erg_server.backends.registry import create_backend
from erg_server.datatype import DATATYPES, DataType
from erg_server.devices.device import Device
from erg_server.errors import FailedPreconditionError, InvalidArgumentError, UnimplementedError
from erg_server.workers.loop import resident_bytes

from tests.contract import onnx_models
from tests.contract.onnx_models import WIDTH, model_load

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCase:
    """A backend and what it claims. One that reads no file has nothing to refuse but a missing input."""

    name: str
    datatypes: Sequence[DataType]
    reads_file: bool = True
    optional_inputs: bool = True
    rtol: float = 0.0
    """Between a row alone and the same row in a batch; 0 asks for the same bits."""
    waiting_threads: int = 0
    """Threads a model has that only hand a batch over or its end back, while nothing else of it runs."""


CASES = (
    BackendCase(name="identity", datatypes=DATATYPES, reads_file=False),
    # A matrix product of one row sums in another order than one of many.
    BackendCase(name="onnxruntime", datatypes=DATATYPES, rtol=1e-5),
    # It refuses what OpenVINO would compute in fewer bits; of INT64 the values that fit 32 (tests/server/backends).
    BackendCase(
        name="openvino",
        datatypes=[
            datatype
            for datatype in DATATYPES
            if datatype not in {DataType.BYTES, DataType.FP64, DataType.UINT64, DataType.INT64}
        ],
        optional_inputs=False,
        rtol=1e-5,
        waiting_threads=1,
    ),
)
READERS = tuple(case for case in CASES if case.reads_file)
ECHOES = [
    pytest.param(case, datatype, id=f"{case.name}-{datatype.value}") for case in CASES for datatype in case.datatypes
]
F32 = (("x", DataType.FP32),), (("y", DataType.FP32),)

every_backend = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_reader = pytest.mark.parametrize("case", READERS, ids=lambda case: case.name)


def backend_of(case: BackendCase) -> Backend:
    try:
        return create_backend(case.name)
    except UnimplementedError as error:
        pytest.skip(error.message)


def load(case: BackendCase, path: Path, *, device: Device | None = None) -> LoadedModel:
    """A model of one FP32 input, x, and one output, y."""
    return backend_of(case).load(model_load(case.name, path, *F32, device=device))


def sample(datatype: DataType, rows: int) -> Array:
    """Bits that conversions lose: all of them set (NaN, -1, the greatest), both signs, texts empty and not ASCII."""
    if datatype is DataType.BYTES:
        texts = np.empty(rows * WIDTH, dtype=object)
        texts[:] = [("", "plain", "žluťoučký 🐎")[number % 3].encode() for number in range(rows * WIDTH)]
        return texts.reshape(rows, WIDTH)
    if datatype is DataType.BOOL:
        flags: Array = np.arange(rows * WIDTH).reshape(rows, WIDTH) % 2 == 0
        return flags
    raw = np.random.default_rng(3).integers(0, 256, rows * WIDTH * datatype.itemsize, dtype=np.uint8)
    if raw.size:
        raw[: datatype.itemsize] = 0xFF
    values: Array = raw.view(datatype.numpy)
    return values.reshape(rows, WIDTH)


def native_threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def bits(array: Array) -> object:
    return array.ravel().tolist() if array.dtype == object else array.tobytes()


def echo_model(case: BackendCase, tmp_path: Path, datatype: DataType) -> LoadedModel:
    path = tmp_path / "model.onnx"
    if case.reads_file:
        onnx_models.echo(path, datatype)
    return backend_of(case).load(model_load(case.name, path, [("x", datatype)], [("y", datatype)]))


@pytest.mark.parametrize(("case", "datatype"), ECHOES)
def test_every_datatype_comes_back_with_its_bits_dtype_and_shape(
    case: BackendCase, datatype: DataType, tmp_path: Path
) -> None:
    model = echo_model(case, tmp_path, datatype)
    values = sample(datatype, 4)
    (output,) = model.run([values])
    assert output.dtype == datatype.numpy
    assert output.shape == (4, WIDTH)
    assert bits(output) == bits(values)
    model.close()


@pytest.mark.parametrize(("case", "datatype"), ECHOES)
def test_a_batch_of_no_rows_gives_no_rows(case: BackendCase, datatype: DataType, tmp_path: Path) -> None:
    model = echo_model(case, tmp_path, datatype)
    (output,) = model.run([sample(datatype, 0)])
    assert output.dtype == datatype.numpy
    assert output.shape == (0, WIDTH)
    model.close()


@every_backend
def test_outputs_come_in_the_order_of_the_configuration_not_of_the_file(case: BackendCase, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    first, second = DataType.INT32, DataType.FP32
    if case.reads_file:
        onnx_models.two_echoes(path, first, second)
    model = backend_of(case).load(
        model_load(case.name, path, [("a", first), ("b", second)], [("p", first), ("q", second)])
    )
    a, b = np.full((2, WIDTH), 7, np.int32), np.full((2, WIDTH), 0.5, np.float32)
    p, q = model.run([a, b])
    assert p.dtype == np.int32
    assert q.dtype == np.float32
    assert np.array_equal(p, a)
    assert np.array_equal(q, b)
    model.close()


@every_backend
def test_a_batch_answers_what_its_rows_alone_would(case: BackendCase, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = load(case, onnx_models.linear(path) if case.reads_file else path)
    rows = np.random.default_rng(5).standard_normal((8, WIDTH)).astype(np.float32)
    (together,) = model.run([rows])
    alone = np.concatenate([model.run([rows[at : at + 1]])[0] for at in range(8)])
    np.testing.assert_allclose(together, alone, rtol=case.rtol, atol=case.rtol)
    model.close()


@every_backend
def test_an_optional_input_may_be_left_out(case: BackendCase, tmp_path: Path) -> None:
    if not case.optional_inputs:
        pytest.skip(f"{case.name} has no optional inputs")
    path = tmp_path / "model.onnx"
    if case.reads_file:
        onnx_models.shifted(path)
    inputs = [("x", DataType.FP32), ("offset", DataType.FP32)]
    model = backend_of(case).load(model_load(case.name, path, inputs, F32[1], optional=["offset"]))
    x = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)
    assert np.array_equal(model.run([x, None])[0], x)
    if case.reads_file:
        assert np.array_equal(model.run([x, np.ones((1, WIDTH), np.float32)])[0], x + 1)
    model.close()


@every_backend
def test_a_missing_input_is_the_callers_error_and_the_next_batch_runs(case: BackendCase, tmp_path: Path) -> None:
    model = echo_model(case, tmp_path, DataType.FP32)
    with pytest.raises(InvalidArgumentError, match="input"):
        model.run([None])
    values = sample(DataType.FP32, 2)
    assert bits(model.run([values])[0]) == bits(values)
    model.close()


@every_reader
@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (WIDTH,), (2, WIDTH, 1), ()], ids=str)
@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.BF16], ids=lambda datatype: datatype.value)
def test_a_shape_the_model_refuses_is_the_callers_error_and_the_next_batch_runs(
    case: BackendCase, datatype: DataType, shape: tuple[int, ...], tmp_path: Path
) -> None:
    if datatype not in case.datatypes:
        pytest.skip(f"{case.name} does not claim {datatype.value}")
    model = echo_model(case, tmp_path, datatype)
    with pytest.raises(InvalidArgumentError, match="x"):
        model.run([np.ones(shape, datatype.numpy)])
    values = sample(datatype, 2)
    assert bits(model.run([values])[0]) == bits(values)
    model.close()


@every_reader
@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated", "missing"])
def test_a_file_that_does_not_load_is_refused_by_name_and_others_load(
    case: BackendCase, damage: str, tmp_path: Path
) -> None:
    backend = backend_of(case)
    good = onnx_models.linear(tmp_path / "good.onnx")
    bad = tmp_path / "model.onnx"
    contents = {"garbage": b"no ONNX" * 9, "empty": b"", "truncated": good.read_bytes()[:-40]}
    if damage != "missing":
        bad.write_bytes(contents[damage])
    with pytest.raises(FailedPreconditionError, match=r"model\.onnx"):
        backend.load(model_load(case.name, bad, *F32))
    backend.load(model_load(case.name, good, *F32)).close()


@every_reader
def test_an_output_that_the_file_lacks_is_found_at_load_not_by_callers(case: BackendCase, tmp_path: Path) -> None:
    path = onnx_models.echo(tmp_path / "model.onnx", DataType.FP32)
    with pytest.raises(FailedPreconditionError, match="'z'"):
        backend_of(case).load(model_load(case.name, path, F32[0], [("z", DataType.FP32)]))


@every_backend
def test_running_leaves_the_inputs_as_they_were(case: BackendCase, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = load(case, onnx_models.linear(path) if case.reads_file else path)
    slot = bytearray(np.linspace(-1, 1, 4 * WIDTH, dtype=np.float32).tobytes())
    before = bytes(slot)
    model.run([np.frombuffer(slot, np.float32).reshape(4, WIDTH)])
    assert bytes(slot) == before
    model.close()


@every_backend
@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.BF16, DataType.BYTES], ids=lambda item: item.value)
def test_an_answer_survives_later_batches_and_the_models_end(
    case: BackendCase, datatype: DataType, tmp_path: Path
) -> None:
    if datatype not in case.datatypes:
        pytest.skip(f"{case.name} does not claim {datatype.value}")
    model = echo_model(case, tmp_path, datatype)
    values = sample(datatype, 4)
    (kept,) = model.run([values])
    for _ in range(3):
        model.run([sample(datatype, 4)[::-1].copy()])
    model.close()
    del model
    gc.collect()
    assert bits(kept) == bits(values)


@every_reader
def test_an_answer_does_not_point_into_the_slot_it_came_from(case: BackendCase, tmp_path: Path) -> None:
    model = echo_model(case, tmp_path, DataType.FP32)
    slot = bytearray(np.ones((2, WIDTH), np.float32).tobytes())
    (output,) = model.run([np.frombuffer(slot, np.float32).reshape(2, WIDTH)])
    slot[:] = bytes(len(slot))
    assert np.array_equal(output, np.ones((2, WIDTH)))
    model.close()


@every_reader
def test_closing_gives_memory_and_threads_back(case: BackendCase, tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "model.onnx", hidden=1 << 20)
    backend = backend_of(case)
    grown = []
    for _ in range(6):
        model = backend.load(model_load(case.name, path, *F32))
        model.run([np.ones((1, WIDTH), np.float32)])
        model.close()
        del model
        gc.collect()
        grown.append((resident_bytes(), native_threads()))
    # Two generations settle allocators; each leaked one would add the 24 MB of its weights.
    assert grown[-1][0] - grown[1][0] < 48 << 20
    assert grown[-1][1] <= grown[1][1]


@every_reader
@pytest.mark.parametrize("threads", [1, 3])
def test_a_model_starts_no_more_threads_than_its_device_has_cores(
    case: BackendCase, threads: int, tmp_path: Path
) -> None:
    path = onnx_models.linear(tmp_path / "model.onnx", hidden=4096)
    load(case, path).close()  # what the library starts once is not the model's
    before = native_threads()
    model = load(case, path, device=Device(kind="cpu", id=0, cores=tuple(range(threads))))
    model.run([np.ones((64, WIDTH), np.float32)])
    started = native_threads() - before
    assert started <= threads + case.waiting_threads
    assert threads == 1 or started > 0
    model.close()


@every_backend
def test_two_models_of_one_backend_do_not_mix(case: BackendCase, tmp_path: Path) -> None:
    first = echo_model(case, tmp_path, DataType.FP32)
    second = echo_model(case, tmp_path, DataType.INT32)
    floats, integers = sample(DataType.FP32, 2), sample(DataType.INT32, 3)
    assert bits(second.run([integers])[0]) == bits(integers)
    second.close()
    assert bits(first.run([floats])[0]) == bits(floats)
    first.close()
