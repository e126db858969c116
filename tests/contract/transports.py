"""Every transport there is, and one of them running over methods that a test chooses. A new one is a line here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self

import grpc
import grpc.aio
from erg_server.clock import Clock, MonotonicClock
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext, Method, StreamHandler, Transport, UnaryHandler
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.server import Address, GrpcTransport
from erg_server.transports.grpcio.server import GrpcioTransport

MAX_MESSAGE_BYTES = 1 << 20


class TransportFactory(Protocol):
    def __call__(
        self, methods: Sequence[Method], *, address: str, port: int, max_message_bytes: int, clock: Clock
    ) -> Transport: ...


def _own(methods: Sequence[Method], *, address: str, port: int, max_message_bytes: int, clock: Clock) -> Transport:
    listen, limits = Address(host=address, port=port), Limits(message_bytes=max_message_bytes)
    return GrpcTransport(methods, addresses=(listen,), clock=clock, limits=limits)


TRANSPORTS: dict[str, TransportFactory] = {"own": _own, "grpcio": GrpcioTransport}


def create(factory: TransportFactory, *methods: Method, port: int = 0) -> Transport:
    return factory(methods, address="127.0.0.1", port=port, max_message_bytes=MAX_MESSAGE_BYTES, clock=MonotonicClock())


@asynccontextmanager
async def running(factory: TransportFactory, *methods: Method) -> AsyncIterator[tuple[Transport, Client]]:
    """A listening transport and a client of it."""
    transport = create(factory, *methods)
    await transport.start()
    try:
        async with Client(transport.addresses[0]) as client:
            yield transport, client
    finally:
        await transport.stop()


def unary(handler: UnaryHandler, path: str = "/test.Service/Call") -> Method:
    return Method(path=path, request=pb.ModelInferRequest, response=pb.ModelInferResponse, unary=handler)


def stream(handler: StreamHandler, path: str = "/test.Service/Stream", *, client_streaming: bool = True) -> Method:
    return Method(
        path=path,
        request=pb.ModelInferRequest,
        response=pb.ModelInferResponse,
        stream=handler,
        client_streaming=client_streaming,
    )


async def echo(message: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(
        model_name=message.model_name, id=message.id, raw_output_contents=message.raw_input_contents
    )


class StreamCall:
    """A streaming call, read by its iterator: grpcio's own `read` loses what comes together with the status."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._answers = aiter(call)

    async def write(self, message: Any) -> None:
        await self._call.write(message)

    async def done_writing(self) -> None:
        await self._call.done_writing()

    async def read(self) -> Any:
        """The next answer; raises StopAsyncIteration where the stream ends."""
        return await anext(self._answers)

    async def rest(self) -> list[Any]:
        """What is still answered, to the stream's end."""
        return [answer async for answer in self._answers]

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await self._call.code()
        return code

    def cancel(self) -> None:
        self._call.cancel()


class Client:
    """grpcio's own client, speaking bytes unless told a message."""

    def __init__(self, address: str) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.aio.insecure_channel(address, options=unlimited)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close(None)

    def call(self, message: Any, path: str = "/test.Service/Call", response: Any = pb.ModelInferResponse, **how: Any):
        """A unary call; a message may be raw bytes."""
        method = self.channel.unary_unary(path, request_serializer=_raw, response_deserializer=response.FromString)
        return method(message, **how)

    def stream(self, path: str = "/test.Service/Stream", response: Any = pb.ModelInferResponse, **how: Any):
        method = self.channel.stream_stream(path, request_serializer=_raw, response_deserializer=response.FromString)
        return StreamCall(method(**how))

    def watch(self, message: Any, path: str, response: Any = pb.ModelInferResponse, **how: Any):
        method = self.channel.unary_stream(path, request_serializer=_raw, response_deserializer=response.FromString)
        return StreamCall(method(message, **how))


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The status and message of a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"the call succeeded with {answer!r}")


def _raw(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
