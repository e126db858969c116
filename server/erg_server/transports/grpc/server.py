"""Listens, accepts, watches over connections, drains them: the server's own gRPC transport."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from erg_server.clock import Clock
from erg_server.errors import UnavailableError
from erg_server.transports.base import Method
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.header_blocks import HeaderCache
from erg_server.transports.grpc.limits import BufferAccount, Limits
from erg_server.transports.grpc.method_table import MethodTable
from erg_server.transports.grpc.protocol import ConnectionProtocol
from erg_server.transports.grpc.watch import RETIRE_NS

log = logging.getLogger(__name__)

READ_BYTES: Final = 256 << 10
SWEEP_S: Final = 1.0
BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen: a host and port, or a Unix socket's path."""

    host: str = ""
    port: int = 0
    unix_path: str = ""

    def __str__(self) -> str:
        """As clients write it."""
        if self.unix_path:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class GrpcTransport:
    """The method table over HTTP/2. Owns the listeners and the set of connections."""

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        addresses: Sequence[Address],
        clock: Clock,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.limits = limits or Limits()
        self.methods = MethodTable(methods, self.loop, clock.now_ns)
        self._addresses = list(addresses)
        self.now_ns = clock.now_ns
        self._tls = tls
        self._reuse_port = reuse_port
        self._cache = HeaderCache()
        self._account = BufferAccount()
        self._connections: set[ConnectionProtocol] = set()
        self._listeners: list[asyncio.AbstractServer] = []
        self._unix_paths: list[Path] = []
        self._draining = False
        self._stopped = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens; ports are known after `start`."""
        return tuple(map(str, self._addresses))

    async def start(self) -> None:
        """Listen; raises UnavailableError where an address is taken."""
        for number, address in enumerate(self._addresses):
            try:
                self._addresses[number] = await self._listen(address)
            except OSError as error:
                await self.stop()
                raise UnavailableError(
                    f"gRPC cannot listen on {address}: {error.strerror or error}; choose another with --grpc-address "
                    "and --grpc-port"
                ) from error

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls and return when the accepted ones are answered, or after `timeout_s`.

        Calls that are under way when a peer hears of it are still taken (RFC 9113, 6.8): no caller has to call again.
        """
        self._draining = True
        self._close_listeners()
        for protocol in list(self._connections):
            protocol.connection.retire()
            protocol.flush()
        try:
            async with asyncio.timeout(timeout_s):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._empty.wait(), min(RETIRE_NS * 1e-9, timeout_s / 2))
                for protocol in list(self._connections):
                    # Peers that are gone, or do not answer pings, are not waited for.
                    protocol.connection.drain()
                    protocol.flush()
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d connections still have calls after %g s", len(self._connections), timeout_s)

    async def stop(self) -> None:
        """Drop every call and stop listening."""
        self._stopped = True
        self._close_listeners()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for protocol in list(self._connections):
            protocol.connection.lost()
            if protocol.transport is not None:
                protocol.transport.abort()
        await self._empty.wait()

    def new_connection(self) -> Connection:
        """The state machine of a connection just accepted."""
        return Connection(
            limits=self.limits,
            cache=self._cache,
            account=self._account,
            now_ns=self.now_ns,
            start_call=self.methods.start_call,
        )

    def connected(self, protocol: ConnectionProtocol) -> None:
        """Watch over a connection."""
        self._connections.add(protocol)
        self._empty.clear()
        if self._stopped:
            protocol.connection.drain()
            return
        if self._draining:
            # It was accepted just before the listener closed.
            protocol.connection.retire()
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def disconnected(self, protocol: ConnectionProtocol) -> None:
        """Forget it."""
        self._connections.discard(protocol)
        if not self._connections:
            self._empty.set()

    async def _listen(self, address: Address) -> Address:
        def accept() -> ConnectionProtocol:
            return ConnectionProtocol(self)

        handshake_s = self.limits.handshake_s if self._tls is not None else None
        shutdown_s = max(self.limits.linger_s, 0.001) if self._tls is not None else None
        if address.unix_path:
            _remove_stale_socket(Path(address.unix_path))
            self._listeners.append(
                await self.loop.create_unix_server(
                    accept,
                    address.unix_path,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=handshake_s,
                    ssl_shutdown_timeout=shutdown_s,
                )
            )
            self._unix_paths.append(Path(address.unix_path))
            return address
        listener = await self.loop.create_server(
            accept,
            address.host,
            address.port,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=handshake_s,
            ssl_shutdown_timeout=shutdown_s,
            # Two servers on one port by accident would each get half of the calls.
            reuse_port=self._reuse_port,
        )
        self._listeners.append(listener)
        return Address(host=address.host, port=listener.sockets[0].getsockname()[1])

    def _close_listeners(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        paths, self._unix_paths = self._unix_paths, []
        for path in paths:
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Look at every connection: one timer for all, none while there are none."""
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep) if self._connections else None
        now_ns = self.now_ns()
        for protocol in list(self._connections):
            transport = protocol.transport
            if transport is None:
                continue
            if protocol.watch.look(
                now_ns, socket_bytes=transport.get_write_buffer_size(), paused_ns=protocol.paused_ns
            ):
                protocol.flush()
            else:
                log.info("a caller takes no bytes or is gone; its connection is dropped")
                protocol.connection.lost()
                transport.abort()


def _remove_stale_socket(path: Path) -> None:
    """Unlink a socket that nobody listens on any more; raises OSError for one in use, which asyncio would take over."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "another server listens there")
