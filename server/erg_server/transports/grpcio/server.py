"""The method table served by grpcio's asyncio server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from erg_server.clock import Clock
from erg_server.errors import ErgError, UnavailableError
from erg_server.transports.base import CallContext, Method
from erg_server.transports.certificates import ReloadingCertificates
from erg_server.transports.grpc.limits import Limits

log = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioTransport:
    """Listens on one address. Owns the grpcio server."""

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        address: str,
        port: int,
        max_message_bytes: int,
        clock: Clock,
        unix_socket: str = "",
        reuse_port: bool = False,
        certificates: ReloadingCertificates | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._address = f"[{address}]" if ":" in address else address
        self._port = port
        self._unix_socket = unix_socket
        self._clock = clock
        self._certificates = certificates
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # Two servers on one port by accident would each get half of the calls.
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.http2.max_ping_strikes", 0),
                *_connection_options(limits or Limits()),
            ]
        )
        handlers = {method.path: self._handler(method) for method in methods}
        self._server.add_generic_rpc_handlers((_Handlers(handlers),))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens; the port is known after `start`."""
        unix = (f"unix:{self._unix_socket}",) if self._unix_socket else ()
        return (f"{self._address}:{self._port}", *unix)

    async def start(self) -> None:
        """Listen; raises UnavailableError where an address is taken."""
        for number, address in enumerate(self.addresses):
            try:
                if self._certificates is None:
                    port = self._server.add_insecure_port(address)
                else:
                    # Each listener its own: grpcio hands what is read at first to the first that asks for it.
                    port = self._server.add_secure_port(address, _credentials(self._certificates))
            except RuntimeError as error:
                raise UnavailableError(
                    f"gRPC cannot listen on {address}: it is taken or not this host's; "
                    "choose another with --grpc-address and --grpc-port"
                ) from error
            if number == 0:
                self._port = port
        await self._server.start()

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls and return when the accepted ones are answered, or after `timeout_s`."""
        await self._server.stop(timeout_s)

    async def stop(self) -> None:
        """Drop every call and stop listening."""
        await self._server.stop(0)

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        if method.unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, method.unary))
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method))
        return grpc.unary_stream_rpc_method_handler(self._stream(method))

    def _unary(self, method: Method, handler: Callable[[Any, CallContext], Awaitable[Message]]) -> Any:
        parse = method.request.FromString

        async def serve(raw: bytes, call: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            context = self._context(call)
            try:
                answer = (await handler(parse(raw), context)).SerializeToString()
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
                await self._abort(call, method, error)
            if context.trailers:
                call.set_trailing_metadata(context.trailers)
            return answer

        return serve

    def _stream(self, method: Method) -> Any:
        handler = method.stream
        assert handler is not None
        parse = method.request.FromString

        async def serve(raw: Any, call: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
            async def messages() -> AsyncIterator[Message]:
                if not method.client_streaming:
                    yield parse(raw)
                    return
                async for item in raw:
                    yield parse(item)

            try:
                async for response in handler(messages(), self._context(call)):
                    yield response.SerializeToString()
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
                await self._abort(call, method, error)

        return serve

    def _context(self, call: grpc.aio.ServicerContext[bytes, bytes]) -> CallContext:
        now_ns = self._clock.now_ns()
        left_s: float | None = call.time_remaining()
        # Without a deadline grpcio says None or a century.
        deadline_ns = None if left_s is None or left_s > 1e9 else now_ns + int(left_s * 1e9)
        metadata = tuple((key, value) for key, value in call.invocation_metadata() or ())
        return CallContext(arrival_ns=now_ns, deadline_ns=deadline_ns, metadata=metadata)

    async def _abort(self, call: grpc.aio.ServicerContext[bytes, bytes], method: Method, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, ErgError):
            await call.abort(_CODES[error.code], error.message, error.trailers)
        if isinstance(error, DecodeError):
            await call.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"the message is not a valid {method.request.DESCRIPTOR.full_name}"
            )
        log.error("%s failed", method.path, exc_info=error)
        await call.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause")
        raise AssertionError("abort always raises")


def _connection_options(limits: Limits) -> list[tuple[str, int]]:
    """A connection's life in milliseconds, as gRPC's core has it; what is 0 has no end."""
    stated = {
        "grpc.keepalive_time_ms": limits.keepalive_s,
        "grpc.keepalive_timeout_ms": limits.keepalive_timeout_s,
        "grpc.max_connection_idle_ms": limits.idle_s,
        "grpc.max_connection_age_ms": limits.age_s,
        "grpc.max_connection_age_grace_ms": limits.age_grace_s,
    }
    return [(name, int(seconds * 1e3)) for name, seconds in stated.items() if seconds]


def _credentials(certificates: ReloadingCertificates) -> grpc.ServerCredentials:
    """Credentials that look at the files again at each handshake, in a thread of gRPC's core."""
    files = certificates.files
    # What this listener has: `certificates` may have been told of new files by another, or by a scrape.
    stamp = certificates.stamp

    def read() -> grpc.ServerCertificateConfiguration:
        pair = files.key.read_bytes(), files.certificate.read_bytes()
        roots = None if files.client_roots is None else files.client_roots.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal stamp
        certificates.reload()
        try:
            # Files that are not those read are spoilt, or half renewed.
            if certificates.stamp == stamp or files.stamp() != certificates.stamp:
                return None
            configuration = read()
        except OSError as error:
            log.warning("%s; the certificate read before is served on", error)
            return None
        stamp = certificates.stamp
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        read(),
        changed,  # type: ignore[arg-type]  # None, which its stubs leave out, says that nothing changed
        require_client_authentication=files.client_roots is not None,
    )


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Finds a method by its path."""

    def __init__(self, handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(handler_call_details.method)
