"""The HTTP port for Prometheus and probes: GET /metrics, /livez and /readyz, answered by the event loop itself.

/readyz?model=NAME&model=OTHER asks for these models as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

import h11

log = logging.getLogger(__name__)

EXCHANGE_TIMEOUT_S = 30.0
"""From one answer to the end of the next, reading and writing included: what a client may take, however it dawdles."""
MAX_CONNECTIONS = 64
"""Scrapers and probes keep a handful; a port that anyone may reach must not hold more."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Endpoints:
    """A small HTTP/1.1 server. A stuck event loop does not answer, which is what a liveness probe should find."""

    def __init__(
        self,
        *,
        address: str,
        port: int,
        metrics: Callable[[], bytes],
        ready: Callable[[Sequence[str]], tuple[bool, str]],
        exchange_timeout_s: float = EXCHANGE_TIMEOUT_S,
    ) -> None:
        self._address = address
        self._port = port
        self._metrics = metrics
        self._ready = ready
        self._exchange_timeout_s = exchange_timeout_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Host and port it listens on."""
        if self._server is None:
            return f"{self._address}:{self._port}"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._accept, self._address, self._port, limit=16 << 10)

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=8 << 10)
        try:
            keep = True
            while keep:
                async with asyncio.timeout(self._exchange_timeout_s):
                    keep = await self._exchange(connection, reader, writer)
            writer.close()
            async with asyncio.timeout(self._exchange_timeout_s):
                await writer.wait_closed()
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            # What a client does not read is dropped: a graceful close would wait for it for ever.
            writer.transport.abort()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False where the connection carries no other."""
        while True:
            try:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(8 << 10))
                    continue
            except h11.RemoteProtocolError as error:
                await _send(connection, writer, error.error_status_hint, "text/plain", b"bad request\n")
                return False
            if isinstance(event, h11.Request):
                status, kind, body = self._answer(event)
                await _send(connection, writer, status, kind, body, head=event.method == b"HEAD")
            elif isinstance(event, h11.EndOfMessage):
                if connection.our_state is not h11.DONE:
                    return False
                connection.start_next_cycle()
                return True
            elif isinstance(event, h11.ConnectionClosed) or connection.our_state is h11.MUST_CLOSE:
                return False

    def _answer(self, request: h11.Request) -> tuple[int, str, bytes]:
        if request.method not in {b"GET", b"HEAD"}:
            return 405, "text/plain", b"only GET and HEAD\n"
        path, _, query = request.target.partition(b"?")
        if path == b"/metrics":
            try:
                return 200, METRICS_TYPE, self._metrics()
            except Exception:
                log.exception("collecting metrics failed")
                return 500, "text/plain", b"collecting metrics failed; the log has the cause\n"
        if path == b"/livez":
            return 200, "text/plain", b"live\n"
        if path == b"/readyz":
            status, text = self._answer_ready(query)
            return status, "text/plain", f"{text}\n".encode(errors="replace")
        return 404, "text/plain", b"there are /metrics, /livez and /readyz\n"

    def _answer_ready(self, query: bytes) -> tuple[int, str]:
        try:
            models = _models(query)
        except ValueError as error:
            return 400, f"{error}; as in /readyz?model=NAME&model=OTHER"
        ready, reason = self._ready(models)
        return (200 if ready else 503), reason


def _models(query: bytes) -> tuple[str, ...]:
    """The models that a query of /readyz names; raises ValueError with what is wrong for any other query."""
    if not query:
        return ()
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as error:
        raise ValueError("the query is not of the form KEY=VALUE in UTF-8") from error
    for key, value in pairs:
        if key != "model":
            raise ValueError(f"unknown key {key!r} in the query")
        if not value:
            raise ValueError("the query names no model")
    return tuple(value for _, value in pairs)


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    status: int,
    content_type: str,
    body: bytes,
    *,
    head: bool = False,
) -> None:
    headers = [("content-type", content_type), ("content-length", str(len(body)))]
    if status == 405:
        headers.append(("allow", "GET, HEAD"))
    with contextlib.suppress(h11.LocalProtocolError):
        writer.write(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
        writer.write((b"" if head else connection.send(h11.Data(data=body))) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
