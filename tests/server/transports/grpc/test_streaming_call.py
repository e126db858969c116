from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
from erg_server.errors import UnavailableError
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext
from erg_server.transports.grpc.frames import ErrorCode
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.streaming_call import STREAM_PENDING_BYTES

from tests.server.transports.grpc.peer import Peer, data, message, reset, settings, window
from tests.server.transports.grpc.served import STREAM, answered, infer, peer_of, read_messages, transport, until

Requests = AsyncIterator[pb.ModelInferRequest]
Answers = AsyncIterator[pb.ModelInferResponse]


class Sleeper:
    """A handler that takes nothing until it is told, and says how it ended."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.started = False
        self.ended = False

    async def __call__(self, requests: Requests, _: CallContext) -> Answers:
        self.started = True
        try:
            await self.go_on.wait()
            async for request in requests:
                yield pb.ModelInferResponse(id=request.id)
        finally:
            self.ended = True


async def ids(peer: Peer, number: int = 1) -> list[str]:
    await answered(peer, number)
    return [each.id for each in read_messages(peer.answers[number].body)]


async def test_messages_are_answered_as_they_come() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, STREAM))

    def came() -> int:
        peer.read()
        return len(peer.answers[1].body) if 1 in peer.answers else 0

    for number in range(5):
        before = came()
        peer.send(data(1, message(infer(str(number)))))
        await until(lambda before=before: came() > before)  # type: ignore[misc]
    peer.send(data(1, end=True))
    assert await ids(peer) == ["0", "1", "2", "3", "4"]
    assert peer.answers[1].status == "0"
    assert peer.connection.held_bytes == 0


async def test_an_empty_stream_has_headers_and_trailers() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, STREAM, end=True))
    assert await ids(peer) == []
    assert peer.answers[1].headers[0] == (":status", "200")
    assert peer.answers[1].trailers == [("grpc-status", "0")]


@pytest.mark.parametrize(
    ("body", "status"),
    [(message(infer("a")) + b"\0\0", "13"), (message(infer("a")) + message(b"\xff"), "3"), (b"\7\0\0\0\0", "13")],
)
async def test_a_stream_that_breaks_off_is_an_error(body: bytes, status: str) -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, STREAM), data(1, body, end=True))
    await answered(peer, 1)
    assert peer.answers[1].status == status
    assert peer.connection.held_bytes == 0


async def test_an_error_after_answers_is_in_the_trailers() -> None:
    async def fail(requests: Requests, _: CallContext) -> Answers:
        yield pb.ModelInferResponse(id="one")
        raise UnavailableError("no more")

    peer = peer_of(transport(stream=fail))
    peer.send(peer.headers(1, STREAM))
    assert await ids(peer) == ["one"]
    assert peer.answers[1].trailers == [("grpc-status", "14"), ("grpc-message", "no more")]
    assert peer.reset_of(1) is ErrorCode.NO_ERROR


@pytest.mark.parametrize("how", ["reset", "lost", "deadline", "bad"])
async def test_a_stream_that_ends_early_ends_its_handler_and_holds_nothing(how: str) -> None:
    sleeper = Sleeper()
    peer = peer_of(transport(stream=sleeper))
    fields = [*STREAM, ("grpc-timeout", "1m")] if how == "deadline" else STREAM
    peer.send(peer.headers(1, fields), *(data(1, message(infer("x" * 100))) for _ in range(10)))
    peer.send(data(1, b"\0\x7f\xff\xff"))
    assert peer.connection.held_bytes > 1000
    if how != "deadline":
        await until(lambda: sleeper.started)
    if how == "reset":
        peer.send(reset(1))
    elif how == "lost":
        peer.connection.lost()
    elif how == "bad":
        peer.send(data(1, b"\xff"))
    else:
        await answered(peer, 1)
        assert peer.answers[1].status == "4"
    await until(lambda: sleeper.ended or not sleeper.started)
    if how == "bad":
        await answered(peer, 1)
        assert peer.answers[1].status == "8"
    assert peer.connection.held_bytes == 0
    assert not peer.connection.streams


async def test_a_handler_that_takes_nothing_closes_the_callers_window() -> None:
    sleeper = Sleeper()
    limits = Limits(stream_window_bytes=65_535)
    peer = peer_of(transport(stream=sleeper, limits=limits))
    peer.send(peer.headers(1, STREAM), window(0, 1 << 20), window(1, 1 << 20))
    await until(lambda: sleeper.started)
    body = message(infer("x" * 1000))
    count = 0
    while peer.connection.streams[1].receive_left >= len(body):
        peer.send(data(1, body))
        count += 1
    assert count < 70
    held = peer.connection.held_bytes
    assert 60_000 < held < 80_000
    sleeper.go_on.set()
    await until(lambda: peer.connection.held_bytes == 0)
    assert peer.connection.streams[1].receive_left > 60_000
    peer.send(data(1, body, end=True))
    assert len(await ids(peer)) == count + 1


async def test_a_caller_that_takes_nothing_stops_the_handler() -> None:
    made = 0

    async def endless(requests: Requests, _: CallContext) -> Answers:
        nonlocal made
        while True:
            made += 1
            yield pb.ModelInferResponse(raw_output_contents=[bytes(100_000)])

    peer = peer_of(transport(stream=endless))
    peer.send(settings({4: 0}), peer.headers(1, STREAM))
    before = -1
    while made != before or not made:
        before = made
        for _ in range(10):
            await asyncio.sleep(0)
    assert made * 100_000 < STREAM_PENDING_BYTES + 300_000
    assert peer.connection.held_bytes >= STREAM_PENDING_BYTES
    peer.send(window(1, 1 << 20), window(0, 1 << 20))
    peer.read_all()
    await until(lambda: made > before)
    peer.send(reset(1))
    await until(lambda: not peer.connection.streams)
    assert peer.connection.held_bytes == 0


async def test_a_deadline_ends_a_stream_that_has_answered() -> None:
    async def one(requests: Requests, _: CallContext) -> Answers:
        yield pb.ModelInferResponse(id="one")
        await asyncio.Event().wait()

    peer = peer_of(transport(stream=one))
    peer.send(peer.headers(1, [*STREAM, ("grpc-timeout", "20m")]))
    assert await ids(peer) == ["one"]
    assert peer.answers[1].trailers is not None
    assert peer.answers[1].trailers[0] == ("grpc-status", "4")


async def test_a_call_of_one_request_takes_one() -> None:
    async def first(requests: Requests, _: CallContext) -> Answers:
        request = await anext(requests)
        yield pb.ModelInferResponse(id=request.id)
        async for _request in requests:
            raise AssertionError

    subject = transport(stream=first, client_streaming=False)
    peer = peer_of(subject)
    peer.send(peer.headers(1, STREAM), data(1, message(infer("a"))))
    assert await ids(peer) == ["a"]
    peer.send(peer.headers(3, STREAM), data(3, message(infer("a")) + message(infer("b")), end=True))
    await answered(peer, 3)
    assert peer.answers[3].status == "12"
    peer.send(peer.headers(5, STREAM, end=True))
    await answered(peer, 5)
    assert peer.answers[5].status == "13"
    assert peer.connection.held_bytes == 0


async def test_streams_are_compressed_both_ways() -> None:
    async def large(requests: Requests, _: CallContext) -> Answers:
        async for request in requests:
            yield pb.ModelInferResponse(id=request.id * 3000)

    peer = peer_of(transport(stream=large))
    fields = [*STREAM, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")]
    packed = message(gzip.compress(infer("x")), compressed=True)
    peer.send(peer.headers(1, fields), data(1, packed, end=True))
    await answered(peer, 1)
    answer = peer.answers[1]
    assert dict(answer.headers)["grpc-encoding"] == "gzip"
    assert answer.body[0] == 1
    assert pb.ModelInferResponse.FromString(gzip.decompress(answer.body[5:])).id == "x" * 3000


async def test_a_stream_holds_no_more_than_a_connection_may() -> None:
    sleeper = Sleeper()
    peer = peer_of(transport(stream=sleeper, limits=Limits(connection_buffer_bytes=5000)))
    peer.send(peer.headers(1, STREAM))
    peer.send(*(data(1, message(b"")) for _ in range(200)))
    await answered(peer, 1)
    assert peer.answers[1].status == "8"
    assert peer.connection.held_bytes == 0
