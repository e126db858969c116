"""A client of the transport's own calls, without a socket: the server's connections, fed by a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from erg_server.clock import ManualClock
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext, Method, StreamHandler, UnaryHandler
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.server import GrpcTransport

from tests.server.transports.grpc.peer import REQUEST, SECOND_NS, Peer

STREAM: tuple[tuple[str, str], ...] = tuple(
    (name, "/test.Service/Stream" if name == ":path" else value) for name, value in REQUEST
)


async def echo(request: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(id=request.id, raw_output_contents=request.raw_input_contents)


async def echo_each(
    requests: AsyncIterator[pb.ModelInferRequest], context: CallContext
) -> AsyncIterator[pb.ModelInferResponse]:
    async for request in requests:
        yield await echo(request, context)


def transport(
    unary: UnaryHandler = echo,
    stream: StreamHandler = echo_each,
    *,
    limits: Limits | None = None,
    client_streaming: bool = True,
    clock: ManualClock | None = None,
) -> GrpcTransport:
    kinds: dict[str, Any] = {"request": pb.ModelInferRequest, "response": pb.ModelInferResponse}
    methods = [
        Method(path="/test.Service/Call", unary=unary, **kinds),
        Method(path="/test.Service/Stream", stream=stream, client_streaming=client_streaming, **kinds),
    ]
    return GrpcTransport(methods, addresses=(), clock=clock or ManualClock(10 * SECOND_NS), limits=limits)


def peer_of(subject: GrpcTransport) -> Peer:
    """A new connection of a transport."""
    return Peer(subject.new_connection())


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; the test's own time limit is pytest's."""
    while not condition():  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0)


async def answered(peer: Peer, number: int) -> None:
    """Until a stream has its trailers, or was reset."""

    def done() -> bool:
        peer.read_all()
        answer = peer.answers.get(number)
        return answer is not None and (answer.trailers is not None or answer.reset is not None)

    await until(done)


def infer(text: str = "", raw: bytes = b"") -> bytes:
    return pb.ModelInferRequest(id=text, raw_input_contents=[raw] if raw else []).SerializeToString()


def read_messages(body: bytes) -> list[pb.ModelInferResponse]:
    """The plain messages of an answer's body."""
    found: list[pb.ModelInferResponse] = []
    while body:
        assert body[0] == 0
        size = int.from_bytes(body[1:5], "big")
        found.append(pb.ModelInferResponse.FromString(body[5 : 5 + size]))
        body = body[5 + size :]
    return found
