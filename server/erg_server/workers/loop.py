"""The worker process's own loop: take frames, run batches one at a time. Knows nothing of gRPC."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from erg_server.backends.base import Backend, LoadedModel, ModelLoad
from erg_server.backends.registry import create_backend
from erg_server.devices.device import Device
from erg_server.devices.nvml import MemoryUse, gpu_memory
from erg_server.errors import ErgError, InternalError, NotFoundError
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec
from erg_server.workers import frames
from erg_server.workers.batch_run import BatchRun
from erg_server.workers.frames import MAX_FRAME_BYTES, Kind
from erg_server.workers.slab import Slab

log = logging.getLogger("erg.worker")

MAX_RUNS: Final = 256
"""Frames whose meaning is kept for a model; their shapes come from callers, so a full table starts again."""


class LoadedEntry:
    """A model, and what the frames that run it mean."""

    __slots__ = ("model", "runs", "spec")

    def __init__(self, model: LoadedModel, spec: ModelSpec) -> None:
        self.model = model
        self.spec = spec
        self.runs: dict[bytes, BatchRun] = {}


class WorkerLoop:
    """Serves frames until the front closes the socket."""

    def __init__(
        self,
        connection: socket.socket,
        slab: Slab,
        device: Device,
        create: Callable[[str], Backend] = create_backend,
    ) -> None:
        self._connection = connection
        self._create = create
        self._slab = slab
        self._device = device
        # Written by loader threads, read by the loop: one dictionary operation each, atomic under the interpreter lock.
        self._models: dict[int, LoadedEntry] = {}
        # Handles that load, and whether they were unloaded meanwhile. Under `_noting`: one of the sides closes a model.
        self._under_way: dict[int, bool] = {}
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
                    self._under_way[handle] = False
                # Loading takes seconds; batches of other models go on meanwhile.
                threading.Thread(target=self._load, args=(handle, header, config), daemon=True).start()
            elif kind == Kind.UNLOAD:
                self._unload(frames.unpack_unload(frame))

    def _run(self, frame: bytes) -> None:
        slot, handle = frames.unpack_run_head(frame)
        try:
            entry = self._entry(handle)
            answer = (entry.runs.get(frame) or self._prepare(entry, frame)).run()
        except ErgError as error:
            answer = frames.pack_failed(slot, error)
        except Exception:
            log.exception("a batch failed on worker %s", self._device.name)
            answer = frames.pack_failed(slot, InternalError("the backend failed; the server's log has the cause"))
        self._connection.send(answer)

    def _entry(self, handle: int) -> LoadedEntry:
        entry = self._models.get(handle)
        if entry is None:
            raise NotFoundError(f"the model was unloaded from worker {self._device.name}")
        return entry

    def _prepare(self, entry: LoadedEntry, frame: bytes) -> BatchRun:
        slot, _, tensors = frames.unpack_run(frame)
        if len(entry.runs) >= MAX_RUNS:
            entry.runs.clear()
        run = entry.runs[frame] = BatchRun(slot, self._slab.slots[slot], tensors, entry.model, entry.spec)
        return run

    def _load(self, handle: int, header: dict[str, Any], config_bytes: bytes) -> None:
        try:
            with self._loading:
                config = ModelConfig.FromString(config_bytes)
                spec = ModelSpec.from_config(config)
                backend = self._backends.get(spec.backend)
                if backend is None:
                    backend = self._backends[spec.backend] = self._create(spec.backend)
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
                grown = self._memory().grown_since(before)
            self._models[handle] = LoadedEntry(model, spec)
            answer = frames.pack_loaded(handle, grown)
        except ErgError as error:
            answer = frames.pack_refused(handle, error)
        except Exception as error:
            log.exception("loading model %s failed", header.get("name"))
            answer = frames.pack_refused(handle, InternalError(f"loading failed: {type(error).__name__}: {error}"))
        with self._noting:
            unloaded = self._under_way.pop(handle, False)
        with contextlib.suppress(OSError):
            self._connection.send(answer)
        if unloaded:
            self._close(handle)

    def _memory(self) -> MemoryUse:
        """Memory of the device that is in use: of a GPU its own, else this process's."""
        if self._device.kind == "gpu":
            return gpu_memory(self._device, os.getpid())
        return MemoryUse(resident_bytes())

    def _unload(self, handle: int) -> None:
        """Close a model; one that still loads is closed by its loader, which finds it noted here."""
        with self._noting:
            if handle in self._under_way:
                self._under_way[handle] = True
                return
        self._close(handle)

    def _close(self, handle: int) -> None:
        entry = self._models.pop(handle, None)
        if entry is not None:
            try:
                entry.model.close()
            except Exception:
                log.exception("closing a model on worker %s failed", self._device.name)
            del entry
            return_freed_memory()
        with contextlib.suppress(OSError):
            self._connection.send(frames.pack_unloaded(handle))


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def return_freed_memory() -> None:
    """Give the system back what the heap holds free: other workers of this machine may need it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
    if trim is not None:
        trim(0)
