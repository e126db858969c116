"""The worker process's own loop: pin to the cores, take frames, run batches one at a time. Knows nothing of gRPC."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from erg_server.backends.base import Array, Backend, LoadedModel, ModelLoad
from erg_server.backends.registry import create_backend
from erg_server.devices.device import Device
from erg_server.devices.nvml import GpuMemory, gpu_memory
from erg_server.errors import ErgError, InternalError, NotFoundError, ResourceExhaustedError
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec
from erg_server.tensor import DataType, datatype_of, iter_bytes_elements, pack_bytes_elements
from erg_server.workers import frames
from erg_server.workers.frames import MAX_FRAME_BYTES, Kind, SlotTensor
from erg_server.workers.slab import Slab, aligned

log = logging.getLogger("erg.worker")

PR_SET_PDEATHSIG = 1


class WorkerLoop:
    """Serves frames until the front closes the socket."""

    def __init__(self, connection: socket.socket, slab: Slab, device: Device) -> None:
        self._connection = connection
        self._slab = slab
        self._device = device
        # Written by loader threads, read by the loop: one dictionary operation each, atomic under the interpreter lock.
        self._models: dict[int, tuple[LoadedModel, ModelSpec]] = {}
        # Which handles were unloaded and which load, told apart under `_noting`: one of the two sides closes a model.
        self._unloaded: set[int] = set()
        self._under_way: set[int] = set()
        self._noting = threading.Lock()
        self._backends: dict[str, Backend] = {}
        self._loading = threading.Lock()

    def serve(self) -> None:
        """Handle frames until end of file."""
        self._connection.send(bytes((Kind.READY,)))
        while frame := self._connection.recv(MAX_FRAME_BYTES):
            kind = frame[0]
            if kind == Kind.RUN:
                self._run(frame)
            elif kind == Kind.LOAD:
                handle, header, config = frames.unpack_load(frame)
                with self._noting:
                    self._unloaded.discard(handle)
                    self._under_way.add(handle)
                # Loading takes seconds; batches of other models go on meanwhile.
                threading.Thread(target=self._load, args=(handle, header, config), daemon=True).start()
            elif kind == Kind.UNLOAD:
                self._unload(frames.unpack_unload(frame))

    def _run(self, frame: bytes) -> None:
        slot, handle, tensors = frames.unpack_run(frame)
        try:
            answer = self._run_batch(slot, *self._model(handle), tensors)
        except ErgError as error:
            answer = frames.pack_failed(slot, error)
        except Exception:
            log.exception("a batch failed on worker %s", self._device.name)
            answer = frames.pack_failed(slot, InternalError("the backend failed; the server's log has the cause"))
        self._connection.send(answer)

    def _model(self, handle: int) -> tuple[LoadedModel, ModelSpec]:
        model = self._models.get(handle)
        if model is None:
            raise NotFoundError(f"the model was unloaded from worker {self._device.name}")
        return model

    def _run_batch(self, slot: int, model: LoadedModel, spec: ModelSpec, tensors: Sequence[SlotTensor]) -> bytes:
        started_ns = time.monotonic_ns()
        view = self._slab.slots[slot]
        inputs: list[Array | None] = [None] * len(spec.inputs)
        end = 0
        for tensor in tensors:
            stop = tensor.offset + tensor.nbytes
            inputs[tensor.index] = _array(tensor, view[tensor.offset : stop])
            end = max(end, stop)
        prepared_ns = time.monotonic_ns()
        outputs = model.run(inputs)
        ran_ns = time.monotonic_ns()
        written = self._write_outputs(view, end, spec, outputs)
        times_ns = (prepared_ns - started_ns, ran_ns - prepared_ns, time.monotonic_ns() - ran_ns)
        return frames.pack_done(slot, times_ns, written)

    def _write_outputs(self, view: memoryview, end: int, spec: ModelSpec, outputs: Sequence[Array]) -> list[SlotTensor]:
        written: list[SlotTensor] = []
        for index, (output, declared) in enumerate(zip(outputs, spec.outputs, strict=True)):
            offset = aligned(end)
            datatype = declared.datatype
            if datatype is DataType.BYTES:
                data: Any = pack_bytes_elements(output.ravel().tolist())
                nbytes = len(data)
            else:
                if output.dtype != datatype.numpy:
                    raise InternalError(
                        f"output '{declared.name}' is {datatype.value} by the configuration and "
                        f"{datatype_of(output.dtype).value} by the model"
                    )
                data, nbytes = None, output.nbytes
            end = offset + nbytes
            if end > len(view):
                raise ResourceExhaustedError(
                    f"output '{declared.name}' of {nbytes} bytes does not fit the slot of {len(view)} bytes "
                    "(--worker-slot-bytes)"
                )
            if data is not None:
                view[offset:end] = data
            elif nbytes:
                np.frombuffer(view[offset:end], dtype=datatype.numpy).reshape(output.shape)[...] = output
            written.append(SlotTensor(index, datatype, output.shape, offset, nbytes))
        return written

    def _load(self, handle: int, header: dict[str, Any], config_bytes: bytes) -> None:
        try:
            with self._loading:
                config = ModelConfig.FromString(config_bytes)
                spec = ModelSpec.from_config(config)
                backend = self._backends.get(spec.backend)
                if backend is None:
                    backend = self._backends[spec.backend] = create_backend(spec.backend)
                # What the last load left free would hide what this one takes, and what this one leaves is not its own.
                return_freed_memory()
                before = self._memory()
                model = backend.load(
                    ModelLoad(
                        name=header["name"],
                        version=header["version"],
                        config=config,
                        spec=spec,
                        path=Path(header["path"]),
                        device=self._device,
                    )
                )
                return_freed_memory()
                grown = self._grown(before)
            self._models[handle] = model, spec
            answer = frames.pack_loaded(handle, grown)
        except ErgError as error:
            answer = frames.pack_refused(handle, error)
        except Exception as error:
            log.exception("loading model %s failed", header.get("name"))
            answer = frames.pack_refused(handle, InternalError(f"loading failed: {type(error).__name__}: {error}"))
        with self._noting:
            self._under_way.discard(handle)
            unloaded = handle in self._unloaded
        with contextlib.suppress(OSError):
            self._connection.send(answer)
        if unloaded:
            self._close(handle)

    def _memory(self) -> int | GpuMemory:
        """Memory of the device that is in use: of a GPU its own, else this process's."""
        return gpu_memory(self._device, os.getpid()) if self._device.kind == "gpu" else resident_bytes()

    def _grown(self, before: int | GpuMemory) -> int:
        now = self._memory()
        if isinstance(now, GpuMemory):
            return now.grown_since(before) if isinstance(before, GpuMemory) else 0
        return now - before if isinstance(before, int) else 0

    def _unload(self, handle: int) -> None:
        """Close a model; one that still loads is closed by its loader, which finds it noted here."""
        with self._noting:
            self._unloaded.add(handle)
            if handle in self._under_way:
                return
        self._close(handle)

    def _close(self, handle: int) -> None:
        entry = self._models.pop(handle, None)
        if entry is not None:
            try:
                entry[0].close()
            except Exception:
                log.exception("closing a model on worker %s failed", self._device.name)
            del entry
            return_freed_memory()
        with contextlib.suppress(OSError):
            self._connection.send(frames.pack_unloaded(handle))


def _array(tensor: SlotTensor, data: memoryview) -> Array:
    if tensor.datatype is DataType.BYTES:
        array = np.empty(math.prod(tensor.shape), dtype=object)
        array[:] = list(iter_bytes_elements(data))
        return array.reshape(tensor.shape)
    return np.frombuffer(data, dtype=tensor.datatype.numpy).reshape(tensor.shape)


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Give the system back what the heap holds free: other workers of this machine may need it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
    if trim is not None:
        trim(0)


def prepare_process(device: Device) -> None:
    """Bind this process to its cores and to its parent's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A front that is killed closes the socket, but a batch may run for long: the kernel ends us at once.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if device.cores:
        os.sched_setaffinity(0, device.cores)


def run_worker(fd: int) -> None:
    """Take the slab from the front's first frame and serve until it closes the socket."""
    with socket.socket(fileno=fd) as connection:
        hello, descriptors, _, _ = socket.recv_fds(connection, MAX_FRAME_BYTES, 1)
        if not hello or hello[0] != Kind.HELLO or len(descriptors) != 1:
            return  # the front died first
        stated = frames.unpack_hello(hello)
        device = Device(**{**stated["device"], "cores": tuple(stated["device"]["cores"])})
        prepare_process(device)
        slab = Slab(descriptors[0], slots=stated["slots"], slot_bytes=stated["slot_bytes"])
        with contextlib.suppress(ConnectionError):
            WorkerLoop(connection, slab, device).serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    run_worker(int(sys.argv[1]))
