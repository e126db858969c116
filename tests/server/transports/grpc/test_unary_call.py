from __future__ import annotations

import asyncio
import gzip
import logging

import pytest
from erg_server.errors import InvalidArgumentError, NotFoundError
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext
from erg_server.transports.grpc.frames import ErrorCode
from erg_server.transports.grpc.limits import Limits

from tests.server.transports.grpc.peer import REQUEST, Peer, data, message, reset, settings, window
from tests.server.transports.grpc.served import answered, echo, infer, peer_of, read_messages, transport, until

DEADLINE, EXHAUSTED, UNIMPLEMENTED, INTERNAL = "4", "8", "12", "13"


class Waiting:
    """A handler that answers when it is told."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = False
        self.contexts: list[CallContext] = []

    async def __call__(self, request: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        self.contexts.append(context)
        self.started.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return await echo(request, context)


async def status_of(peer: Peer, number: int = 1) -> str | None:
    await answered(peer, number)
    assert peer.connection.held_bytes == 0
    return peer.answers[number].status


async def test_a_request_is_answered_with_headers_a_message_and_trailers() -> None:
    peer = peer_of(transport())
    peer.send(peer.request(1, message(infer("a", b"\0\1"))))
    assert await status_of(peer) == "0"
    answer = peer.answers[1]
    assert answer.headers == [(":status", "200"), ("content-type", "application/grpc")]
    assert answer.trailers == [("grpc-status", "0")]
    assert [(each.id, list(each.raw_output_contents)) for each in read_messages(answer.body)] == [("a", [b"\0\1"])]


@pytest.mark.parametrize("step", [1, 3, 100])
async def test_a_request_may_come_in_any_pieces(step: int) -> None:
    peer = peer_of(transport())
    body = message(infer("x" * 300))
    peer.send(peer.headers(1))
    for at in range(0, len(body), step):
        peer.send(data(1, body[at : at + step]))
    held = peer.connection.held_bytes
    assert 0 < held <= len(body)
    peer.send(data(1, end=True))
    assert await status_of(peer) == "0"
    assert read_messages(peer.answers[1].body)[0].id == "x" * 300


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", INTERNAL),
        (message(infer("half"))[:-1], INTERNAL),
        (b"\0\0\0", INTERNAL),
        (message(infer("a")) + message(infer("b")), UNIMPLEMENTED),
        (message(infer("a")) + b"\0", INTERNAL),
        (message(b"\xff\xff"), "3"),
        (b"\1\0\0\0\0", INTERNAL),
        (b"\0\x7f\xff\xff\xff", EXHAUSTED),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_a_request_that_is_not_one_message_is_refused(body: bytes, status: str, split: bool) -> None:
    peer = peer_of(transport())
    if split:
        peer.send(peer.headers(1), *(data(1, body[at : at + 1]) for at in range(len(body))), data(1, end=True))
    else:
        peer.send(peer.request(1, body))
    assert await status_of(peer) == status
    assert peer.answers[1].trailers == peer.answers[1].headers  # in one block
    peer.send(peer.request(3, message(infer("next"))))
    assert await status_of(peer, 3) == "0"


async def test_headers_that_end_the_stream_are_a_request_without_a_message() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, end=True))
    assert await status_of(peer) == INTERNAL


async def test_a_refused_call_is_answered_before_its_request_came() -> None:
    peer = peer_of(transport())
    fields = [(name, "/test.Service/Other" if name == ":path" else value) for name, value in REQUEST]
    peer.send(peer.headers(1, fields))
    assert await status_of(peer) == UNIMPLEMENTED
    assert peer.reset_of(1) is ErrorCode.NO_ERROR
    peer.send(data(1, message(infer("late")), end=True))
    assert not peer.connection.closing


async def test_a_caller_whose_encoding_is_not_taken_is_told_which_ones_are() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, [*REQUEST, ("grpc-encoding", "br")]))
    assert await status_of(peer) == UNIMPLEMENTED
    assert dict(peer.answers[1].headers)["grpc-accept-encoding"] == "identity,gzip,deflate"
    peer.send(peer.headers(3, [(name, "/no" if name == ":path" else value) for name, value in REQUEST]))
    assert await status_of(peer, 3) == UNIMPLEMENTED
    assert "grpc-accept-encoding" not in dict(peer.answers[3].headers)


async def test_what_is_not_grpc_is_told_by_http() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, [(name, "GET" if name == ":method" else value) for name, value in REQUEST], end=True))
    peer.read()
    assert dict(peer.answers[1].headers)[":status"] == "405"
    peer.send(peer.headers(3, [(name, "text/html" if name == "content-type" else value) for name, value in REQUEST]))
    peer.read()
    assert dict(peer.answers[3].headers)[":status"] == "415"


async def test_a_deadline_ends_the_call_and_its_handler() -> None:
    waiting = Waiting()
    peer = peer_of(transport(waiting))
    peer.send(peer.request(1, message(infer()), [*REQUEST, ("grpc-timeout", "1m")]))
    assert await status_of(peer) == DEADLINE
    await until(lambda: waiting.cancelled or not waiting.started.is_set())
    assert not peer.connection.streams


async def test_a_deadline_passes_while_the_request_is_still_sent() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, [*REQUEST, ("grpc-timeout", "1m")]), data(1, message(infer("half"))[:6]))
    assert peer.connection.held_bytes == 6
    assert await status_of(peer) == DEADLINE


async def test_the_handler_learns_deadline_and_metadata() -> None:
    waiting = Waiting()
    waiting.go_on.set()
    peer = peer_of(transport(waiting))
    more = [("grpc-timeout", "5S"), ("key", "value"), ("raw-bin", "AP8"), ("key", "again")]
    peer.send(peer.request(1, message(infer()), [*REQUEST, *more]))
    assert await status_of(peer) == "0"
    (context,) = waiting.contexts
    assert context.deadline_ns == context.arrival_ns + 5 * 10**9
    assert context.metadata == (("key", "value"), ("raw-bin", b"\0\xff"), ("key", "again"))


@pytest.mark.parametrize("how", ["reset", "lost", "fault", "stall"])
async def test_a_caller_that_is_gone_cancels_the_handler(how: str) -> None:
    waiting = Waiting()
    peer = peer_of(transport(waiting))
    peer.send(peer.request(1, message(infer())))
    await waiting.started.wait()
    if how == "reset":
        peer.send(reset(1))
    elif how == "lost":
        peer.connection.lost()
    elif how == "fault":
        peer.send(b"\0\0\0\x05\0\0\0\0\1")
    else:
        peer.connection.reset(peer.connection.streams[1], ErrorCode.CANCEL)
    await until(lambda: waiting.cancelled)
    peer.read()
    assert 1 not in peer.answers or peer.answers[1].status is None


async def test_an_error_has_its_code_and_its_message_percent_encoded() -> None:
    async def fail(_: object, __: CallContext) -> pb.ModelInferResponse:
        raise NotFoundError("100% of “models”\n")

    peer = peer_of(transport(fail))
    peer.send(peer.request(1, message(infer())))
    assert await status_of(peer) == "5"
    assert peer.answers[1].text == "100%25 of %E2%80%9Cmodels%E2%80%9D%0A"


async def test_an_unforeseen_error_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: object, __: CallContext) -> pb.ModelInferResponse:
        raise RuntimeError("secret")

    async def no_message(_: object, __: CallContext) -> pb.ModelInferResponse:
        return None  # type: ignore[return-value]  # a handler that is wrong

    for handler in (fail, no_message):
        peer = peer_of(transport(handler))
        with caplog.at_level(logging.ERROR):
            peer.send(peer.request(1, message(infer())))
            assert await status_of(peer) == INTERNAL
        assert "secret" not in (peer.answers[1].text or "")
    assert "secret" in caplog.text


@pytest.mark.parametrize("accepts", [None, "gzip", "identity,deflate,gzip"])
async def test_compressed_requests_are_answered_compressed_where_that_is_taken(accepts: str | None) -> None:
    peer = peer_of(transport())
    fields = [*REQUEST, ("grpc-encoding", "gzip"), *([("grpc-accept-encoding", accepts)] if accepts else [])]
    packed = gzip.compress(infer("a", bytes(5000)))
    peer.send(peer.request(1, message(packed, compressed=True), fields))
    assert await status_of(peer) == "0"
    answer = peer.answers[1]
    if accepts is None:
        assert read_messages(answer.body)[0].id == "a"
    else:
        assert dict(answer.headers)["grpc-encoding"] == "gzip"
        assert answer.body[0] == 1
        assert pb.ModelInferResponse.FromString(gzip.decompress(answer.body[5:])).id == "a"


async def test_small_answers_are_not_compressed() -> None:
    peer = peer_of(transport())
    fields = [*REQUEST, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")]
    peer.send(peer.request(1, message(infer("a")), fields))
    assert await status_of(peer) == "0"
    assert read_messages(peer.answers[1].body)[0].id == "a"


async def test_an_answer_over_the_limit_is_an_error() -> None:
    peer = peer_of(transport(limits=Limits(message_bytes=1000)))
    fields = [*REQUEST, ("grpc-encoding", "gzip")]
    peer.send(peer.request(1, message(infer("a", bytes(900)))))
    assert await status_of(peer) == "0"

    async def grow(_: object, __: CallContext) -> pb.ModelInferResponse:
        return pb.ModelInferResponse(raw_output_contents=[bytes(1000)])

    peer = peer_of(transport(grow, limits=Limits(message_bytes=1000)))
    peer.send(peer.request(1, message(infer("a")), fields))
    assert await status_of(peer) == EXHAUSTED


async def test_a_typed_error_of_parsing_names_the_message() -> None:
    async def invalid(_: object, __: CallContext) -> pb.ModelInferResponse:
        raise InvalidArgumentError("no")

    peer = peer_of(transport(invalid))
    peer.send(peer.request(1, message(b"\xff")))
    assert await status_of(peer) == "3"
    assert "ModelInferRequest" in (peer.answers[1].text or "")


async def test_what_connections_hold_together_is_bounded_and_given_back() -> None:
    subject = transport(limits=Limits(total_buffer_bytes=10_000))
    first, second = peer_of(subject), peer_of(subject)
    big = message(infer("x" * 20_000))
    first.send(first.headers(1), data(1, big[:9000]))
    second.send(second.headers(1), data(1, big[:9000]))
    assert await status_of(second) == EXHAUSTED
    first.connection.lost()
    assert first.connection.held_bytes == 0
    second.send(second.headers(3), data(3, big[:9000]))
    assert second.connection.held_bytes == 9000
    second.send(reset(3))
    assert second.connection.held_bytes == 0


async def test_a_large_request_gets_the_window_it_needs() -> None:
    limits = Limits(stream_window_bytes=65_535, connection_window_bytes=1 << 20)
    peer = peer_of(transport(limits=limits))
    peer.send(settings({4: 1 << 24}), window(0, 1 << 24))
    body = message(infer("big", bytes(3 << 20)))
    peer.send(peer.headers(1))
    for at in range(0, len(body), 16_000):
        peer.send(data(1, body[at : at + 16_000], end=at + 16_000 >= len(body)))
        assert peer.connection.fault is None
    assert await status_of(peer) == "0"
