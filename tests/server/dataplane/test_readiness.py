"""What a probe of readiness is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.readiness import readiness
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.telemetry.logs import ROOT, LogControl, LogSettings
from erg_server.telemetry.trace import Tracer

from tests.server.models.harness import Harness


@dataclass(slots=True)
class Server:
    harness: Harness
    plane: DataPlane
    leaving: bool = False
    strict: bool = True


@pytest.fixture(params=[True, False], ids=["strict", "not strict"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    return make(tmp_path, strict=request.param)


@pytest.fixture
async def strict(tmp_path: Path) -> Server:
    return make(tmp_path, strict=True)


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    yield
    logging.getLogger(ROOT).propagate = True


def make(root: Path, *, strict: bool) -> Server:
    harness, logs = Harness(root=root / "repo"), LogControl(LogSettings())
    made: Server
    plane = DataPlane(
        registry=harness.registry,
        meter=harness.meter,
        tracer=Tracer(),
        logs=logs,
        memory=SharedMemory(allowed=False),
        clock=harness.scheduler._clock,
        leaving=lambda: made.leaving,
        strict_readiness=strict,
    )
    logs.close()
    made = Server(harness=harness, plane=plane, strict=strict)
    return made


async def test_a_server_and_the_models_named_are_ready_once_they_are_loaded(server: Server) -> None:
    server.harness.write()
    server.harness.write("other")
    assert readiness(server.plane, ["m"])[0] is False
    await server.harness.registry.start(["m", "other"])
    assert readiness(server.plane) == (True, "ready")
    assert readiness(server.plane, ["m"]) == (True, "ready")
    assert readiness(server.plane, ["other", "m", "m"]) == (True, "ready")


async def test_a_model_that_nobody_has_is_not_ready_and_named(server: Server) -> None:
    server.harness.write()
    await server.harness.registry.start(["m"])
    assert readiness(server.plane, ["m", "gone"]) == (False, "not ready\nno model is called 'gone'")


async def test_what_does_not_load_counts_where_all_must_or_where_it_is_named(server: Server) -> None:
    server.harness.write()
    server.harness.write("broken", config="nonsense")
    await server.harness.registry.start(["m", "broken"])
    ready, reason = readiness(server.plane, ["m"])
    assert ready is not server.strict
    assert ("broken" in reason) is server.strict
    ready, reason = readiness(server.plane, ["broken"])
    assert not ready
    assert "nonsense" in reason


async def test_a_model_whose_worker_is_gone_is_not_ready(server: Server) -> None:
    server.harness.write()
    await server.harness.registry.start(["m"])
    server.harness.worker.models.clear()
    ready, reason = readiness(server.plane, ["m"])
    assert not ready
    assert server.strict or "model 'm' is on no worker that runs" in reason


async def test_a_server_told_to_stop_is_not_ready_whatever_is_asked_for(strict: Server) -> None:
    strict.harness.write()
    await strict.harness.registry.start(["m"])
    strict.leaving = True
    for models in ((), ("m",), ("gone",)):
        assert readiness(strict.plane, models) == (False, "not ready: told to stop")
