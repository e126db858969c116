"""Carries out what `scheduling.residency` orders: loads and unloads on workers, and tells how each ended."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from erg_server.clock import Clock
from erg_server.errors import ErgError, InternalError
from erg_server.scheduling.instance_groups import InstanceLimits
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.placement_plan import Site
from erg_server.scheduling.residency import Orders, Residency
from erg_server.scheduling.resident_model import InstanceState
from erg_server.scheduling.scheduler import Scheduler
from erg_server.telemetry.prometheus import MemorySample
from erg_server.workers.supervisor import Worker, WorkerModel

log = logging.getLogger(__name__)

LOAD_WEIGHT = 0.5
"""What the newest look at a model's load counts against those before it."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Placed:
    """What the placer keeps about one version. `queue` is None until it has one."""

    model: WorkerModel
    queue: ModelQueue | None = None
    # Whoever waits for the first load; its first failure is told when every worker has answered.
    placing: asyncio.Future[None] | None = None
    failure: BaseException | None = None
    loads: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    compute_ns: int = 0
    load: float = 0.0

    @property
    def awaited(self) -> bool:
        """Whether its first load or a request waits for it."""
        first = self.placing is not None and not self.placing.done()
        return first or (self.queue is not None and len(self.queue.batcher.queue) > 0)


class ModelPlacer:
    """Brings versions onto workers, at first and again after an eviction. Only the event loop's thread calls it."""

    def __init__(
        self, *, workers: tuple[Worker, ...], scheduler: Scheduler, clock: Clock, budgets: Mapping[str, int]
    ) -> None:
        self._workers = {worker.name: worker for worker in workers}
        self._scheduler = scheduler
        self._clock = clock
        self._budgets = budgets
        sites = [Site(name=worker.name, host=worker.device.host, pool=worker.device.memory_pool) for worker in workers]
        self._residency = Residency(sites, budgets)
        self._placed: dict[int, _Placed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sampled_ns = clock.now_ns()
        self._loads: Counter[tuple[str, str]] = Counter()
        self._evictions: Counter[tuple[str, str]] = Counter()

    @property
    def limited(self) -> bool:
        """Whether any memory has a budget, so that models come and go as they are used."""
        return bool(self._budgets)

    async def place(self, model: WorkerModel, limits: InstanceLimits, *, memory_bytes: int) -> None:
        """Bring a version onto its workers, evicting others where it must, and hold it there until `release`.

        Args:
            model: the version.
            limits: where it may be.
            memory_bytes: the best guess of what an instance takes, until one was measured.

        Raises:
            ResourceExhaustedError: it does not fit beside the models that are pinned.
            ErgError: a worker did not load it.
        """
        entry = _Placed(model=model, placing=asyncio.get_running_loop().create_future())
        assert entry.placing is not None
        key = model.handle
        self._placed[key] = entry
        self._residency.add(key, model.name, limits, memory_bytes=memory_bytes, pinned=model.spec.pinned)
        self._residency.hold(key)
        self._residency.want(key, self._clock.now_ns())
        self._step()
        try:
            await entry.placing
        finally:
            entry.placing = None

    def attach(self, handle: int, queue: ModelQueue) -> None:
        """Tell which queue's requests wait for the version."""
        self._placed[handle].queue = queue

    def release(self, handle: int) -> None:
        """The version answers now; from here on its load is looked at, and it may be evicted."""
        entry = self._placed[handle]
        if entry.queue is not None:
            entry.compute_ns = entry.queue.meter.compute_histogram.total
        self._residency.release(handle)
        self._step()

    async def remove(self, handle: int) -> None:
        """Take a version off every worker, and return when its memory is free."""
        entry = self._placed.pop(handle, None)
        if entry is None:
            return
        for task in entry.loads.values():
            task.cancel()
        sites = self._residency.retire(handle)
        await asyncio.gather(*(self._unload(handle, site) for site in sites))
        self._step()

    def discard(self, handle: int) -> None:
        """Have a version removed without waiting for it."""
        self._run(self.remove(handle))

    def used(self, handle: int) -> None:
        """A request for the version was queued: note it, and bring the version back if it was evicted."""
        self._residency.used(handle)
        if not self._residency.ready(handle) and self._residency.want(handle, self._clock.now_ns()):
            self._step()

    def reachable(self, handle: int) -> bool:
        """Whether the next request would bring the version onto a worker that is up."""
        return self.limited and self._residency.reachable(handle)

    def worker_changed(self, worker: Worker) -> None:
        """A worker died or came back: plan around it, or use it again."""
        if worker.state == "ready":
            self._residency.site_back(worker.name, [key for key in self._placed if worker.has_model(key)])
        elif worker.state != "starting":
            self._residency.site_away(worker.name)
        if worker.state != "stopped":
            self._step()

    def sample_loads(self) -> None:
        """Look at what each model kept devices busy with since the last call, and plan anew with it."""
        now_ns = self._clock.now_ns()
        elapsed_ns = max(1, now_ns - self._sampled_ns)
        self._sampled_ns = now_ns
        for key, entry in self._placed.items():
            if entry.queue is not None:
                total_ns = entry.queue.meter.compute_histogram.total
                load = (total_ns - entry.compute_ns) / elapsed_ns
                entry.compute_ns = total_ns
                entry.load += LOAD_WEIGHT * (load - entry.load)
                self._residency.set_load(key, entry.load)
            # One that found no place when its device went away, and whose loading elsewhere failed.
            if not self._residency.state(key) and (not self.limited or entry.model.spec.pinned):
                self._residency.want(key, now_ns)
        self._step()

    def sample_memory(self) -> MemorySample:
        """Memory by pool, and how often each version was loaded and evicted."""
        return MemorySample(
            used_bytes=self._residency.used_bytes(),
            budget_bytes=dict(self._budgets),
            loads=dict(self._loads),
            # From 0 on, since Prometheus cannot see the step to a first value.
            evictions={version: self._evictions[version] for version in self._loads},
        )

    def _step(self) -> None:
        """Ask what is to be done now, and start it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns = self._clock.now_ns()
        busy = {key for key, entry in self._placed.items() if entry.queue is not None and not entry.queue.idle}
        orders = self._residency.poll(now_ns, busy)
        for key, error in orders.refused:
            self._fail(key, error)
        self._start(orders)
        if orders.look_again_ns is not None:
            delay_s = max(0, orders.look_again_ns - now_ns) / 1e9
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._step)
        for key in list(self._placed):
            self._settle(key)

    def _start(self, orders: Orders) -> None:
        evicted = {key for key, _ in orders.unloads}
        for key in evicted:
            states = self._residency.state(key).values()
            if all(state is InstanceState.UNLOADING for state in states):
                model = self._placed[key].model
                self._evictions[model.name, str(model.version)] += 1
                log.info("model %s version %d is evicted", model.name, model.version)
        for key, site in orders.unloads:
            self._run(self._evict(key, site))
        for key, site in orders.loads:
            self._placed[key].loads[site] = self._run(self._load(key, site))

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, key: int, site: str) -> None:
        entry = self._placed[key]
        worker = self._workers[site]
        try:
            report = await worker.load(entry.model)
        except Exception as error:  # noqa: BLE001 (whatever it is, those that wait are told)
            self._load_failed(key, entry, worker, error)
        else:
            self._residency.loaded(
                key,
                site,
                memory_bytes=report.memory_bytes,
                reload_s=report.duration_s,
                now_ns=self._clock.now_ns(),
            )
            self._loads[entry.model.name, str(entry.model.version)] += 1
        entry.loads.pop(site, None)
        self._step()

    def _load_failed(self, key: int, entry: _Placed, worker: Worker, error: Exception) -> None:
        if worker.state != "ready":
            # It died while it loaded; another may do, or this one when it says that it is back.
            self._residency.site_away(worker.name)
            self._residency.gone(key, worker.name)
            self._residency.want(key, self._clock.now_ns())
            return
        self._residency.failed(key, worker.name)
        if entry.placing is not None:
            entry.failure = entry.failure or error
        else:
            log.error("model %s did not load on worker %s: %s", entry.model.name, worker.name, error)
            if not self._residency.state(key):
                told = (
                    error if isinstance(error, ErgError) else InternalError(f"loading failed: {type(error).__name__}")
                )
                self._fail(key, told)

    async def _evict(self, key: int, site: str) -> None:
        await self._unload(key, site)
        entry = self._placed.get(key)
        if entry is not None and entry.awaited and not self._residency.state(key):
            # It lost its memory while somebody waited, who has a turn again, behind those that wait longer.
            self._residency.want(key, self._clock.now_ns())
        self._step()

    async def _unload(self, key: int, site: str) -> None:
        try:
            await self._workers[site].unload(key)
        except ErgError as error:
            log.warning("unloading from worker %s failed: %s", site, error.message)
        finally:
            self._residency.gone(key, site)

    def _fail(self, key: int, error: ErgError) -> None:
        """Tell those that wait for a version that it does not come."""
        entry = self._placed[key]
        if entry.placing is not None:
            entry.failure = entry.failure or error
        if entry.queue is not None:
            self._scheduler.fail_waiting(entry.queue, error)

    def _settle(self, key: int) -> None:
        """End the wait of `place` when every load of the version has ended."""
        entry = self._placed[key]
        if entry.placing is None or entry.placing.done() or entry.loads:
            return
        if entry.failure is not None:
            entry.placing.set_exception(entry.failure)
        elif self._residency.settled(key):
            entry.placing.set_result(None)
