"""Starting and ending a built server whose parts are told apart: what happens in which order, and what never hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from erg_server import lifecycle
from erg_server.bootstrap import Server, build_server
from erg_server.errors import ErgError, InvalidArgumentError, UnavailableError
from erg_server.settings import merge
from erg_server.telemetry.logs import ROOT

from tests.server.models.harness import FakeWorker

MODEL = 'backend: "identity" max_batch_size: 4 '
SIDES = """input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }"""


class FakeTransport:
    addresses = ("127.0.0.1:1",)

    def __init__(self) -> None:
        self.events: list[str] = []
        self.may_drain = asyncio.Event()
        self.may_drain.set()
        self.failure: ErgError | None = None

    async def start(self) -> None:
        self.events.append("start")
        if self.failure:
            raise self.failure

    async def drain(self, timeout_s: float) -> None:
        self.events.append("drain")
        await self.may_drain.wait()

    async def stop(self) -> None:
        self.events.append("stop")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A built server with a transport and a worker of the test's own."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(MODEL + SIDES)
    settings = merge(
        {
            "model_repository": (str(tmp_path),),
            "model_control_mode": "poll",
            "metrics_address": "127.0.0.1",
            "metrics_port": 0,
            "grpc_port": 0,
            "cpu_workers": 1,
        }
    )
    built = build_server(settings)
    worker = FakeWorker()
    built.workers = (worker,)
    built.registry._loader._workers = (worker,)
    built.placer._workers = {worker.name: worker}
    built.transports = (FakeTransport(),)
    yield built
    await lifecycle.close(built)
    logging.getLogger(ROOT).propagate = True


def transport(server: Server) -> FakeTransport:
    (subject,) = server.transports
    assert isinstance(subject, FakeTransport)
    return subject


async def test_ports_open_before_models_load_and_readiness_comes_last(server: Server) -> None:
    (worker,) = server.workers
    assert isinstance(worker, FakeWorker)
    worker.may_load.clear()
    starting = asyncio.create_task(lifecycle.start(server))
    await worker.loading.wait()
    assert transport(server).events == ["start"]
    assert not server.registry.ready()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await lifecycle.close(server)
    assert transport(server).events == ["start", "stop"]


async def settle() -> None:
    """Let everything run that can without time going on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Time:
    """The loop's clock, which stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now_s = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now_s)

    async def pass_s(self, seconds: float) -> None:
        self._now_s += seconds
        await settle()


async def test_health_is_told_first_then_the_delay_passes_then_the_transports_drain(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, bool, list[str]]] = []
    server.registry.subscribe(
        lambda: told.append((server.leaving.is_set(), server.draining.is_set(), list(transport(server).events)))
    )
    time = Time(monkeypatch)
    leaving = asyncio.create_task(lifecycle.leave(server, 5, asyncio.Event()))
    await settle()
    assert told == [(True, False, [])]
    assert server.endpoints._ready(()) == (False, "not ready: told to stop")
    await time.pass_s(4.9)
    assert not leaving.done()
    assert not server.draining.is_set()
    await time.pass_s(0.2)
    assert leaving.done()
    assert await lifecycle.drain(server, 30)
    assert told[1:] == [(True, True, [])]
    assert transport(server).events == ["drain"]


async def test_a_second_signal_ends_the_delay_and_a_third_changes_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    Time(monkeypatch)
    orders = lifecycle.StopOrders()
    orders.take()
    assert orders.stop.is_set()
    leaving = asyncio.create_task(lifecycle.leave(server, 3600, orders.hurry))
    await settle()
    assert not leaving.done()
    orders.take()
    await settle()
    assert leaving.done()
    orders.take()


async def test_without_a_delay_nothing_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    Time(monkeypatch)
    leaving = asyncio.create_task(lifecycle.leave(server, 0, asyncio.Event()))
    await settle()
    assert leaving.done()
    assert server.leaving.is_set()


async def test_what_does_not_finish_in_time_is_given_up_and_told(server: Server) -> None:
    transport(server).may_drain.clear()
    assert not await lifecycle.drain(server, 0)


async def test_a_taken_metrics_port_is_a_typed_error(server: Server) -> None:
    async def nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None: ...

    taken = await asyncio.start_server(nothing, "127.0.0.1", 0)
    server.endpoints._port = taken.sockets[0].getsockname()[1]
    with pytest.raises(UnavailableError, match=r"metrics cannot listen on .*--metrics-port"):
        await lifecycle.start(server)
    assert transport(server).events == []
    taken.close()


async def test_a_transport_that_cannot_listen_ends_the_start(server: Server) -> None:
    transport(server).failure = UnavailableError("taken")
    with pytest.raises(UnavailableError, match="taken"):
        await lifecycle.start(server)
    assert not server.registry.served()


async def test_closing_twice_is_safe(server: Server) -> None:
    await lifecycle.close(server)
    await lifecycle.close(server)


async def test_a_repository_that_is_not_there_is_told_by_its_flag() -> None:
    with pytest.raises(InvalidArgumentError, match="--model-repository /no/such: there is no such folder"):
        build_server(merge({"model_repository": ("/no/such",)}))


async def test_a_look_at_memory_that_fails_is_told_and_tried_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(ROOT).propagate = True
    looks = 0
    again = asyncio.Event()

    async def look() -> float:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError("no /proc")
        again.set()
        return 3600.0

    monkeypatch.setattr(lifecycle, "MEMORY_RETRY_S", 0.0)
    monkeypatch.setattr(server.memory_watch, "look", look)
    starting = asyncio.create_task(lifecycle.start(server))
    async with asyncio.timeout(20):
        await again.wait()
    assert "looking at workers' memory failed" in caplog.text
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
