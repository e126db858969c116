"""The HTTP port, over real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from erg_server.telemetry import endpoints
from erg_server.telemetry.endpoints import Endpoints
from hypothesis import given, settings
from hypothesis import strategies as st

SHORT_S = 0.05
LARGE = b"x" * (16 << 20)
"""More than the buffers of a socket on loopback hold."""


@dataclass(slots=True)
class State:
    """What the server tells."""

    metrics: Callable[[], bytes] = lambda: b"erg_up 1\n"
    ready: tuple[bool, str] = (True, "ready")
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def is_ready(self, models: Sequence[str]) -> tuple[bool, str]:
        self.asked.append(tuple(models))
        return self.ready


@asynccontextmanager
async def serving(state: State, *, timeout_s: float = 10.0) -> AsyncIterator[Endpoints]:
    server = Endpoints(
        address="127.0.0.1",
        port=0,
        metrics=state.metrics,
        ready=state.is_ready,
        exchange_timeout_s=timeout_s,
    )
    await server.start()
    try:
        yield server
    finally:
        async with asyncio.timeout(5):
            await server.stop()


async def connect(server: Endpoints) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.address.rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def answer(reader: asyncio.StreamReader, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in head[1:] if line}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]) if body else 0)


async def say(server: Endpoints, raw: bytes, *, end: bool = False) -> bytes:
    """All that comes back for these bytes, until the server or the time limit of a test ends it."""
    reader, writer = await connect(server)
    writer.write(raw)
    if end:
        writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def request(method: str, target: str, *, close: bool = True) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: erg\r\n{'Connection: close' if close else 'X-Y: z'}\r\n\r\n".encode()


async def get(server: Endpoints, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    reader, writer = await connect(server)
    writer.write(request(method, target))
    try:
        async with asyncio.timeout(5):
            return await answer(reader, body=method != "HEAD")
    finally:
        writer.close()


async def test_metrics_are_what_the_collector_says_under_prometheus_type() -> None:
    async with serving(State()) as server:
        status, headers, body = await get(server, "/metrics?name[]=up")
    assert (status, body) == (200, b"erg_up 1\n")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_readiness_follows_the_server_and_liveness_does_not() -> None:
    state = State()
    async with serving(state) as server:
        assert (await get(server, "/readyz"))[0] == 200
        state.ready = (False, "draining")
        status, _, body = await get(server, "/readyz")
        assert (status, body) == (503, b"draining\n")
        assert (await get(server, "/livez"))[0] == 200


@pytest.mark.parametrize(
    ("query", "models"),
    [
        ("", ()),
        ("?", ()),
        ("?model=m", ("m",)),
        ("?model=a&model=b%26c+d&model=a", ("a", "b&c d", "a")),
        ("?model=%E6%A8%A1", ("模",)),
    ],
)
async def test_readiness_is_asked_for_the_models_that_the_query_names(query: str, models: tuple[str, ...]) -> None:
    state = State()
    async with serving(state) as server:
        assert (await get(server, f"/readyz{query}"))[0] == 200
    assert state.asked == [models]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?m", "not of the form KEY=VALUE"),
        ("?model", "not of the form KEY=VALUE"),
        ("?model=a&&model=b", "not of the form KEY=VALUE"),
        ("?model=%FF", "not of the form KEY=VALUE in UTF-8"),
        ("?model=", "names no model"),
        ("?modle=m", "unknown key 'modle'"),
        ("?model=a&version=1", "unknown key 'version'"),
    ],
)
async def test_a_query_that_means_nothing_is_a_bad_request_with_its_cause(query: str, reason: str) -> None:
    state = State()
    async with serving(state) as server:
        status, _, body = await get(server, f"/readyz{query}")
        assert (await get(server, "/readyz"))[0] == 200
    assert status == 400
    assert reason in body.decode()
    assert "/readyz?model=NAME&model=OTHER" in body.decode()
    assert state.asked == [()], "a bad query asks nobody"


@given(st.text(max_size=100, alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_any_query_is_models_or_a_value_error(query: str) -> None:
    try:
        models = endpoints._models(query.encode())
    except ValueError:
        return
    assert all(models)


@pytest.mark.parametrize("target", ["/metrics", "/livez", "/readyz", "/nothing"])
async def test_head_answers_as_get_without_a_body(target: str) -> None:
    async with serving(State()) as server:
        status, headers, body = await get(server, target)
        raw = await say(server, request("HEAD", target))
    assert raw.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"content-length: {len(body)}".encode() in raw.lower()
    assert raw.endswith(b"\r\n\r\n")
    assert headers["content-length"] == str(len(body))


@pytest.mark.parametrize("target", ["/", "/metrics/", "/livez2", "/../metrics", "*"])
async def test_other_paths_are_not_found_and_the_known_ones_named(target: str) -> None:
    async with serving(State()) as server:
        status, _, body = await get(server, target)
    assert status == 404
    assert b"/metrics, /livez and /readyz" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused_with_those_allowed(method: str) -> None:
    async with serving(State()) as server:
        status, headers, _ = await get(server, "/metrics", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


async def test_a_posted_body_is_skipped_and_the_connection_goes_on() -> None:
    async with serving(State()) as server:
        reader, writer = await connect(server)
        writer.write(
            b"POST /metrics HTTP/1.1\r\nHost: erg\r\nContent-Length: 5\r\n\r\nhello" + request("GET", "/livez")
        )
        assert (await answer(reader))[0] == 405
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    async with serving(State()) as server:
        reader, writer = await connect(server)
        writer.write(request("GET", "/livez", close=False) * 2 + request("GET", "/metrics"))
        assert [(await answer(reader))[2] for _ in range(3)] == [b"live\n", b"live\n", b"erg_up 1\n"]
        assert await reader.read() == b""
        writer.close()


async def test_an_old_client_is_answered_and_let_go() -> None:
    async with serving(State()) as server:
        assert (await say(server, b"GET /livez HTTP/1.0\r\n\r\n")).endswith(b"live\n")


async def test_a_collector_that_fails_is_a_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise RuntimeError("no meter")

    async with serving(State(metrics=fail)) as server:
        assert (await get(server, "/metrics"))[0] == 500
        assert (await get(server, "/livez"))[0] == 200
    assert "no meter" in caplog.text


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 64 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /livez\r\n\r\n",
    ],
    ids=["zeros", "TLS", "HTTP2", "no host", "bad length", "bad encoding", "HTTP0.9"],
)
async def test_garbage_is_answered_with_an_error_and_the_connection_closed(raw: bytes) -> None:
    async with serving(State()) as server:
        came = await say(server, raw)
        assert came.split(b" ", 2)[1] in {b"400", b"405", b"501"}
        assert (await get(server, "/livez"))[0] == 200


async def test_a_head_larger_than_8_kib_is_refused() -> None:
    start = b"GET /livez HTTP/1.1\r\nHost: a\r\nX: "
    async with serving(State()) as server:
        came = await say(server, start + b"a" * (8193 - len(start)))
        assert came.startswith(b"HTTP/1.1 431 ")
        await say(server, start + b"a" * (1 << 20))
        assert (await get(server, "/livez"))[0] == 200


@pytest.mark.parametrize("cut", [0, 1, 20, 40])
async def test_half_a_request_then_end_of_file_ends_the_connection(cut: int) -> None:
    async with serving(State()) as server:
        assert (await say(server, request("GET", "/livez")[:cut], end=True))[:12] in {b"", b"HTTP/1.1 400"}
        assert (await get(server, "/livez"))[0] == 200


@given(st.binary(max_size=200))
@settings(max_examples=25)
def test_no_bytes_break_it_for_others(raw: bytes) -> None:
    async def scenario() -> None:
        async with serving(State()) as server:
            await say(server, raw, end=True)
            assert (await get(server, "/livez"))[0] == 200

    asyncio.run(scenario())


async def test_a_client_that_says_nothing_or_half_is_cut_off() -> None:
    async with serving(State(), timeout_s=SHORT_S) as server:
        assert await say(server, b"") == b""
        assert await say(server, b"GET /livez HT") == b""


async def test_a_client_whose_request_never_ends_is_cut_off_however_busy_it_keeps_the_line() -> None:
    async with serving(State(), timeout_s=SHORT_S) as server:
        _, writer = await connect(server)
        writer.write(b"POST /metrics HTTP/1.1\r\nHost: erg\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def pour() -> None:
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(pour(), 5)
        writer.close()


@asynccontextmanager
async def client_that_does_not_read(timeout_s: float) -> AsyncIterator[tuple[Endpoints, asyncio.Task[None]]]:
    """A server and the task of its one connection, whose answer fills every buffer on its way."""
    asked: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    def metrics() -> bytes:
        asked.set_result(cast("asyncio.Task[None]", asyncio.current_task()))
        return LARGE

    async with serving(State(metrics=metrics), timeout_s=timeout_s) as server:
        _, writer = await connect(server)
        cast("asyncio.Transport", writer.transport).pause_reading()
        writer.write(request("GET", "/metrics"))
        yield server, await asyncio.wait_for(asked, 5)
        writer.transport.abort()


async def test_a_client_that_does_not_read_is_dropped_with_its_answer() -> None:
    async with client_that_does_not_read(SHORT_S) as (server, connection):
        await asyncio.wait_for(connection, 5)
        assert not server._connections


async def test_stopping_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with client_that_does_not_read(600) as (server, connection):
        await asyncio.wait_for(server.stop(), 5)
        assert connection.done()
        assert not server._connections


async def test_connections_beyond_the_limit_are_refused_until_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MAX_CONNECTIONS", 2)
    async with serving(State()) as server:
        held = [await connect(server) for _ in range(2)]
        for reader, writer in held:
            writer.write(request("GET", "/livez", close=False))
            await answer(reader)
        assert await say(server, request("GET", "/livez")) == b""
        held[0][1].close()
        await held[0][1].wait_closed()
        await asyncio.wait(server._connections, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert (await get(server, "/livez"))[0] == 200
        held[1][1].close()


async def test_a_taken_port_is_an_error_at_start() -> None:
    async with serving(State()) as server:
        port = int(server.address.rsplit(":", 1)[1])
        second = Endpoints(address="127.0.0.1", port=port, metrics=lambda: b"", ready=lambda _: (True, ""))
        with pytest.raises(OSError, match="in use"):
            await second.start()


async def test_an_ipv6_address_is_told_in_brackets() -> None:
    server = Endpoints(address="::1", port=0, metrics=lambda: b"", ready=lambda _: (True, ""))
    try:
        await server.start()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    assert server.address.startswith("[::1]:")
    await server.stop()
