from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
from erg_server.transports.grpc.frames import PREFACE, ErrorCode
from erg_server.transports.grpc.limits import Limits
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.server.transports.grpc.peer import (
    REQUEST,
    EchoCall,
    Peer,
    continuation,
    data,
    kinds,
    ping,
    raw_frame,
    reset,
    settings,
)

BODY = bytes(range(256))


def conversation(peer: Peer) -> bytes:
    """A bit of everything that a peer may send."""
    first = peer.request(1, BODY)
    block = peer.encoder.encode([*REQUEST, ("long", "x" * 300)])
    return b"".join(
        (
            ping().serialize(),
            first,
            HeadersFrame(3, block[:10], flags=[]).serialize(),
            continuation(3, block[10:40], end=False).serialize(),
            continuation(3, block[40:], end=True).serialize(),
            data(3, b"a", padding=7).serialize(),
            raw_frame(0xBE, 0xFF, 3, b"unknown"),
            data(3, b"", padding=3).serialize(),
            data(3, b"bc", padding=0, end=True).serialize(),
            HeadersFrame(
                5,
                peer.encoder.encode(list(REQUEST)),
                flags=["END_HEADERS", "PADDED", "PRIORITY"],
                pad_length=9,
                depends_on=3,
                stream_weight=1,
            ).serialize(),
            raw_frame(2, 0, 5, b"\0\0\0\1\x10"),
            data(5, BODY).serialize(),
            peer.headers(5, [("some", "trailer")], end=True).serialize(),
            settings({4: 70_000}).serialize(),
            peer.headers(7).serialize(),
            reset(7).serialize(),
        )
    )


def talk(step: int | None) -> tuple[bytes, Peer]:
    peer = Peer(call=EchoCall, greet=False)
    raw = PREFACE + SettingsFrame(0).serialize() + conversation(peer)
    peer.send(raw, step=step)
    answer = b"".join(peer.connection.outbox.frames)
    peer.read()
    return answer, peer


def test_a_conversation_is_answered_the_same_however_its_bytes_are_cut() -> None:
    whole, peer = talk(None)
    assert peer.connection.fault is None
    assert [peer.answers[number].body[5:] for number in (1, 3, 5)] == [BODY, b"abc", BODY]
    assert peer.calls[7].is_cancelled
    assert all(peer.answers[number].status == "0" for number in (1, 3, 5))
    raw_bytes = len(PREFACE + SettingsFrame(0).serialize() + conversation(Peer(greet=False)))
    for step in (1, 2, 3, 5, 7, 9, 10, 11, 64):
        assert talk(step)[0] == whole, step
    for cut in range(1, raw_bytes):
        other = Peer(call=EchoCall, greet=False)
        raw = PREFACE + SettingsFrame(0).serialize() + conversation(other)
        other.send(raw[:cut])
        other.send(raw[cut:])
        assert b"".join(other.connection.outbox.frames) == whole, cut


def test_h2_as_the_client_has_its_calls_answered() -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.update_settings({1: 0})
    peer = Peer(call=EchoCall, greet=False)
    events: list[h2.events.Event] = []

    def exchange() -> None:
        while raw := client.data_to_send():
            peer.send(raw)
            events.extend(client.receive_data(b"".join(peer.connection.outbox.frames)))
            peer.connection.outbox.frames.clear()

    exchange()
    for number in range(1, 201, 2):
        client.send_headers(number, list(REQUEST), priority_weight=5)
        client.send_data(number, BODY * 10, end_stream=True, pad_length=number % 9 or None)
    client.ping(b"pingpong")
    exchange()
    bodies: dict[int, bytes] = {}
    for event in events:
        assert not isinstance(event, (h2.events.ConnectionTerminated, h2.events.StreamReset))
        if isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            assert event.data is not None
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            client.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            exchange()
    assert {body[5:] for body in bodies.values()} == {BODY * 10}
    assert any(isinstance(event, h2.events.PingAckReceived) for event in events)


def test_the_server_speaks_first_and_states_its_limits() -> None:
    peer = Peer(limits=Limits(concurrent_streams=7, header_bytes=999), greet=False)
    first, update = peer.read()
    assert isinstance(first, SettingsFrame)
    assert (first.settings[3], first.settings[6]) == (7, 999)
    assert isinstance(update, WindowUpdateFrame)
    assert update.window_increment + 65_535 == Limits().connection_window_bytes


def test_requests_interleaved_frame_by_frame_each_get_their_own_answer() -> None:
    peer = Peer(call=EchoCall)
    numbers = range(1, 41, 2)
    for number in numbers:
        peer.send(peer.headers(number))
    for part in range(5):
        for number in numbers:
            peer.send(data(number, b"%d:%d " % (number, part), end=part == 4))
    peer.read()
    for number in numbers:
        assert peer.answers[number].body[5:] == b"".join(b"%d:%d " % (number, part) for part in range(5))


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
        PREFACE + ping().serialize(),
        PREFACE + raw_frame(4, 1, 0),
        PREFACE + raw_frame(1, 4, 1, b"\x82"),
        PREFACE + data(1, b"x").serialize(),
        PREFACE + raw_frame(0xEE, 0, 0),
    ],
)
@pytest.mark.parametrize("step", [None, 1])
def test_what_does_not_begin_as_http2_is_turned_away(first: bytes, step: int | None) -> None:
    peer = Peer(greet=False)
    peer.send(first, step=step)
    assert peer.connection.closing
    assert peer.goaway is ErrorCode.PROTOCOL_ERROR
    assert not peer.calls


def test_nothing_is_read_after_a_fault() -> None:
    peer = Peer()
    peer.send(raw_frame(5, 4, 1), peer.request(1))
    assert peer.goaway is ErrorCode.PROTOCOL_ERROR
    peer.send(peer.request(3))
    assert not peer.calls
    assert peer.read() == []


def test_pings_are_answered_with_their_own_bytes() -> None:
    peer = Peer()
    peer.send(ping(b"whatever"))
    (answer,) = peer.read()
    assert isinstance(answer, PingFrame)
    assert answer.opaque_data == b"whatever"
    assert "ACK" in answer.flags


def test_settings_are_acknowledged_and_unknown_ones_ignored() -> None:
    peer = Peer()
    peer.send(settings({0xF0F0: 1, 1: 0, 3: 0}))
    (answer,) = peer.read()
    assert isinstance(answer, SettingsFrame)
    assert "ACK" in answer.flags


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (raw_frame(4, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(4, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(4, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (settings({2: 2}).serialize(), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(4, 0, 0, b"\0\4\x80\0\0\0"), ErrorCode.FLOW_CONTROL_ERROR),
        (settings({5: 16_383}).serialize(), ErrorCode.PROTOCOL_ERROR),
        (settings({5: 1 << 24}).serialize(), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(6, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(6, 0, 0, bytes(20_000)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(6, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(7, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(7, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(8, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(8, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(3, 0, 1, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(2, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(1, 4, 0, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(1, 4, 2, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(1, 4 | 8, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(1, 4 | 8, 1, b"\5\x82"), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(1, 4 | 32, 1, b"\0\0"), ErrorCode.FRAME_SIZE_ERROR),
        (raw_frame(0, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(0, 8, 1, b""), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(0, 8, 1, b"\1"), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(9, 4, 1, b"\x82"), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(5, 4, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (raw_frame(1, 4, 1, b"\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
        (raw_frame(1, 4, 1, b"\xbf"), ErrorCode.COMPRESSION_ERROR),
        (b"\x10\x00\x01\x00\x00\x00\x00\x00\x01", ErrorCode.FRAME_SIZE_ERROR),
        (b"\x10\x00\x01\xee\x00\x00\x00\x00\x01", ErrorCode.FRAME_SIZE_ERROR),
    ],
)
@pytest.mark.parametrize("step", [None, 1])
def test_a_frame_that_breaks_the_rules_ends_the_connection(frame: bytes, code: ErrorCode, step: int | None) -> None:
    peer = Peer()
    peer.send(frame, step=step)
    assert peer.goaway is code
    assert peer.connection.closing


@pytest.mark.parametrize("step", [None, 1])
def test_inside_a_header_block_only_its_continuation_may_come(step: int | None) -> None:
    for inside in (ping().serialize(), data(1, b"x").serialize(), continuation(3, b"", end=True).serialize()):
        peer = Peer()
        peer.send(peer.headers(1))
        peer.send(HeadersFrame(3 if b"x" in inside else 5, b"\x82", flags=[]), inside, step=step)
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR


def test_trailers_end_a_request_and_what_is_none_resets_it() -> None:
    peer = Peer()
    peer.send(peer.headers(1), data(1, b"x"), peer.headers(1, [("a", "b")], end=True))
    assert peer.calls[1].ended
    peer.send(peer.headers(3), peer.headers(3, [("a", "b")]))
    assert peer.reset_of(3) is ErrorCode.PROTOCOL_ERROR
    peer.send(peer.headers(5), peer.headers(5, [(":path", "/")], end=True))
    assert peer.reset_of(5) is ErrorCode.PROTOCOL_ERROR
    peer.send(peer.headers(7), peer.headers(7, REQUEST, end=True))
    assert peer.reset_of(7) is ErrorCode.PROTOCOL_ERROR
    assert [peer.calls[number].is_cancelled for number in (1, 3, 5, 7)] == [False, True, True, True]
    assert not peer.connection.closing


def test_an_answer_before_the_request_ended_says_that_the_rest_is_not_wanted() -> None:
    peer = Peer()
    peer.send(peer.headers(1), data(1, b"begun"))
    peer.calls[1].answer(b"done")
    assert kinds(peer.read()) == [HeadersFrame, DataFrame, HeadersFrame, RstStreamFrame]
    assert peer.reset_of(1) is ErrorCode.NO_ERROR
    peer.send(data(1, b"under way", end=True))
    assert kinds(peer.read()) == []
    assert not peer.connection.streams


def test_an_unknown_stream_is_told_from_an_ended_one() -> None:
    peer = Peer(call=EchoCall)
    peer.send(peer.request(5))
    peer.send(data(3, b"x"))
    assert peer.reset_of(3) is ErrorCode.STREAM_CLOSED
    peer.send(data(7, b"x"))
    assert peer.goaway is ErrorCode.PROTOCOL_ERROR


def test_stream_numbers_never_go_back() -> None:
    peer = Peer(call=EchoCall)
    peer.send(peer.request(5))
    peer.send(peer.request(3))
    assert peer.goaway is ErrorCode.STREAM_CLOSED


def test_a_goaway_says_which_calls_were_taken() -> None:
    peer = Peer(call=EchoCall)
    peer.send(peer.request(1), peer.request(9), raw_frame(6, 0, 0, b""))
    (*_, goaway) = peer.read()
    assert isinstance(goaway, GoAwayFrame)
    assert goaway.last_stream_id == 9
