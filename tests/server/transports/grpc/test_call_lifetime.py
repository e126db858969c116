"""What a call holds goes with it: no cycle keeps a request's bytes until the garbage collector comes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from erg_server.errors import CancelledError
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext, Done, Method
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.messages import MessageReader
from erg_server.transports.grpc.protocol import ConnectionProtocol
from erg_server.transports.grpc.stream import Stream
from erg_server.transports.grpc.unary_call import UnaryCall

from tests.server.transports.grpc.peer import REQUEST, Peer, data, message, reset
from tests.server.transports.grpc.served import answered, infer, peer_of, transport, until

KINDS: dict[str, Any] = {"request": pb.ModelInferRequest, "response": pb.ModelInferResponse}


class Queued:
    """Starts calls as the server's scheduler does: what cancels a call knows whom to tell, and tells it."""

    def __init__(self) -> None:
        self.waiting: list[Done] = []

    def start(self, _raw: bytes | memoryview, _: CallContext, done: Done) -> Callable[[], None]:
        self.waiting.append(done)

        def cancel() -> None:
            self.waiting.remove(done)
            done(None, CancelledError("the caller cancelled the request"))

        return cancel

    def finish(self, error: Exception | None = None) -> None:
        self.waiting.pop()(None if error else (b"answer",), error)


def started(limits: Limits | None = None) -> tuple[Queued, Peer]:
    queued = Queued()
    subject = transport(limits=limits)

    async def unary(_: Any, __: CallContext) -> pb.ModelInferResponse:
        raise AssertionError("start is there")

    subject.methods.add(Method(path="/test.Service/Call", unary=unary, start=queued.start, **KINDS))
    return queued, peer_of(subject)


def alive(*kinds: type) -> list[object]:
    """The objects of a test: what those before it left is frozen."""
    return [entry for entry in gc.get_objects() if isinstance(entry, kinds)]


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


ENDS: dict[str, Callable[[Queued, Peer], object]] = {
    "answered": lambda queued, _: queued.finish(),
    "failed": lambda queued, _: queued.finish(ValueError()),
    "cancelled": lambda _, peer: peer.send(reset(1)),
    "cut": lambda _, peer: peer.connection.lost(),
}


@pytest.mark.parametrize("how", ["answered", "failed", "cancelled", "cut"])
async def test_a_call_is_gone_as_soon_as_it_is_over(how: str) -> None:
    queued, peer = started()
    peer.send(peer.request(1, message(infer("a", bytes(1000)))))
    assert alive(UnaryCall)
    ENDS[how](queued, peer)
    assert not alive(UnaryCall, Stream, CallContext)


async def test_a_request_that_never_came_whole_goes_with_its_connection() -> None:
    _, peer = started()
    peer.send(peer.headers(1), data(1, message(bytes(1000))[:500]))
    assert alive(MessageReader)
    peer.connection.lost()
    assert not alive(MessageReader, UnaryCall, Stream)


async def test_a_deadline_is_told_as_one_though_what_waits_is_cancelled() -> None:
    queued, peer = started()
    peer.send(peer.headers(1, [*REQUEST, ("grpc-timeout", "1m")]), data(1, message(infer("a")), end=True))
    await answered(peer, 1)
    assert peer.answers[1].status == "4"
    assert not queued.waiting
    await until(lambda: not alive(UnaryCall))


class GoneTransport:
    """A socket whose peer is found gone at the first write."""

    def __init__(self) -> None:
        self.writes = 0

    def set_write_buffer_limits(self, *, high: int) -> None:
        assert high

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.writes > 1

    def write(self, _part: bytes) -> None:
        self.writes += 1


class Owner:
    """A server of one connection."""

    def __init__(self, connection: Connection) -> None:
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(1024))
        self._connection = connection

    def now_ns(self) -> int:
        return 0

    def new_connection(self) -> Connection:
        return self._connection

    def connected(self, protocol: ConnectionProtocol) -> None:
        pass

    def disconnected(self, protocol: ConnectionProtocol) -> None:
        pass


async def test_nothing_more_is_written_to_a_peer_that_is_gone() -> None:
    connection = Peer().connection
    connection.outbox.frames.clear()
    protocol = ConnectionProtocol(Owner(connection))
    gone = GoneTransport()
    protocol.connection_made(cast("asyncio.Transport", gone))
    connection.outbox.frames += [bytes(100_000) for _ in range(10)]
    connection.outbox.queued_large = True
    protocol.flush()
    assert gone.writes == 2
