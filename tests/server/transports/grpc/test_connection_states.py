"""Every frame in every state of its connection: for no stream, the server's or one after GOAWAY, inside a block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from erg_server.transports.grpc.frames import MAX_STREAM, ErrorCode
from hyperframe.frame import GoAwayFrame, HeadersFrame

from tests.server.transports.grpc.peer import EchoCall, Peer, data, message, raw_frame, settings, window

FRAMES: dict[str, Callable[[Peer, int], bytes]] = {
    "data": lambda _, number: raw_frame(0, 0, number, b"x"),
    "data_end": lambda _, number: raw_frame(0, 1, number, b"x"),
    "headers": lambda peer, number: raw_frame(1, 4, number, peer.headers(1).data),
    "trailers": lambda peer, number: raw_frame(1, 5, number, peer.headers(1, [("a", "b")]).data),
    "priority": lambda _, number: raw_frame(2, 0, number, bytes(5)),
    "rst_stream": lambda _, number: raw_frame(3, 0, number, bytes(4)),
    "settings": lambda _, number: raw_frame(4, 0, number),
    "push_promise": lambda _, number: raw_frame(5, 4, number, bytes(4)),
    "ping": lambda _, number: raw_frame(6, 0, number, bytes(8)),
    "goaway": lambda _, number: raw_frame(7, 0, number, bytes(8)),
    "window_update": lambda _, number: raw_frame(8, 0, number, b"\0\0\0\1"),
    "continuation": lambda _, number: raw_frame(9, 4, number),
    "unknown": lambda _, number: raw_frame(0xBB, 0xFF, number, b"?"),
}
FOR_STREAMS = {"data", "data_end", "headers", "trailers", "priority", "rst_stream", "push_promise", "continuation"}
NEITHER = {"settings", "push_promise", "ping", "goaway", "continuation"}
"""Wrong for any stream, whatever its state."""
STEPS = pytest.mark.parametrize("step", [None, 1])
EACH = pytest.mark.parametrize("name", FRAMES)


def serves(peer: Peer, number: int) -> bool:
    """Whether the connection goes on, its header tables as they should be."""
    peer.send(peer.request(number, b"next"))
    peer.calls[number].answer(b"there")
    peer.read_all()
    return peer.answers[number].body == message(b"there")


@STEPS
@EACH
def test_a_frame_for_no_stream_is_the_connections_or_a_fault(name: str, step: int | None) -> None:
    peer = Peer()
    peer.send(FRAMES[name](peer, 0), step=step)
    if name in FOR_STREAMS:
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR
    elif name == "goaway":
        assert peer.connection.closing
        assert peer.connection.fault is None
    else:
        assert serves(peer, 1)


@STEPS
@EACH
def test_a_client_has_no_streams_of_even_numbers(name: str, step: int | None) -> None:
    peer = Peer()
    peer.send(peer.request(5))
    peer.send(FRAMES[name](peer, 4), step=step)
    if name in {"priority", "unknown"}:
        assert serves(peer, 7)
    else:
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR


@STEPS
@EACH
@pytest.mark.parametrize("number", [0, 3, 5], ids=["no stream", "its own stream", "another stream"])
def test_a_header_block_is_interrupted_by_nothing(number: int, name: str, step: int | None) -> None:
    peer = Peer()
    peer.send(peer.request(1))
    block = peer.headers(3).data
    peer.send(HeadersFrame(3, block, flags=[]))
    peer.send(FRAMES[name](peer, number), step=step)
    if (name, number) == ("continuation", 3):
        assert peer.connection.streams.keys() == {1, 3}
        assert serves(peer, 5)
    else:
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR
        assert peer.calls[1].is_cancelled


ANSWERING = {
    # The caller has said all that it has to say, and waits for an answer that its window holds.
    True: {"data": "rst", "data_end": "rst", "headers": "rst", "trailers": "rst"},
    # It has not: DATA and trailers are still its right, a second request is not.
    False: {"data": "goes on", "data_end": "goes on", "headers": "rst", "trailers": "goes on"},
}


@STEPS
@EACH
@pytest.mark.parametrize("ended", ANSWERING, ids=["its request has ended", "its request goes on"])
def test_a_frame_for_a_stream_whose_answer_waits(name: str, ended: bool, step: int | None) -> None:
    peer = Peer()
    peer.send(settings({4: 0}))
    peer.send(peer.headers(3), data(3, b"x", end=ended))
    peer.calls[3].answer(b"held")
    peer.read()
    peer.send(FRAMES[name](peer, 3), step=step)
    if name in NEITHER:
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR
        assert peer.calls[3].is_cancelled
    elif ANSWERING[ended].get(name) == "rst":
        assert peer.reset_of(3) is (ErrorCode.STREAM_CLOSED if ended else ErrorCode.PROTOCOL_ERROR)
    elif name == "rst_stream":
        assert not peer.connection.streams
    else:
        peer.send(window(3, 100))
        peer.read_all()
        assert (peer.answers[3].body, peer.answers[3].status) == (message(b"held"), "0")
    assert (name in NEITHER) == peer.connection.closing
    if not peer.connection.closing:
        # What was held for the stream is given back, and the next one has a window of its own.
        assert peer.connection.held_bytes == 0
        peer.send(settings({4: 1000}))
        assert serves(peer, 5)


@STEPS
@EACH
def test_a_stream_after_a_final_goaway_is_ignored_whatever_it_sends(name: str, step: int | None) -> None:
    peer = Peer()
    peer.send(peer.request(1))
    peer.connection.drain()
    peer.send(peer.headers(3))
    peer.read()
    peer.send(FRAMES[name](peer, 3), step=step)
    if name in NEITHER:
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR
        return
    assert peer.read() == []
    assert peer.calls.keys() == {1}
    peer.calls[1].answer(b"promised")
    peer.read()
    assert peer.answers[1].body == message(b"promised")
    assert peer.connection.closing


@EACH
def test_a_retiring_connection_serves_what_crosses_its_goaway(name: str) -> None:
    peer = Peer(call=EchoCall)
    peer.connection.retire()
    (first, _) = peer.read()
    assert isinstance(first, GoAwayFrame)
    assert first.last_stream_id == MAX_STREAM
    peer.send(peer.headers(1))
    peer.send(FRAMES[name](peer, 1))
    assert (peer.goaway is ErrorCode.PROTOCOL_ERROR) == (name in NEITHER)
    if name not in NEITHER:
        peer.send(peer.request(3, b"late"))
        peer.read()
        assert peer.answers[3].body == message(b"late")


SIZES = {
    "PRIORITY": (2, 1, {5}, ErrorCode.FRAME_SIZE_ERROR),
    "RST_STREAM": (3, 1, {4}, ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS": (4, 0, {0, 6, 12, 18}, ErrorCode.FRAME_SIZE_ERROR),
    "PING": (6, 0, {8}, ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY": (7, 0, set(range(8, 20)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE": (8, 0, {4}, ErrorCode.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", range(20))
def test_a_frame_of_any_size_but_its_own_is_a_size_error(name: str, size: int) -> None:
    kind, number, right, code = SIZES[name]
    for step in (None, 1):
        peer = Peer()
        peer.send(peer.headers(1))
        # Settings of the unknown parameter 0x101, a window that opens by 0x1010101, and so on: any values will do.
        peer.send(raw_frame(kind, 0, number, b"\1" * size), step=step)
        if size in right:
            assert peer.goaway in {None, ErrorCode.NO_ERROR}
        elif name == "PRIORITY":
            # The only one that is a stream's fault alone (RFC 9113, 6.3).
            assert peer.reset_of(1) is code
            assert serves(peer, 3)
        else:
            assert peer.goaway is code
