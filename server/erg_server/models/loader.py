"""Brings one version onto its workers, and takes it off again. A version that returns from `load` is warm."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from erg_server.devices.device import Device
from erg_server.models.latency_probe import keep_latencies, learn_latencies
from erg_server.models.placer import ModelPlacer
from erg_server.models.served_model import ServedModel
from erg_server.models.signature import Signature
from erg_server.models.warmup import check_golden, labels_of, run_warmup
from erg_server.repository.installed import usable_backends
from erg_server.repository.repository import ModelDefinition, ModelRepository
from erg_server.repository.selection import DECIDING_KEYS, ServingPlan
from erg_server.scheduling.instance_groups import instance_limits
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.scheduler import Scheduler
from erg_server.telemetry.meter import Meter, ModelMeter
from erg_server.workers.supervisor import Worker, WorkerModel

log = logging.getLogger(__name__)


class ModelLoader:
    """Loads versions where the placer brings them. Owns the numbering of handles.

    It counts who needs a definition's files: a worker that restarts reads those of every version that serves.
    """

    def __init__(
        self,
        *,
        repository: ModelRepository,
        workers: tuple[Worker, ...],
        scheduler: Scheduler,
        placer: ModelPlacer,
        meter: Meter,
        latencies: LatencyCache | None = None,
    ) -> None:
        self._latencies = latencies
        self._repository = repository
        self._placer = placer
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
        """Changes whenever the version does; see `version_identity`."""
        return version_identity(definition, version)

    async def load(self, definition: ModelDefinition, version: int) -> ServedModel:
        """Verify a version's files, load it on its workers, warm it up and check its golden sample.

        Raises:
            ErgError: it does not load; nothing of it stays behind.
        """
        limits = instance_limits(definition.spec, [worker.device for worker in self._workers])
        workers = tuple(worker for worker in self._workers if worker.name in limits.devices)
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
        log.info("loading model %s version %d; it may use %s", definition.name, version, ", ".join(limits.devices))
        memory_bytes = await asyncio.to_thread(_file_bytes, plan.path)
        try:
            await self._placer.place(model, limits, memory_bytes=memory_bytes)
        except asyncio.CancelledError:
            # Whoever asked is gone, and what a worker has begun to load may take long to end.
            self._placer.discard(handle)
            raise
        except BaseException:
            await self._placer.remove(handle)
            raise
        # What a version does before it answers is nobody's request: it is counted aside.
        queue = self._scheduler.open(handle=handle, spec=spec, version=str(version), meter=ModelMeter("", ""))
        queue.promises = False
        self._placer.attach(handle, queue)
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
            placer=self._placer,
            fingerprint=identity,
            signature=Signature(spec),
            variant=f"{plan.artifact.name}/{spec.backend}" if plan.artifact is not None else spec.backend,
        )
        try:
            served.labels = await asyncio.to_thread(labels_of, definition)
            await run_warmup(served, definition)
            await check_golden(served, definition, version)
            await self._learn_latencies(served, plan)
        except BaseException:
            self._scheduler.close(queue)
            await self._placer.remove(handle)
            raise
        queue.meter = meter
        queue.promises = True
        queue.varied = False
        self.hold(definition)
        self._placer.release(handle)
        log.info("model %s version %d is ready", definition.name, version)
        return served

    async def retire(self, served: ServedModel) -> None:
        """Let a version that no longer answers finish what it accepted, then free its memory."""
        await self._scheduler.drain(served.queue)
        await self.keep_latencies([served])
        self._scheduler.close(served.queue)
        await self._placer.remove(served.handle)
        await self.release(served.definition)
        log.info("model %s version %d is unloaded", served.name, served.version)

    async def keep_latencies(self, served: Iterable[ServedModel]) -> None:
        """Write down what was learnt of versions, for the next start."""
        cache = self._latencies
        if cache is None:
            return
        for each in served:
            if each.workers:
                keep_latencies(each, each.workers[0].device, cache)
        await asyncio.to_thread(cache.save)

    async def _learn_latencies(self, served: ServedModel, plan: ServingPlan) -> None:
        manifest = await asyncio.to_thread(served.definition.manifest, served.version)
        await learn_latencies(
            served,
            device=served.workers[0].device,
            cache=self._latencies,
            measurements=() if manifest is None else manifest.measurements,
            variant="" if plan.artifact is None else plan.artifact.name,
        )


def version_identity(definition: ModelDefinition, version: int) -> str:
    """Changes whenever the version's files or its configuration do, or which of the latter its author wrote."""
    config = definition.config.SerializeToString(deterministic=True)
    stated = ",".join(key for key in DECIDING_KEYS if definition.document.gives(key))
    return f"{definition.fingerprint(version)}:{hashlib.sha256(config).hexdigest()}:{stated}"


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


def _file_bytes(path: Path) -> int:
    """What a model takes at least, until it was measured."""
    return path.stat().st_size if path.is_file() else 0
