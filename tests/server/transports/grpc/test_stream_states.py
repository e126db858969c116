"""Every frame in every state that a stream may be in (RFC 9113, sections 5.1 and 6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from erg_server.transports.grpc.frames import ErrorCode
from erg_server.transports.grpc.limits import Limits
from hyperframe.frame import HeadersFrame

from tests.server.transports.grpc.peer import EchoCall, Peer, continuation, data, raw_frame, reset, settings, window

NUMBER = 3


def idle(_: Peer) -> None:
    pass


def open_stream(peer: Peer) -> None:
    peer.send(peer.headers(NUMBER))


def half_closed(peer: Peer) -> None:
    peer.send(peer.request(NUMBER, b"body"))


def answered(peer: Peer) -> None:
    half_closed(peer)
    peer.calls[NUMBER].answer(b"done")


def reset_by_peer(peer: Peer) -> None:
    open_stream(peer)
    peer.send(reset(NUMBER))


def reset_by_us(peer: Peer) -> None:
    open_stream(peer)
    peer.connection.reset(peer.connection.streams[NUMBER], ErrorCode.CANCEL)


def refused(peer: Peer) -> None:
    peer.send(peer.headers(NUMBER, [(":method", "POST")]))


STATES: dict[str, Callable[[Peer], None]] = {
    kind.__name__: kind for kind in (idle, open_stream, half_closed, answered, reset_by_peer, reset_by_us, refused)
}
FRAMES: dict[str, Callable[[Peer], bytes]] = {
    "data": lambda _: data(NUMBER, b"x").serialize(),
    "data_end": lambda _: data(NUMBER, b"x", end=True).serialize(),
    "data_padded": lambda _: data(NUMBER, b"x", padding=5).serialize(),
    "headers": lambda peer: peer.headers(NUMBER).serialize(),
    "trailers": lambda peer: peer.headers(NUMBER, [("a", "b")], end=True).serialize(),
    "priority": lambda _: raw_frame(2, 0, NUMBER, bytes(5)),
    "priority_short": lambda _: raw_frame(2, 0, NUMBER, bytes(4)),
    "rst_stream": lambda _: reset(NUMBER).serialize(),
    "settings": lambda _: raw_frame(4, 0, NUMBER),
    "push_promise": lambda _: raw_frame(5, 4, NUMBER, bytes(4)),
    "ping": lambda _: raw_frame(6, 0, NUMBER, bytes(8)),
    "goaway": lambda _: raw_frame(7, 0, NUMBER, bytes(8)),
    "window_update": lambda _: window(NUMBER, 10).serialize(),
    "window_update_nothing": lambda _: raw_frame(8, 0, NUMBER, bytes(4)),
    "window_update_overflow": lambda _: window(NUMBER, (1 << 31) - 1).serialize(),
    "continuation": lambda _: continuation(NUMBER, b"", end=True).serialize(),
    "unknown": lambda _: raw_frame(0xBB, 0, NUMBER, b"?"),
}
FINE = None
P, C, F, S = ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED, ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.FRAME_SIZE_ERROR
GOAWAY, RST = "goaway", "rst"
ANYWHERE = {
    "settings": (GOAWAY, P),
    "push_promise": (GOAWAY, P),
    "ping": (GOAWAY, P),
    "goaway": (GOAWAY, P),
    "continuation": (GOAWAY, P),
    "priority": FINE,
    "priority_short": FINE,
    "unknown": FINE,
}
UNOPENED = ("rst_stream", "window_update", "window_update_nothing", "window_update_overflow")
OPEN = {
    "rst_stream": FINE,
    "priority_short": (RST, S),
    "window_update": FINE,
    "window_update_nothing": (RST, P),
    "window_update_overflow": (RST, F),
}
ENDED = dict.fromkeys(UNOPENED, FINE)
LATE = {"data": (RST, C), "data_end": (RST, C), "data_padded": (RST, C)}
IGNORED = dict.fromkeys(("data", "data_end", "data_padded", "headers", "trailers"), FINE)
EXPECTED: dict[str, dict[str, tuple[str, ErrorCode] | None]] = {
    "idle": {
        **ANYWHERE,
        **dict.fromkeys((*UNOPENED, "data", "data_end", "data_padded"), (GOAWAY, P)),
        # Against RFC 9113, 6.4: gRPC's C core resets calls whose HEADERS it never sent.
        "rst_stream": FINE,
        "headers": FINE,
        # Without a :path it is no request.
        "trailers": (RST, P),
    },
    "open_stream": {**ANYWHERE, **OPEN, **IGNORED, "headers": (RST, P)},
    "half_closed": {**ANYWHERE, **OPEN, **LATE, "headers": (RST, C), "trailers": (RST, C)},
    "answered": {**ANYWHERE, **ENDED, **LATE, "headers": (GOAWAY, C), "trailers": (GOAWAY, C)},
    "reset_by_peer": {**ANYWHERE, **ENDED, **LATE, "headers": (GOAWAY, C), "trailers": (GOAWAY, C)},
    "reset_by_us": {**ANYWHERE, **ENDED, **IGNORED},
    "refused": {**ANYWHERE, **ENDED, **IGNORED},
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("step", [None, 1])
def test_a_frame_means_what_the_state_of_its_stream_says(state: str, name: str, step: int | None) -> None:
    peer = Peer()
    STATES[state](peer)
    peer.read()
    peer.answers.clear()
    before = dict(peer.calls)
    peer.send(FRAMES[name](peer), step=step)
    found: tuple[str, ErrorCode] | None = None
    if (code := peer.goaway) is not None:
        found = GOAWAY, code
    elif (code := peer.reset_of(NUMBER)) is not None:
        found = RST, code
    assert found == EXPECTED[state][name]
    if found is not None and found[0] == RST and state in {"open_stream", "half_closed"}:
        assert before[NUMBER].is_cancelled
        assert not peer.connection.streams
    if found is not None and found[0] == GOAWAY:
        assert peer.connection.closing
        assert all(call.is_cancelled for call in before.values() if call.stream.number in peer.connection.streams)
    else:
        # The connection goes on, its header tables and windows as they should be.
        peer.send(peer.request(NUMBER + 2, b"next"))
        peer.calls[NUMBER + 2].answer(b"there")
        peer.read()
        assert peer.answers[NUMBER + 2].body[5:] == b"there"


def test_resets_of_calls_that_never_came_are_bounded_as_all_resets_are() -> None:
    peer = Peer(limits=Limits(resets=10))
    for number in range(1, 21, 2):
        peer.send(reset(number))
    peer.read()
    assert peer.goaway is None
    peer.send(reset(21))
    peer.read()
    assert peer.goaway is ErrorCode.ENHANCE_YOUR_CALM


def test_no_state_loses_what_the_connection_may_receive() -> None:
    """Every byte of DATA comes back as credit, whatever becomes of its stream."""
    peer = Peer(call=EchoCall)
    sent = 0
    number = 1
    payload = bytes(16_000)
    while sent < 3 * peer.connection.limits.connection_window_bytes:
        peer.send(peer.headers(number))
        peer.send(data(number, payload), data(number, payload, padding=255))
        peer.connection.reset(peer.connection.streams[number], ErrorCode.CANCEL)
        peer.send(data(number, payload), data(number, payload, padding=255))
        peer.send(data(number, payload[:-1], padding=0, end=True))
        sent += 5 * len(payload) + 512
        number += 2
        peer.read()
        assert peer.connection.fault is None
    assert number > 600


def test_settings_before_a_stream_opens_are_its_windows() -> None:
    peer = Peer()
    peer.send(settings({4: 3}))
    peer.send(peer.request(1))
    peer.calls[1].answer(b"12345")
    peer.read()
    assert peer.answers[1].body == b"\0\0\0"
    assert isinstance(peer.received[-2], HeadersFrame)
