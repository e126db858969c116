"""Builds a server from its settings: the one place that knows every part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from prometheus_client.core import Metric

from erg_server.clock import Clock, MonotonicClock
from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.devices.inventory import find_devices
from erg_server.devices.memory_budget import parse_budgets
from erg_server.energy.batch_log import BatchLog
from erg_server.energy.sampler import EnergyMeter
from erg_server.energy.samples import sample_accounts, sample_domains
from erg_server.energy.sources import PowerSources
from erg_server.energy.stated_watts import parse_watts
from erg_server.errors import InvalidArgumentError
from erg_server.models.loader import ModelLoader
from erg_server.models.placer import ModelPlacer
from erg_server.models.registry import ControlMode, ModelRegistry
from erg_server.models.served_model import ServedModel
from erg_server.money.answer_cost import AnswerCosts
from erg_server.money.families import CostFamilies
from erg_server.money.tariff_file import read_tariff
from erg_server.repository.repository import ModelRepository
from erg_server.scheduling.admission import QueueLimits
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.scheduler import Scheduler
from erg_server.settings import ServeSettings
from erg_server.storage.fetch_meter import fetch_families
from erg_server.storage.location import parse_location
from erg_server.storage.model_stores import ModelStores, default_cache, open_sources
from erg_server.telemetry.endpoints import Endpoints
from erg_server.telemetry.energy_families import energy_families
from erg_server.telemetry.gpu_families import gpu_families
from erg_server.telemetry.logs import LogControl, LogSettings
from erg_server.telemetry.meter import Meter
from erg_server.telemetry.prometheus import ErgCollector, PredictionSample, WorkerSample, render_metrics
from erg_server.telemetry.trace import Tracer
from erg_server.transports.base import Method, Transport
from erg_server.transports.certificates import CertificateFiles, ReloadingCertificates
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.server import Address, GrpcTransport
from erg_server.transports.health_service import SERVICE as HEALTH
from erg_server.transports.health_service import HealthService
from erg_server.transports.inference_service import SERVICE as INFERENCE
from erg_server.transports.inference_service import InferenceService
from erg_server.transports.reflection_service import ReflectionService
from erg_server.transports.tenants import Tenants
from erg_server.workers.memory_families import memory_families
from erg_server.workers.memory_reading import read_memory
from erg_server.workers.memory_watch import MemoryWatch
from erg_server.workers.supervisor import Worker


@dataclass(slots=True, kw_only=True)
class Server:
    """A built server; `lifecycle` starts and ends it."""

    settings: ServeSettings
    repository: ModelRepository
    stores: ModelStores
    workers: tuple[Worker, ...]
    registry: ModelRegistry
    placer: ModelPlacer
    transports: tuple[Transport, ...]
    endpoints: Endpoints
    memory_watch: MemoryWatch
    tracer: Tracer
    logs: LogControl
    draining: asyncio.Event
    energy: EnergyMeter | None = None
    power: PowerSources | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    # Apart from the others, since draining takes energy too: it ends with the server.
    sampling: asyncio.Task[None] | None = None

    def close_resources(self) -> None:
        """Write what is not written and release files; after everything else has ended."""
        self.tracer.flush()
        if self.power is not None:
            self.power.close()
        self.repository.close()
        self.stores.close()
        self.logs.close()


def build_server(settings: ServeSettings) -> Server:
    """Build every part; raises InvalidArgumentError for settings that this machine cannot have."""
    locations = [parse_location(text) for text in settings.model_repository]
    folders = [Path(location.uri) for location in locations if location.kind == "folder"]
    for root in folders:
        if not root.is_dir():
            raise InvalidArgumentError(f"--model-repository {root}: there is no such folder")
    sources = open_sources(locations)
    logs = LogControl(
        LogSettings(file=settings.log_file, verbose_level=settings.log_verbose, format=settings.log_format)
    )
    clock = MonotonicClock()
    meter = Meter()
    tracer = Tracer()
    draining = asyncio.Event()
    stores = ModelStores(
        sources,
        Path(settings.model_cache) if settings.model_cache else default_cache(),
        require_digests=settings.require_digests,
    )
    repository = ModelRepository([*folders, *stores.roots])
    batch_log = BatchLog() if settings.metering else None
    scheduler = Scheduler(
        clock=clock,
        batch_log=batch_log,
        timers=asyncio.get_running_loop(),
        limits=QueueLimits(max_requests=settings.max_queue_requests, max_bytes=settings.max_queue_bytes),
    )
    devices = find_devices(
        cpu_workers=settings.cpu_workers, threads_per_worker=settings.threads_per_worker, stated=settings.devices
    )
    workers = tuple(Worker(device, slot_bytes=settings.worker_slot_bytes) for device in devices)
    power = energy = None
    if batch_log is not None:
        power = PowerSources(settings.power_source, devices, parse_watts(settings.power_watts))
        energy = EnergyMeter(clock=clock, batch_log=batch_log, workers=workers, sources=power.sources)
    budgets = parse_budgets(settings.memory_budget).pools(devices)
    placer = ModelPlacer(workers=workers, scheduler=scheduler, clock=clock, budgets=budgets)
    loader = ModelLoader(
        repository=repository,
        workers=workers,
        scheduler=scheduler,
        placer=placer,
        meter=meter,
        latencies=LatencyCache(Path(settings.latency_cache)) if settings.latency_cache else None,
    )
    registry = ModelRegistry(repository, loader, ControlMode(settings.model_control_mode), stores)
    for worker in workers:
        worker.on_available = scheduler.worker_available
        worker.on_state_change = partial(_worker_changed, placer, registry)
        scheduler.add_worker(worker)
    tariff = read_tariff(Path(settings.price_file), devices) if settings.price_file else None
    plane = DataPlane(
        registry=registry,
        meter=meter,
        tracer=tracer,
        logs=logs,
        memory=SharedMemory(allowed=settings.allow_client_shm),
        clock=clock,
        draining=draining.is_set,
        strict_readiness=settings.strict_readiness,
        trace_folder=Path(settings.trace_folder),
        costs=AnswerCosts(energy, tariff),
    )
    tenants = Tenants(settings.tenant_metadata_key) if settings.tenant_metadata_key else None
    methods = build_methods(plane, draining, reflection=settings.reflection, tenants=tenants)
    transport = build_transport(settings, methods, clock)
    watch = MemoryWatch(lambda: [known for worker in workers if (known := worker.known_memory())], read_memory)
    families: list[Callable[[], Iterable[Metric]]] = [
        partial(memory_families, watch),
        lambda: fetch_families(stores.meters),
    ]
    if energy is not None and power is not None:
        families += metering_families(energy, power)
    if tariff is not None and energy is not None:
        started_ns = clock.now_ns()
        families.append(CostFamilies(tariff, energy, up_ns=lambda: clock.now_ns() - started_ns))
    collector = ErgCollector(
        meter,
        lambda: [sample_worker(worker) for worker in workers],
        placer.sample_memory,
        lambda: [sample for served in registry.served() for sample in sample_predictions(served)],
        families,
    )

    def metrics() -> bytes:
        if energy is not None:
            energy.refresh()
        return render_metrics(collector)

    endpoints = Endpoints(
        address=settings.metrics_address,
        port=settings.metrics_port,
        metrics=metrics,
        ready=lambda: _readiness(plane, registry),
    )
    return Server(
        settings=settings,
        repository=repository,
        stores=stores,
        workers=workers,
        registry=registry,
        placer=placer,
        transports=(transport,),
        endpoints=endpoints,
        memory_watch=watch,
        tracer=tracer,
        logs=logs,
        draining=draining,
        energy=energy,
        power=power,
    )


def metering_families(energy: EnergyMeter, power: PowerSources) -> tuple[Callable[[], Iterable[Metric]], ...]:
    """What /metrics shows of energy, and of GPUs where NVML tells of them."""
    return (
        lambda: energy_families(sample_domains(energy), sample_accounts(energy)),
        lambda: gpu_families(power.gpus.samples()),
    )


def build_transport(settings: ServeSettings, methods: list[Method], clock: Clock) -> Transport:
    """The gRPC front end that the settings name."""
    files = certificate_files(settings)
    limits = Limits(
        message_bytes=settings.max_message_bytes,
        keepalive_s=settings.grpc_keepalive_time / 1e3,
        keepalive_timeout_s=settings.grpc_keepalive_timeout / 1e3,
        idle_s=settings.grpc_max_connection_idle / 1e3,
        age_s=settings.grpc_max_connection_age / 1e3,
        age_grace_s=settings.grpc_max_connection_age_grace / 1e3,
    )
    if settings.grpc_transport == "grpcio":
        # Imported here: who does not use it does not load it.
        from erg_server.transports.grpcio.server import GrpcioTransport  # noqa: PLC0415

        return GrpcioTransport(
            methods,
            address=settings.grpc_address,
            port=settings.grpc_port,
            max_message_bytes=settings.max_message_bytes,
            clock=clock,
            unix_socket=settings.grpc_unix_socket,
            reuse_port=settings.reuse_grpc_port,
            files=files,
            limits=limits,
        )
    addresses = [Address(host=settings.grpc_address, port=settings.grpc_port)]
    if settings.grpc_unix_socket:
        addresses.append(Address(unix_path=settings.grpc_unix_socket))
    return GrpcTransport(
        methods,
        addresses=addresses,
        limits=limits,
        clock=clock,
        tls=None if files is None else ReloadingCertificates(files).listening,
        reuse_port=settings.reuse_grpc_port,
    )


def certificate_files(settings: ServeSettings) -> CertificateFiles | None:
    """The files of TLS, None for a server without it."""
    if not (settings.grpc_use_ssl or settings.grpc_use_ssl_mutual):
        return None
    return CertificateFiles(
        certificate=Path(settings.grpc_server_cert),
        key=Path(settings.grpc_server_key),
        client_roots=Path(settings.grpc_root_cert) if settings.grpc_use_ssl_mutual else None,
    )


def build_methods(
    plane: DataPlane, draining: asyncio.Event, *, reflection: bool, tenants: Tenants | None = None
) -> list[Method]:
    """The table of every method served, the same for every transport."""
    methods = InferenceService(plane, draining=draining, tenants=tenants).methods()
    methods += HealthService(plane, draining=draining).methods()
    if reflection:
        methods += ReflectionService([INFERENCE, HEALTH]).methods()
    return methods


def _worker_changed(placer: ModelPlacer, registry: ModelRegistry, worker: Worker) -> None:
    placer.worker_changed(worker)
    registry.notify()


def sample_worker(worker: Worker) -> WorkerSample:
    """A worker's figures for a scrape."""
    return WorkerSample(
        name=worker.name,
        ready=worker.state == "ready",
        restarts=worker.restarts,
        held_batches=worker.held,
        cpu_seconds=worker.cpu_seconds(),
        rss_bytes=worker.memory().rss_bytes,
    )


def sample_predictions(served: ServedModel) -> list[PredictionSample]:
    """What a version's batches of each size that was seen are predicted to take; of the shape seen last."""
    curves = served.queue.latency.snapshot()
    if not curves:
        return []
    key, curve = curves.popitem()
    latency = served.queue.latency
    return [
        PredictionSample(
            model=served.name,
            version=str(served.version),
            rows=rows,
            mean_seconds=latency.predict_ns(key, rows) * 1e-9,
            high_seconds=latency.predict_high_ns(key, rows) * 1e-9,
        )
        for rows in sorted(curve.means_ns)
    ]


def _readiness(plane: DataPlane, registry: ModelRegistry) -> tuple[bool, str]:
    if plane.ready():
        return True, "ready"
    reasons = [
        f"{entry.name} {entry.version}: {entry.state} {entry.reason}".strip()
        for entry in registry.index("", ready=False)
        if entry.state not in {"READY", ""}
    ]
    return False, "not ready" + "".join(f"\n{reason}" for reason in reasons)
