"""A registry over a real repository and scheduler, with workers in this process that the test holds and lets go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from erg_server.clock import MonotonicClock
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import ErgError
from erg_server.models.loader import ModelLoader
from erg_server.models.placer import ModelPlacer
from erg_server.models.registry import ControlMode, ModelRegistry
from erg_server.repository.repository import ModelRepository
from erg_server.request import InferenceRequest, InferenceResponse, RequestedOutput
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.scheduler import Scheduler
from erg_server.storage.model_stores import ModelStores
from erg_server.telemetry.meter import Meter
from erg_server.tensor import Tensor
from erg_server.workers.process import BatchInput, BatchOutput, BatchResult, OnDone
from erg_server.workers.supervisor import LoadReport, Worker, WorkerMemory, WorkerModel

CONFIG = """
backend: "identity"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""


class FakeWorker(Worker):
    """Answers a batch with its own inputs, plus `bias`; holds loads and batches back while told to."""

    def __init__(self, number: int = 0, kind: str = "cpu") -> None:
        super().__init__(Device(kind="gpu" if kind == "gpu" else "cpu", id=number), slot_bytes=1 << 20)
        self.state = "ready"
        self.models: dict[int, WorkerModel] = {}
        self.unloaded: list[int] = []
        self.batches: list[tuple[int, int]] = []  # (version, rows)
        self.bias = 0.0
        self.load_failure: Callable[[WorkerModel], BaseException | None] = lambda _: None
        self.batch_failure: Callable[[WorkerModel], ErgError | None] = lambda _: None
        self.loading = asyncio.Event()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.may_run = True
        self._changed = asyncio.Event()
        self._waiting: list[tuple[OnDone, BatchResult | ErgError]] = []

    @property
    def free_slots(self) -> int:
        return self.slots - len(self._waiting)

    def has_model(self, handle: int) -> bool:
        return handle in self.models and self.state == "ready"

    async def start(self) -> None:
        self.state = "ready"

    async def load(self, model: WorkerModel) -> LoadReport:
        self.loading.set()
        await self.may_load.wait()
        if failure := self.load_failure(model):
            raise failure
        self.models[model.handle] = model
        self.loads += 1
        self._changed.set()
        self.on_available(self)
        return LoadReport(1, 0.0)

    async def unload(self, handle: int) -> None:
        self.models.pop(handle, None)
        self.unloaded.append(handle)
        self.loads += 1
        self._changed.set()
        self.on_available(self)

    def submit(self, handle: int, inputs: Sequence[BatchInput], on_done: OnDone, rows: int) -> None:
        model = self.models[handle]
        outputs = []
        for item in inputs[: len(model.spec.outputs)]:
            data = bytearray(item.nbytes)
            item.write(memoryview(data))
            if self.bias:
                data = bytearray((np.frombuffer(data, np.float32) + np.float32(self.bias)).tobytes())
            outputs.append(BatchOutput(item.index, item.datatype, item.shape, memoryview(data)))
        self.batches.append((model.version, rows))
        self._waiting.append((on_done, self.batch_failure(model) or BatchResult(outputs, 1, 2, 3, 4)))
        self._changed.set()
        if self.may_run:
            asyncio.get_running_loop().call_soon(self.run)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when loads and batches that came have made `condition` true."""
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def run(self) -> None:
        """Answer what is held, and whatever comes from now on."""
        self.may_run = True
        waiting, self._waiting = self._waiting, []
        for on_done, result in waiting:
            on_done(result)
        self.on_available(self)

    def memory(self) -> WorkerMemory:
        return WorkerMemory(1000, dict.fromkeys(self.models, 64))


@dataclass(kw_only=True)
class Harness:
    root: Path
    mode: ControlMode = ControlMode.EXPLICIT
    workers: tuple[FakeWorker, ...] = ()
    meter: Meter = field(default_factory=Meter)
    budgets: dict[str, int] = field(default_factory=dict)
    latencies: LatencyCache | None = None
    stores: ModelStores | None = None
    repository: ModelRepository = field(init=False)
    scheduler: Scheduler = field(init=False)
    placer: ModelPlacer = field(init=False)
    loader: ModelLoader = field(init=False)
    registry: ModelRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.workers = self.workers or (FakeWorker(),)
        self.repository = ModelRepository([self.root, *(self.stores.roots if self.stores is not None else ())])
        self.scheduler = Scheduler(clock=MonotonicClock(), timers=asyncio.get_running_loop())
        self.placer = ModelPlacer(
            workers=self.workers, scheduler=self.scheduler, clock=MonotonicClock(), budgets=self.budgets
        )
        self.loader = ModelLoader(
            repository=self.repository,
            workers=self.workers,
            scheduler=self.scheduler,
            placer=self.placer,
            meter=self.meter,
            latencies=self.latencies,
        )
        self.registry = ModelRegistry(self.repository, self.loader, self.mode, self.stores)
        for worker in self.workers:
            worker.on_available = self.scheduler.worker_available
            worker.on_state_change = self.placer.worker_changed
            self.scheduler.add_worker(worker)

    @property
    def worker(self) -> FakeWorker:
        return self.workers[0]

    def write(self, name: str = "m", *versions: int, config: str = CONFIG) -> Path:
        """Put a model with these versions (1 if none is named) into the repository."""
        for version in versions or (1,):
            (self.root / name / str(version)).mkdir(parents=True, exist_ok=True)
        (self.root / name / "config.pbtxt").write_text(config)
        return self.root / name

    async def load(self, name: str = "m") -> None:
        await self.registry.load(name, None, {})

    async def infer(self, name: str = "m", version: str = "", rows: int = 1) -> InferenceResponse:
        return await self.registry.resolve(name, version).infer(request(rows))

    def states(self, name: str = "m") -> dict[str, str]:
        return {entry.version: entry.state for entry in self.registry.index("", ready=False) if entry.name == name}

    def reason(self, name: str = "m") -> str:
        return " ".join(entry.reason for entry in self.registry.index("", ready=False) if entry.name == name)

    async def settle(self) -> None:
        """Let everything that may go on without the test do so."""
        await self.registry.drain()


def request(rows: int = 1, *outputs: RequestedOutput, value: float = 1.0) -> InferenceRequest:
    array = np.full((rows, 2), value, np.float32)
    return InferenceRequest(
        model_name="m", inputs=[tensor("x", array)], outputs=outputs, arrival_ns=MonotonicClock.now_ns()
    )


def tensor(name: str, array: np.ndarray, datatype: DataType | None = None) -> Tensor:
    return Tensor.from_numpy(name, array, datatype)
