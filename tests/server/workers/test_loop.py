"""The worker's own loop, in a thread, with backends written for the test."""

from __future__ import annotations

import mmap
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from erg_server.backends.base import Array, Backend, LoadedModel, ModelLoad
from erg_server.backends.registry import create_backend
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import InternalError, InvalidArgumentError, NotFoundError, ResourceExhaustedError
from erg_server.tensor import Tensor
from erg_server.workers import frames, main
from erg_server.workers.frames import MAX_FRAME_BYTES, Kind, SlotTensor
from erg_server.workers.loop import WorkerLoop, resident_bytes
from erg_server.workers.slab import Slab, aligned

from tests.contract.onnx_models import WIDTH, Values, model_load

SLOT_BYTES = 1 << 16
X, Y = [("x", DataType.FP32)], [("y", DataType.FP32)]
ONES = np.ones((2, WIDTH), np.float32)


@dataclass(slots=True)
class FakeModel:
    """Answers with what the test gave, or raises it."""

    answer: Sequence[Any] | Exception | None = None
    close_error: Exception | None = None
    closed: threading.Event = field(default_factory=threading.Event)
    seen: list[Sequence[Array | None]] = field(default_factory=list)

    def run(self, inputs: Sequence[Array | None]) -> Sequence[Array]:
        self.seen.append([None if array is None else array.copy() for array in inputs])
        if isinstance(self.answer, Exception):
            raise self.answer
        return [array for array in inputs if array is not None] if self.answer is None else self.answer

    def close(self) -> None:
        self.closed.set()
        if self.close_error is not None:
            raise self.close_error


@dataclass(slots=True)
class FakeBackend:
    """Loads one model, when the test lets it."""

    model: FakeModel = field(default_factory=FakeModel)
    error: Exception | None = None
    may_load: threading.Event | None = None
    loads: list[ModelLoad] = field(default_factory=list)

    def load(self, model: ModelLoad) -> LoadedModel:
        self.loads.append(model)
        if self.may_load is not None:
            assert self.may_load.wait(10)
        if self.error is not None:
            raise self.error
        return self.model


@dataclass(slots=True)
class Front:
    """The other end of the socket."""

    link: socket.socket
    slab: Slab
    began_ns: int = 0

    def receive(self) -> bytes:
        return self.link.recv(MAX_FRAME_BYTES)

    def load(self, handle: int, *, backend: str = "fake", inputs: Values = X, outputs: Values = Y) -> None:
        config = model_load(backend, Path("unused"), inputs, outputs).config
        header = {"name": "subject", "version": 3, "path": "/models/subject/3/model.onnx"}
        self.link.send(frames.pack_load(handle, header, config.SerializeToString()))

    def loaded(self, handle: int, **options: Any) -> None:
        self.load(handle, **options)
        assert frames.unpack_loaded(self.receive())[0] == handle

    def unloaded(self, handle: int) -> None:
        self.link.send(frames.pack_unload(handle))
        assert frames.unpack_unloaded(self.receive()) == handle

    def run(self, handle: int, arrays: Sequence[tuple[int, Array, DataType]], slot: int = 0) -> bytes:
        items, at = [], 0
        for index, array, datatype in arrays:
            data = bytes(Tensor.from_numpy("", array, datatype).data)
            self.slab.slots[slot][at : at + len(data)] = data
            items.append(SlotTensor(index, datatype, array.shape, at, len(data)))
            at = aligned(at + len(data))
        self.began_ns = time.monotonic_ns()
        self.link.send(frames.pack_run(slot, handle, items))
        return self.receive()

    def outputs(self, frame: bytes) -> list[Array]:
        slot, (*times_ns, ended_ns), items = frames.unpack_done(frame)
        assert all(0 <= each < 60 * 10**9 for each in times_ns)
        assert self.began_ns + sum(times_ns) <= ended_ns <= time.monotonic_ns()
        view = self.slab.slots[slot]
        return [
            Tensor("", each.datatype, each.shape, bytes(view[each.offset : each.offset + each.nbytes])).numpy()
            for each in items
        ]


@contextmanager
def front(backend: FakeBackend | None = None) -> Iterator[Front]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    slab = Slab.create(slots=2, slot_bytes=SLOT_BYTES)

    def create(name: str) -> Backend:
        return create_backend(name) if backend is None else backend

    loop = WorkerLoop(theirs, slab, Device(kind="cpu", id=0), create)
    thread = threading.Thread(target=loop.serve)
    thread.start()
    ours.settimeout(10)
    try:
        assert ours.recv(16) == bytes((Kind.READY,))
        yield Front(ours, slab)
    finally:
        ours.close()
        thread.join(10)
        theirs.close()
        slab.close()
        assert not thread.is_alive()


def failure(frame: bytes) -> Exception:
    assert frame[0] == Kind.FAILED
    return frames.unpack_failed(frame)[1]


def test_a_backend_learns_what_to_load_and_where() -> None:
    backend = FakeBackend()
    with front(backend) as peer:
        peer.loaded(7)
    (load,) = backend.loads
    assert (load.name, load.version, str(load.path)) == ("subject", 3, "/models/subject/3/model.onnx")
    assert load.spec.inputs[0].name == load.config.input[0].name == "x"
    assert load.device.name == "cpu0"


def test_outputs_lie_aligned_behind_the_inputs_which_stay() -> None:
    inputs, outputs = [("a", DataType.INT8), ("b", DataType.FP64)], [("p", DataType.INT8), ("q", DataType.FP64)]
    with front(FakeBackend()) as peer:
        peer.loaded(1, inputs=inputs, outputs=outputs)
        a, b = np.full((1, WIDTH), 5, np.int8), np.full((1, WIDTH), 0.5)
        frame = peer.run(1, [(0, a, DataType.INT8), (1, b, DataType.FP64)], slot=1)
        _, _, items = frames.unpack_done(frame)
        ends = [0, *(each.offset + each.nbytes for each in items)]
        assert items[0].offset >= 64 + b.nbytes
        assert all(each.offset % 64 == 0 and each.offset >= end for each, end in zip(items, ends, strict=False))
        p, q = peer.outputs(frame)
        assert np.array_equal(p, a)
        assert np.array_equal(q, b)
        assert bytes(peer.slab.slots[1][:3]) == a.tobytes()


def test_an_input_left_out_reaches_the_model_as_none() -> None:
    backend = FakeBackend()
    with front(backend) as peer:
        peer.loaded(1, inputs=[("a", DataType.FP32), ("b", DataType.FP32)])
        assert np.array_equal(peer.outputs(peer.run(1, [(1, ONES, DataType.FP32)]))[0], ONES)
    first, second = backend.model.seen[0]
    assert first is None
    assert second is not None
    assert np.array_equal(second, ONES)


def test_bytes_go_in_and_out_as_objects() -> None:
    words = np.array([[b"", b"abc", b"\xff\x00"]], dtype=object)
    backend = FakeBackend()
    with front(backend) as peer:
        peer.loaded(1, inputs=[("x", DataType.BYTES)], outputs=[("y", DataType.BYTES)])
        (output,) = peer.outputs(peer.run(1, [(0, words, DataType.BYTES)]))
    assert output.tolist() == words.tolist()
    assert backend.model.seen[0][0] is not None
    assert backend.model.seen[0][0].dtype == object


@pytest.mark.parametrize("shape", [(0, WIDTH), (2, 0), (0,)], ids=str)
def test_a_tensor_without_elements_keeps_its_shape(shape: tuple[int, ...]) -> None:
    with front(FakeBackend()) as peer:
        peer.loaded(1)
        (output,) = peer.outputs(peer.run(1, [(0, np.empty(shape, np.float32), DataType.FP32)]))
    assert output.shape == shape


def test_an_output_in_any_memory_order_is_written_row_by_row() -> None:
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    with front(FakeBackend(FakeModel(answer=[table.T]))) as peer:
        peer.loaded(1)
        (output,) = peer.outputs(peer.run(1, [(0, ONES, DataType.FP32)]))
    assert output.tolist() == table.T.tolist()


def test_a_frame_that_comes_again_runs_on_what_lies_in_the_slot_now() -> None:
    """Views, and where outputs go, are kept; an output of another shape than the last goes where it belongs."""
    backend = FakeBackend()
    with front(backend) as peer:
        peer.loaded(1, inputs=X, outputs=Y)
        for number in range(3):
            values = np.full((2, WIDTH), number, np.float32)
            (answer,) = peer.outputs(peer.run(1, [(0, values, DataType.FP32)]))
            assert np.array_equal(answer, values)
        for rows in (1, 3, 3, 2):
            backend.model.answer = [np.full((rows, WIDTH), rows, np.float32)]
            (answer,) = peer.outputs(peer.run(1, [(0, ONES, DataType.FP32)]))
            assert np.array_equal(answer, backend.model.answer[0])
        backend.model.answer = [np.ones((2, WIDTH), np.int32)]
        assert isinstance(failure(peer.run(1, [(0, ONES, DataType.FP32)])), InternalError)


def test_frames_mean_the_model_that_is_loaded_now() -> None:
    backend = FakeBackend()
    with front(backend) as peer:
        for value in (1.0, 2.0):
            peer.loaded(1, inputs=X, outputs=Y)
            backend.model.answer = [np.full((2, WIDTH), value, np.float32)]
            assert peer.outputs(peer.run(1, [(0, ONES, DataType.FP32)]))[0][0, 0] == value
            peer.unloaded(1)
            backend.model = FakeModel()


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (InvalidArgumentError("no such token"), InvalidArgumentError, "no such token"),
        (RuntimeError("secret path"), InternalError, "the server's log has the cause"),
        ([ONES.astype(np.float64)], InternalError, "output 'y' is FP32 by the configuration and FP64 by the model"),
        ([ONES, ONES], InternalError, "the backend failed"),
        ([np.ones(SLOT_BYTES, np.float32)], ResourceExhaustedError, "--worker-slot-bytes"),
    ],
    ids=["typed", "untyped", "datatype", "number", "size"],
)
def test_a_batch_that_fails_says_why_and_the_next_one_runs(
    answer: Sequence[Array] | Exception, kind: type[Exception], text: str
) -> None:
    model = FakeModel(answer=answer)
    with front(FakeBackend(model)) as peer:
        peer.loaded(1)
        error = failure(peer.run(1, [(0, ONES, DataType.FP32)]))
        assert type(error) is kind
        assert text in str(error)
        model.answer = None
        assert np.array_equal(peer.outputs(peer.run(1, [(0, ONES, DataType.FP32)]))[0], ONES)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InvalidArgumentError("not for this device"), InvalidArgumentError, "not for this device"),
        (MemoryError("3 GiB"), InternalError, "loading failed: MemoryError: 3 GiB"),
    ],
    ids=["typed", "untyped"],
)
def test_a_load_that_fails_says_why(error: Exception, kind: type[Exception], text: str) -> None:
    with front(FakeBackend(error=error)) as peer:
        peer.load(4)
        handle, came = frames.unpack_refused(peer.receive())
        assert (handle, type(came)) == (4, kind)
        assert text in came.message
        assert isinstance(failure(peer.run(4, [])), NotFoundError)


def test_batches_run_while_another_model_loads() -> None:
    backend = FakeBackend()
    with front(backend) as peer:
        peer.loaded(1)
        backend.may_load = threading.Event()
        peer.load(2)
        assert np.array_equal(peer.outputs(peer.run(1, [(0, ONES, DataType.FP32)]))[0], ONES)
        assert isinstance(failure(peer.run(2, [])), NotFoundError)
        backend.may_load.set()
        assert frames.unpack_loaded(peer.receive())[0] == 2


def test_an_unloaded_model_is_closed_and_gone_even_if_closing_fails() -> None:
    backend = FakeBackend(FakeModel(close_error=RuntimeError("stuck")))
    with front(backend) as peer:
        peer.loaded(1)
        peer.unloaded(1)
        assert isinstance(failure(peer.run(1, [])), NotFoundError)
        assert backend.model.closed.is_set()
        peer.unloaded(1)
        assert isinstance(failure(peer.run(1, [])), NotFoundError)


def test_a_model_unloaded_while_it_loads_does_not_stay() -> None:
    backend = FakeBackend(may_load=threading.Event())
    with front(backend) as peer:
        peer.load(1)
        peer.link.send(frames.pack_unload(1))
        assert isinstance(failure(peer.run(1, [])), NotFoundError)  # the unload was taken
        assert backend.may_load is not None
        backend.may_load.set()
        assert frames.unpack_loaded(peer.receive())[0] == 1
        assert frames.unpack_unloaded(peer.receive()) == 1
        assert backend.model.closed.is_set()
        assert isinstance(failure(peer.run(1, [])), NotFoundError)


def test_a_model_that_failed_to_load_is_unloaded_at_once() -> None:
    with front(FakeBackend(error=InvalidArgumentError("no"))) as peer:
        peer.load(4)
        frames.unpack_refused(peer.receive())
        peer.unloaded(4)


def test_an_unload_that_comes_while_a_load_fails_is_answered_too() -> None:
    backend = FakeBackend(error=InvalidArgumentError("no"), may_load=threading.Event())
    with front(backend) as peer:
        peer.load(4)
        peer.link.send(frames.pack_unload(4))
        assert isinstance(failure(peer.run(4, [])), NotFoundError)  # the unload was taken
        assert backend.may_load is not None
        backend.may_load.set()
        frames.unpack_refused(peer.receive())
        assert frames.unpack_unloaded(peer.receive()) == 4


def test_a_handle_loaded_again_stays() -> None:
    with front(FakeBackend()) as peer:
        peer.loaded(1)
        peer.unloaded(1)
        peer.loaded(1)
        assert np.array_equal(peer.outputs(peer.run(1, [(0, ONES, DataType.FP32)]))[0], ONES)


def test_a_front_that_dies_first_ends_the_worker() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    main.run_worker(theirs.detach())


def test_resident_bytes_follow_memory_that_is_in_use() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 32 << 20) as block:  # fresh pages, which no allocator had before
        block[::4096] = b"x" * (len(block) // 4096)
        assert resident_bytes() - before > 24 << 20
