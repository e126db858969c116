"""A worker that comes back: starts a process, watches it, and after its death starts another with the same models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from erg_server.devices.device import Device
from erg_server.errors import ErgError, UnavailableError
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec
from erg_server.workers.memory_reading import KnownMemory, read_memory
from erg_server.workers.process import SLOTS, BatchInput, OnDone, WorkerProcess

log = logging.getLogger(__name__)

WorkerState = Literal["starting", "ready", "restarting", "stopped"]

STABLE_S = 30.0
"""A process that lived this long counts as sound: its death restarts it at once, without back-off."""
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerModel:
    """A version to load. `handle` names it between front and workers."""

    handle: int
    name: str
    version: int
    config: ModelConfig
    spec: ModelSpec
    model_path: Path


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading a model took."""

    memory_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Memory of the process, and what it grew by when it loaded each model (by handle)."""

    rss_bytes: int
    models: dict[int, int]


class Worker:
    """One device's worker over all its incarnations. Owns the process and the list of models it must have."""

    slots = SLOTS

    def __init__(self, device: Device, *, slot_bytes: int) -> None:
        self.device = device
        self.name = device.name
        self.slot_bytes = slot_bytes
        self.state: WorkerState = "starting"
        self.restarts = 0
        # Counts what may change which models it has.
        self.loads = 0
        self.on_available: Callable[[Worker], None] = lambda _: None
        self.on_state_change: Callable[[Worker], None] = lambda _: None
        self._process: WorkerProcess | None = None
        self._models: dict[int, WorkerModel] = {}
        self._loaded: dict[int, int] = {}
        self._failures = 0
        self._started_s = 0.0
        self._past_cpu_s = 0.0
        self._last_cpu_s = 0.0
        self._restarting: asyncio.Task[None] | None = None
        # Device memory of the process without models. While it is not known, loads take turns.
        self._base_bytes: int | None = None
        self._first_load = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The current process's id."""
        return None if self._process is None else self._process.pid

    @property
    def free_slots(self) -> int:
        """Batches it would take now; 0 unless it is ready."""
        return self._process.free_slots if self._process is not None and self.state == "ready" else 0

    @property
    def held(self) -> int:
        """Batches it holds."""
        return SLOTS - self.free_slots if self.state == "ready" else 0

    def has_model(self, handle: int) -> bool:
        """Whether the current process has the model loaded."""
        return handle in self._loaded and self.state == "ready"

    async def start(self) -> None:
        """Start the first process; raises ErgError if it does not come up."""
        await self._spawn()
        self._set_state("ready")

    async def stop(self, grace_s: float) -> None:
        """End the process for good."""
        self._set_state("stopped")
        if self._restarting is not None:
            self._restarting.cancel()
        if self._process is not None:
            await self._process.stop(grace_s)

    async def load(self, model: WorkerModel) -> LoadReport:
        """Load a model now and after every restart; raises ErgError, and forgets it, if it does not load."""
        if self._process is None:
            raise UnavailableError(f"worker {self.name} is not up")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._models[model.handle] = model
        try:
            memory_bytes = await self._load(self._process, model)
        except BaseException:
            self._models.pop(model.handle, None)
            raise
        return LoadReport(memory_bytes, loop.time() - began_s)

    async def unload(self, handle: int) -> None:
        """Forget a model, and return when its memory is free: batches that the worker holds run before."""
        self._models.pop(handle, None)
        self._loaded.pop(handle, None)
        self.loads += 1
        self.on_available(self)  # Nothing of this model may be handed over any more.
        if self._process is not None:
            await self._process.unload(handle)

    def submit(self, handle: int, inputs: Sequence[BatchInput], on_done: OnDone, rows: int) -> None:
        """Start a batch in a free slot; see `WorkerProcess.submit`."""
        if self._process is None or not self._process.free_slots:
            raise UnavailableError(f"worker {self.name} takes no batch now")
        self._process.submit(handle, inputs, on_done)

    def memory(self) -> WorkerMemory:
        """Memory as it is now; zero while no process runs."""
        return WorkerMemory(int(self._read(lambda process: process.memory_info().rss)), dict(self._loaded))

    def known_memory(self) -> KnownMemory | None:
        """What is known of its memory without looking at it; None while no process takes batches."""
        if self._process is None or self.state != "ready":
            return None
        return KnownMemory(
            worker=self.name,
            device=self.device,
            pid=self._process.pid,
            slab_bytes=self._process.slab_bytes,
            base_bytes=self._base_bytes,
            models={
                (model.name, str(model.version)): self._loaded[model.handle]
                for model in self._models.values()
                if model.handle in self._loaded
            },
        )

    def cpu_seconds(self) -> float:
        """CPU time of all incarnations so far, user and system."""
        seconds = self._read(lambda process: sum(process.cpu_times()[:2]))
        self._last_cpu_s = max(self._last_cpu_s, seconds)
        return self._past_cpu_s + self._last_cpu_s

    def _read(self, figure: Callable[[psutil.Process], float]) -> float:
        if self._process is None:
            return 0.0
        try:
            return figure(psutil.Process(self._process.pid))
        except psutil.Error:
            return 0.0

    async def _spawn(self) -> None:
        self._loaded.clear()
        self._base_bytes = None
        self._started_s = asyncio.get_running_loop().time()
        self._past_cpu_s += self._last_cpu_s
        self._last_cpu_s = 0.0
        self._process = WorkerProcess(
            self.device, slot_bytes=self.slot_bytes, on_slot_free=self._on_slot_free, on_exit=self._on_exit
        )
        await self._process.ready

    async def _load(self, process: WorkerProcess, model: WorkerModel) -> int:
        header = {"name": model.name, "version": model.version, "path": str(model.model_path)}
        config = model.config.SerializeToString()
        if self._base_bytes is None:
            async with self._first_load:
                memory_bytes = await process.load(model.handle, header, config)
                if self._base_bytes is None:
                    await self._learn_base(process, memory_bytes)
        else:
            memory_bytes = await process.load(model.handle, header, config)
        if process is self._process and model.handle in self._models:
            self._loaded[model.handle] = memory_bytes
            self.loads += 1
            self.on_available(self)
        return memory_bytes

    async def _learn_base(self, process: WorkerProcess, loaded_bytes: int) -> None:
        """What the process holds but for its first model: before a batch runs, and after the backend came."""
        reading = await asyncio.to_thread(read_memory, self.device, process.pid)
        held_bytes = reading.device_bytes(self.device)
        if held_bytes is not None and process is self._process:
            self._base_bytes = max(0, held_bytes - loaded_bytes)

    def _on_slot_free(self) -> None:
        self.on_available(self)

    def _on_exit(self) -> None:
        """The process ended without being told to."""
        process = self._process
        assert process is not None
        self._loaded.clear()
        if self.state == "stopped":
            return
        lived_s = asyncio.get_running_loop().time() - self._started_s
        self._failures = 0 if lived_s >= STABLE_S else self._failures + 1
        if self.state == "starting":
            return  # start() tells of it
        self.restarts += 1
        self._set_state("restarting")
        log.error("worker %s (process %d) died after %.1f s; restarting it", self.name, process.pid, lived_s)
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.get_running_loop().create_task(self._restart(process))

    async def _restart(self, dead: WorkerProcess) -> None:
        await asyncio.to_thread(dead.wait)
        while True:
            await asyncio.sleep(BACKOFF_S[min(max(0, self._failures - 1), len(BACKOFF_S) - 1)])
            try:
                await self._spawn()
                process = self._process
                assert process is not None
                for model in list(self._models.values()):
                    if model.handle in self._models:  # It may be moved elsewhere while others load.
                        await self._reload(process, model)
                break
            except ErgError as error:
                log.error("worker %s does not come up: %s", self.name, error.message)  # noqa: TRY400 (its cause is told)
        log.info("worker %s is back as process %d with %d models", self.name, process.pid, len(self._loaded))
        self._set_state("ready")
        self.on_available(self)

    async def _reload(self, process: WorkerProcess, model: WorkerModel) -> None:
        try:
            await self._load(process, model)
        except UnavailableError:
            raise
        except ErgError as error:
            # The others still serve; this one is gone from this worker until it is loaded anew.
            log.error("model %s did not load again on worker %s: %s", model.name, self.name, error.message)  # noqa: TRY400

    def _set_state(self, state: WorkerState) -> None:
        self.state = state
        self.loads += 1
        self.on_state_change(self)
