"""What is built from settings: the method table, the transport, and nothing that listens yet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from erg_server.bootstrap import Server, build_methods, build_server, sample_worker
from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.energy.sources import server_cores
from erg_server.errors import InvalidArgumentError
from erg_server.pb import health_pb2, inference_pb2
from erg_server.settings import merge
from erg_server.telemetry.logs import ROOT, LogControl, LogSettings
from erg_server.telemetry.trace import Tracer
from erg_server.transports.grpcio.server import GrpcioTransport

from tests.server.models.harness import FakeWorker, Harness


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    yield
    logging.getLogger(ROOT).propagate = True


def plane_over(harness: Harness) -> DataPlane:
    logs = LogControl(LogSettings())
    try:
        return DataPlane(
            registry=harness.registry,
            meter=harness.meter,
            tracer=Tracer(),
            logs=logs,
            memory=SharedMemory(allowed=False),
            clock=harness.scheduler._clock,
            draining=lambda: False,
            strict_readiness=True,
        )
    finally:
        logs.close()


def build(root: Path, **stated: object) -> Server:
    return build_server(merge({"model_repository": (str(root),), "grpc_port": 0, "metrics_port": 0} | stated))


async def test_devices_and_their_memory_are_those_that_were_stated(tmp_path: Path) -> None:
    server = build(tmp_path, cpu_workers=3, devices=("cpu2", "cpu0"), memory_budget=("cpu=1MB",))
    assert [worker.name for worker in server.workers] == ["cpu2", "cpu0"]
    assert server.placer.sample_memory().budget_bytes == {"cpu": 10**6}
    server.close_resources()


async def test_a_repositorys_address_with_credentials_is_refused_without_repeating_them() -> None:
    for location in ("s3://key:secret-word@bucket/models", "https://host/models.tar?token=secret-word"):
        with pytest.raises(InvalidArgumentError) as caught:
            build_server(merge({"model_repository": (location,)}))
        assert "secret-word" not in caught.value.message


async def test_energy_is_booked_for_every_device_unless_metering_is_off(tmp_path: Path) -> None:
    server = build(tmp_path, cpu_workers=2, devices=("cpu",), power_source="modelled", power_watts=("cpu=20:95",))
    assert server.energy is not None
    (domain,) = server.energy.domains
    assert (domain.domain, domain.devices, domain.label) == ("cpu", ("cpu0", "cpu1"), "modelled")
    assert server.energy.active_watts("cpu0") == (75 / server_cores(), "modelled")
    server.close_resources()
    server = build(tmp_path, cpu_workers=1, metering=False)
    assert server.energy is None
    server.close_resources()


async def test_watts_of_a_device_that_is_not_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="--power-watts gpu7: this server uses no such device; it has cpu"):
        build(tmp_path, cpu_workers=1, devices=("cpu",), power_watts=("gpu7=20:95",))


@pytest.mark.parametrize("reflection", [True, False])
async def test_every_method_of_the_protocol_is_in_the_table_once(tmp_path: Path, reflection: bool) -> None:
    methods = build_methods(plane_over(Harness(root=tmp_path / "r")), asyncio.Event(), reflection=reflection)
    paths = [method.path for method in methods]
    assert len(set(paths)) == len(paths)
    described = {
        f"/{service.full_name}/{method.name}": method
        for file in (inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert set(described) <= set(paths)
    for method in methods:
        assert (method.unary is None) != (method.stream is None)
        stated = described.get(method.path)
        if stated is not None:
            assert method.request.DESCRIPTOR.full_name == stated.input_type.full_name
            assert method.response.DESCRIPTOR.full_name == stated.output_type.full_name
            assert (method.client_streaming, method.stream is not None) == (
                stated.client_streaming,
                stated.server_streaming,
            )
    assert any("reflection" in path for path in paths) == reflection


async def test_settings_reach_the_parts(tmp_path: Path) -> None:
    server = build(tmp_path, cpu_workers=2, worker_slot_bytes=1 << 21, grpc_transport="grpcio", log_verbose=1)
    assert [worker.slot_bytes for worker in server.workers] == [1 << 21] * 2
    assert isinstance(server.transports[0], GrpcioTransport)
    assert server.logs.settings.verbose_level == 1
    assert server.repository.roots == (tmp_path,)
    assert not server.registry.ready(), "nothing is started by building it"
    await server.transports[0].stop()
    server.close_resources()


async def test_a_workers_sample_is_of_it_as_it_is_now(tmp_path: Path) -> None:
    harness = Harness(root=tmp_path / "r")
    harness.write()
    await harness.load()
    worker = harness.worker
    assert isinstance(worker, FakeWorker)
    sample = sample_worker(worker)
    assert (sample.name, sample.ready, sample.rss_bytes) == ("cpu0", True, 1000)
