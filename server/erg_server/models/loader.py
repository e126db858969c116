"""Brings one version onto its workers, and takes it off again. A version that returns from `load` is warm."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections import Counter
from pathlib import Path

from erg_server.devices.device import Device
from erg_server.errors import ErgError
from erg_server.models.served_model import ServedModel
from erg_server.models.signature import Signature
from erg_server.models.warmup import check_golden, labels_of, run_warmup
from erg_server.repository.installed import usable_backends
from erg_server.repository.repository import ModelDefinition, ModelRepository
from erg_server.repository.selection import DECIDING_KEYS, ServingPlan
from erg_server.repository.spec import ModelSpec
from erg_server.scheduling.instance_groups import instance_limits
from erg_server.scheduling.scheduler import Scheduler
from erg_server.telemetry.meter import Meter, ModelMeter
from erg_server.workers.supervisor import Worker, WorkerModel

log = logging.getLogger(__name__)


class ModelLoader:
    """Loads versions on every worker they may run on. Owns the numbering of handles.

    It counts who needs a definition's files: a worker that restarts reads those of every version that serves.
    """

    def __init__(
        self, *, repository: ModelRepository, workers: tuple[Worker, ...], scheduler: Scheduler, meter: Meter
    ) -> None:
        self._repository = repository
        self._workers = workers
        self._scheduler = scheduler
        self._meter = meter
        self._handles = itertools.count(1)
        self._holders: Counter[Path] = Counter()

    def hold(self, definition: ModelDefinition) -> None:
        """Keep the definition's files until `release` is called as often as this."""
        self._holders[definition.path] += 1

    async def release(self, definition: ModelDefinition) -> None:
        """Give up one hold; the last one removes files that came with a load request."""
        self._holders[definition.path] -= 1
        if not self._holders[definition.path]:
            del self._holders[definition.path]
            await asyncio.to_thread(definition.close)

    def identity(self, definition: ModelDefinition, version: int) -> str:
        """Changes whenever the version's files or its configuration do, or which of the latter its author wrote."""
        config = definition.config.SerializeToString(deterministic=True)
        stated = ",".join(key for key in DECIDING_KEYS if definition.document.gives(key))
        return f"{definition.fingerprint(version)}:{hashlib.sha256(config).hexdigest()}:{stated}"

    async def load(self, definition: ModelDefinition, version: int) -> ServedModel:
        """Verify a version's files, load it on its workers, warm it up and check its golden sample.

        Raises:
            ErgError: it does not load; nothing of it stays behind.
        """
        workers = choose_workers(self._workers, definition.spec)
        identity = self.identity(definition, version)
        await asyncio.to_thread(self._repository.verify, definition, version)
        plan = await asyncio.to_thread(_plan, definition, version, workers[0].device)
        spec = plan.spec
        handle = next(self._handles)
        model = WorkerModel(
            handle=handle,
            name=definition.name,
            version=version,
            config=plan.config,
            model_path=plan.path,
            spec=spec,
        )
        log.info("loading model %s version %d on %d workers", definition.name, version, len(workers))
        try:
            await _load_everywhere(workers, model)
        except BaseException:
            await self._unload(workers, handle)
            raise
        # What a version does before it answers is nobody's request: it is counted aside.
        queue = self._scheduler.open(handle=handle, spec=spec, version=str(version), meter=ModelMeter("", ""))
        meter = self._meter.model(definition.name, str(version))
        served = ServedModel(
            name=definition.name,
            version=version,
            handle=handle,
            definition=definition,
            config=plan.config,
            spec=spec,
            meter=meter,
            queue=queue,
            scheduler=self._scheduler,
            workers=workers,
            fingerprint=identity,
            signature=Signature(spec),
        )
        try:
            served.labels = await asyncio.to_thread(labels_of, definition)
            await run_warmup(served, definition)
            await check_golden(served, definition, version)
        except BaseException:
            self._scheduler.close(queue)
            await self._unload(workers, handle)
            raise
        queue.meter = meter
        self.hold(definition)
        log.info("model %s version %d is ready", definition.name, version)
        return served

    async def retire(self, served: ServedModel) -> None:
        """Let a version that no longer answers finish what it accepted, then free its memory."""
        await self._scheduler.drain(served.queue)
        self._scheduler.close(served.queue)
        await self._unload(served.workers, served.handle)
        await self.release(served.definition)
        log.info("model %s version %d is unloaded", served.name, served.version)

    async def _unload(self, workers: tuple[Worker, ...], handle: int) -> None:
        for result in await asyncio.gather(*(worker.unload(handle) for worker in workers), return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, ErgError):
                log.error("unloading failed", exc_info=result)


def _plan(definition: ModelDefinition, version: int, device: Device) -> ServingPlan:
    """How the version is served on its workers, told in the log."""
    plan = definition.plan(version, device.kind, usable_backends())
    what = f"by {plan.spec.backend}, as configured"
    if plan.artifact is not None:
        precision = f" in {plan.artifact.precision}" if plan.artifact.precision else ""
        limit = f", at most {plan.spec.batch_limit} rows a batch" if plan.spec.batch_limit else ""
        what = f"as '{plan.artifact.name}' ({plan.artifact.file} by {plan.spec.backend}{precision}{limit})"
    log.info("model %s version %d is served %s: %s", definition.name, version, what, plan.reason)
    return plan


async def _load_everywhere(workers: tuple[Worker, ...], model: WorkerModel) -> None:
    """Return when every worker has the model, or raise the first failure when every one has answered."""
    results = await asyncio.gather(*(worker.load(model) for worker in workers), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def choose_workers(workers: tuple[Worker, ...], spec: ModelSpec) -> tuple[Worker, ...]:
    """The workers a model runs on: those its instance groups name, as many of each host as they count.

    Raises:
        FailedPreconditionError: the machine has no such device.
    """
    limits = instance_limits(spec, [worker.device for worker in workers])
    chosen: list[Worker] = []
    for worker in workers:
        count = limits.counts.get(worker.device.host) if limits.counts else len(workers)
        beside = sum(other.device.host == worker.device.host for other in chosen)
        if worker.name in limits.devices and count is not None and beside < count:
            chosen.append(worker)
    return tuple(chosen)
