"""What a peer may do before it is turned away, each limit with the code that says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from erg_server.transports.grpc.frames import ErrorCode
from erg_server.transports.grpc.limits import Budget, Limits
from hyperframe.frame import HeadersFrame

from tests.server.transports.grpc.peer import (
    REQUEST,
    SECOND_NS,
    EchoCall,
    Peer,
    continuation,
    data,
    ping,
    raw_frame,
    reset,
    settings,
    window,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM
FLOODS: dict[str, Callable[[int], bytes]] = {
    "ping": lambda _: ping().serialize(),
    "ping_ack": lambda _: raw_frame(6, 1, 0, bytes(8)),
    "settings": lambda _: settings({4: 1}).serialize(),
    "settings_ack": lambda _: raw_frame(4, 1, 0),
    "priority": lambda number: raw_frame(2, 0, number * 2 + 1, bytes(5)),
    "empty_data": lambda _: data(1).serialize(),
    "padding_only": lambda _: data(1, padding=200).serialize(),
    "unknown": lambda _: raw_frame(0xCC, 0, 0, b"grease"),
    "goaway": lambda _: raw_frame(7, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_frames_that_cost_and_earn_nothing_are_bounded_and_come_back_with_time(name: str) -> None:
    limits = Limits(control_frames=50, control_frames_per_s=10)
    peer = Peer(limits=limits)
    peer.send(peer.headers(1))
    for number in range(40):
        peer.send(FLOODS[name](number))
    assert peer.goaway in {None, ErrorCode.NO_ERROR}
    peer.clock.advance(5 * SECOND_NS)
    for number in range(49):
        peer.send(FLOODS[name](number))
    assert peer.goaway in {None, ErrorCode.NO_ERROR}
    for number in range(10):
        peer.send(FLOODS[name](number))
    assert peer.goaway is CALM
    assert peer.calls[1].is_cancelled


def test_rapid_reset_is_turned_away() -> None:
    peer = Peer(limits=Limits(resets=20, resets_per_s=1))
    for number in range(1, 43, 2):
        assert peer.goaway is None
        peer.send(peer.headers(number), reset(number))
    assert peer.goaway is CALM
    assert len(peer.calls) == 21


def test_who_lets_calls_be_answered_may_reset_others() -> None:
    peer = Peer(limits=Limits(resets=4, resets_per_s=1))
    for number in range(1, 4000, 4):
        peer.send(peer.request(number))
        peer.calls[number].answer(b"")
        peer.send(peer.headers(number + 2), reset(number + 2))
        peer.read()
    assert peer.goaway is None


@pytest.mark.parametrize(
    "provoke",
    [
        lambda number: raw_frame(8, 0, number, bytes(4)),
        lambda number: window(number, (1 << 31) - 1).serialize(),
        lambda number: raw_frame(2, 0, number, bytes(3)),
    ],
)
def test_streams_that_the_peer_has_us_reset_are_bounded(provoke: Callable[[int], bytes]) -> None:
    peer = Peer(limits=Limits(control_frames=20, control_frames_per_s=1))
    for number in range(1, 61, 2):
        peer.send(peer.headers(number), provoke(number))
    assert peer.goaway is CALM
    assert all(call.is_cancelled for call in peer.calls.values())
    assert len(peer.calls) <= 22


def test_streams_over_the_limit_are_refused_and_those_within_go_on() -> None:
    peer = Peer(limits=Limits(concurrent_streams=3))
    peer.send(*(peer.headers(number) for number in (1, 3, 5, 7)))
    assert peer.reset_of(7) is ErrorCode.REFUSED_STREAM
    peer.send(data(1, b"x", end=True))
    peer.calls[1].answer(b"")
    peer.send(peer.headers(9))
    assert peer.reset_of(9) is None
    assert set(peer.calls) == {1, 3, 5, 9}


def test_refused_streams_are_bounded() -> None:
    peer = Peer(limits=Limits(concurrent_streams=1, control_frames=20, control_frames_per_s=1))
    for number in range(1, 101, 2):
        peer.send(peer.headers(number))
    assert peer.goaway is CALM


def test_a_header_block_in_too_many_frames_is_turned_away() -> None:
    peer = Peer(limits=Limits(continuation_frames=8))
    peer.send(HeadersFrame(1, b"", flags=[]))
    for _ in range(9):
        peer.send(continuation(1, b"", end=False))
    assert peer.goaway is CALM


@pytest.mark.parametrize("part", [1000, 16_000])
def test_a_header_block_that_does_not_end_is_turned_away_before_it_is_kept(part: int) -> None:
    peer = Peer(limits=Limits(header_bytes=20_000))
    peer.send(HeadersFrame(1, bytes(part), flags=[]))
    sent = part
    while not peer.connection.closing:
        peer.send(continuation(1, bytes(part), end=False))
        sent += part
    assert sent <= 20_000 + part
    assert peer.goaway is CALM


@pytest.mark.parametrize("kind", [1, 9, 4, 7, 0xCC])
@pytest.mark.parametrize("step", [None, 500])
def test_no_frame_but_data_is_gathered_beyond_what_headers_need(kind: int, step: int | None) -> None:
    peer = Peer(limits=Limits(header_bytes=2000))
    if kind == 9:
        peer.send(HeadersFrame(1, b"", flags=[]))
    peer.send(raw_frame(kind, 0, 1 if kind in {1, 9} else 0, bytes(6000)), step=step)
    assert peer.goaway is CALM


def test_a_header_list_over_the_limit_is_turned_away() -> None:
    peer = Peer(limits=Limits(header_bytes=2000))
    peer.send(peer.headers(1, [*REQUEST, ("a", "0" * 1900)]))
    assert peer.goaway is CALM


def test_more_than_the_connections_window_is_a_fault() -> None:
    peer = Peer(limits=Limits(connection_window_bytes=100_000, stream_window_bytes=1 << 20))

    class Keeps(EchoCall):
        def data(self, payload: memoryview, *, end_stream: bool) -> None:
            self.body += bytes(payload)

    peer._call = Keeps
    peer.send(peer.headers(1))
    peer.send(data(1, bytes(100_000)))
    assert peer.goaway is None
    peer.send(data(1, b"x"))
    assert peer.goaway is ErrorCode.FLOW_CONTROL_ERROR


def test_more_than_a_streams_window_resets_it() -> None:
    peer = Peer(limits=Limits(stream_window_bytes=70_000))
    peer.send(peer.headers(1), data(1, bytes(70_000)), data(1, b"x"))
    assert peer.reset_of(1) is ErrorCode.FLOW_CONTROL_ERROR
    assert not peer.connection.closing


def test_streams_after_a_final_goaway_are_ignored_but_not_without_end() -> None:
    peer = Peer(limits=Limits(concurrent_streams=10))
    peer.send(peer.headers(1))
    peer.connection.drain()
    for number in range(3, 23, 2):
        peer.send(peer.request(number, b"x"))
    assert peer.goaway is ErrorCode.NO_ERROR
    assert set(peer.calls) == {1}
    peer.send(peer.request(23, b"x"))
    assert peer.goaway is CALM


def test_a_budget_never_grows_beyond_its_size() -> None:
    budget = Budget(2, 1, 0)
    assert [budget.spend(1000 * SECOND_NS) for _ in range(3)] == [True, True, False]
    budget.earn()
    budget.earn()
    assert budget.spend(1000 * SECOND_NS)
