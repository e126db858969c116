from __future__ import annotations

import pytest
from erg_server.transports.grpc.frames import MAX_STREAM, PREFACE, ErrorCode
from erg_server.transports.grpc.limits import Limits
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame

from tests.server.transports.grpc.peer import Peer, data, kinds, message, ping, raw_frame, settings, window
from tests.server.transports.grpc.served import STREAM, infer, peer_of, transport

STALL_S = Limits().stall_s
CALM = ErrorCode.ENHANCE_YOUR_CALM


def test_a_peer_that_never_says_hello_is_turned_away() -> None:
    for begun in (b"", PREFACE[:10], PREFACE):
        peer = Peer(greet=False)
        peer.send(begun)
        peer.look(9)
        assert not peer.connection.closing
        peer.look(2)
        assert peer.goaway is ErrorCode.PROTOCOL_ERROR
        assert peer.connection.closing


@pytest.mark.parametrize("begun", [b"\0\0", raw_frame(6, 0, 0, bytes(8))[:12], raw_frame(1, 0, 1, b"\x82")])
def test_a_frame_or_block_that_does_not_end_is_timed_however_it_trickles(begun: bytes) -> None:
    peer = Peer()
    peer.send(begun)
    peer.look(STALL_S - 1)
    assert peer.goaway is None
    peer.look(2)
    assert peer.goaway is CALM


@pytest.mark.parametrize("path", ["unary", "stream"])
@pytest.mark.parametrize("trickle", [0, 1, 100])
async def test_a_slow_writer_loses_its_stream_and_not_its_connection(path: str, trickle: int) -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, STREAM) if path == "stream" else peer.headers(1))
    body = message(infer("x" * 100_000))
    peer.send(data(1, body[:9]))
    for second in range(int(STALL_S) + 2):
        assert peer.reset_of(1) is None or second > STALL_S
        # Something else goes on all the time.
        now_ns = peer.clock.advance(10**9)
        peer.send(ping(), data(1, body[9 + second * trickle : 9 + (second + 1) * trickle]) if trickle else b"")
        peer.watch.look(now_ns, socket_bytes=0, paused_ns=None)
    assert peer.reset_of(1) is CALM
    assert not peer.connection.closing
    assert peer.connection.held_bytes == 0


async def test_a_writer_that_goes_on_is_left_alone() -> None:
    peer = peer_of(transport())
    body = message(infer("x" * 2_000_000))
    peer.send(peer.headers(1))
    for second in range(100):
        peer.send(data(1, body[second * 10_000 : (second + 1) * 10_000]))
        peer.look(1)
    assert peer.reset_of(1) is None


async def test_a_stream_between_messages_may_be_quiet() -> None:
    peer = peer_of(transport())
    peer.send(peer.headers(1, STREAM), data(1, message(infer("x"))))
    for _ in range(200):
        peer.look(1)
    assert peer.reset_of(1) is None


def test_a_unary_call_whose_handler_works_is_left_alone() -> None:
    peer = Peer()
    peer.send(peer.request(1, b"x"))
    for _ in range(200):
        assert peer.look(1)
    assert peer.reset_of(1) is None
    assert not peer.calls[1].is_cancelled


def test_a_stream_whose_window_stays_closed_is_reset() -> None:
    peer = Peer()
    peer.send(settings({4: 10}), peer.request(1), peer.request(3))
    peer.calls[1].answer(bytes(100))
    for second in range(int(STALL_S) + 2):
        assert peer.reset_of(1) is None or second > STALL_S
        peer.look(1)
        peer.send(window(1, 1))
    assert peer.reset_of(1) is CALM
    assert not peer.calls[3].is_cancelled
    assert peer.connection.held_bytes == 0


def test_a_connection_whose_window_stays_closed_is_closed() -> None:
    peer = Peer()
    peer.send(settings({4: 1 << 20}), peer.request(1))
    peer.calls[1].answer(bytes(200_000))
    for _ in range(int(STALL_S) + 2):
        peer.read()
        peer.look(1)
        peer.send(window(0, 1) if not peer.connection.closing else b"")
    assert peer.goaway is CALM
    assert peer.connection.held_bytes == 0


def test_a_reader_that_goes_on_is_left_alone() -> None:
    peer = Peer()
    peer.send(settings({4: 1 << 30}), peer.request(1))
    peer.calls[1].answer(bytes(2_000_000))
    for _ in range(150):
        peer.read()
        peer.look(1)
        peer.send(window(0, 2000))
    assert peer.goaway is None


def test_a_socket_that_takes_nothing_is_torn_down() -> None:
    peer = Peer()
    assert peer.look(1, socket_bytes=1000)
    assert peer.look(STALL_S - 1, socket_bytes=1000)
    assert not peer.look(2, socket_bytes=1000)


def test_a_socket_that_stays_full_is_torn_down_even_where_it_takes_a_little() -> None:
    peer = Peer()
    paused_ns = peer.clock.now_ns()
    for second in range(int(STALL_S)):
        assert peer.look(1, socket_bytes=300_000 - second, paused_ns=paused_ns)
    assert not peer.look(1, socket_bytes=200_000, paused_ns=paused_ns)


def test_an_idle_connection_is_told_to_go_and_what_was_under_way_is_answered() -> None:
    peer = Peer(limits=Limits(idle_s=5))
    peer.look(4)
    assert peer.read() == []
    peer.look(2)
    first, asked = peer.read()
    assert isinstance(first, GoAwayFrame)
    assert (first.last_stream_id, first.error_code) == ((1 << 31) - 1, 0)
    assert isinstance(asked, PingFrame)
    # What the peer had begun before it knew may be written behind its answer, as gRPC's C core does.
    peer.send(peer.request(1, b"under way"), raw_frame(6, 1, 0, asked.opaque_data), peer.request(3, b"behind it"))
    (again,) = peer.read()
    assert isinstance(again, PingFrame)
    assert again.opaque_data != asked.opaque_data
    peer.send(raw_frame(6, 1, 0, again.opaque_data), peer.request(5, b"after it knew"))
    (last,) = peer.read()
    assert isinstance(last, GoAwayFrame)
    assert last.last_stream_id == 3
    for number in (1, 3):
        assert not peer.connection.closing
        peer.calls[number].answer(b"done")
    assert peer.calls.keys() == {1, 3}
    assert peer.connection.closing


@pytest.mark.parametrize("greet", [True, False])
def test_a_peer_that_does_not_answer_is_drained_soon_however_long_it_was_at_rest(greet: bool) -> None:
    peer = at_rest() if greet else Peer(greet=False)
    peer.connection.retire()

    def last_streams() -> list[int]:
        peer.read()
        return [frame.last_stream_id for frame in peer.received if isinstance(frame, GoAwayFrame)]

    assert peer.look(4)
    assert last_streams() == [MAX_STREAM]
    assert peer.look(2)
    assert last_streams() == [MAX_STREAM, 0]
    assert peer.connection.closing


def test_the_grace_of_an_old_connection_does_not_cut_off_calls_of_a_server_that_ends() -> None:
    peer = Peer(limits=Limits(age_s=100, age_grace_s=30))
    peer.send(peer.request(1))
    peer.connection.retire()
    peer.look(200)
    assert peer.connection.draining
    assert not peer.calls[1].is_cancelled


def test_a_connection_with_a_call_is_not_idle() -> None:
    peer = Peer(limits=Limits(idle_s=5))
    peer.send(peer.headers(1, STREAM))
    peer.look(30)
    assert peer.goaway is None


def test_an_old_connection_is_drained_and_its_last_calls_have_their_grace() -> None:
    peer = Peer(limits=Limits(age_s=100, age_grace_s=30, keepalive_timeout_s=5))
    peer.send(peer.request(1))
    peer.read()
    peer.look(99)
    assert peer.read() == []
    peer.look(2)
    assert peer.connection.retiring
    # Whoever does not answer the ping has had time to hear of it.
    peer.look(6)
    assert peer.connection.draining
    assert 1 in peer.connection.streams
    peer.look(30)
    assert peer.connection.closing
    assert peer.calls[1].is_cancelled
    assert peer.goaway is ErrorCode.NO_ERROR


def test_a_peer_is_asked_after_silence_and_dropped_without_an_answer() -> None:
    limits = Limits(keepalive_s=60, keepalive_timeout_s=10)
    peer = Peer(limits=limits)
    assert peer.look(59)
    assert peer.read() == []
    assert peer.look(2)
    assert kinds(peer.read()) == [PingFrame]
    assert peer.look(9)
    assert peer.read() == []
    peer.send(raw_frame(6, 1, 0, b"erg-ping"))
    assert peer.look(30)
    assert peer.look(31)
    assert kinds(peer.read()) == [PingFrame]
    assert not peer.look(11)


def test_a_goaway_of_the_peer_is_answered_and_its_open_calls_too() -> None:
    peer = Peer()
    peer.send(peer.request(1), raw_frame(7, 0, 0, bytes(8)))
    (answer,) = peer.read()
    assert isinstance(answer, GoAwayFrame)
    assert answer.last_stream_id == 1
    peer.calls[1].answer(b"last")
    assert kinds(peer.read())[0] is HeadersFrame
    assert peer.connection.closing


def test_a_goaway_never_promises_more_than_the_one_before() -> None:
    peer = Peer()
    peer.send(peer.headers(1))
    peer.connection.drain()
    peer.send(peer.headers(3), raw_frame(5, 4, 3))
    last = [frame for frame in peer.read() if isinstance(frame, GoAwayFrame)]
    assert [frame.last_stream_id for frame in last] == [1, 1]


def at_rest(limits: Limits | None = None) -> Peer:
    """A peer that a watch has found at rest."""
    peer = Peer(limits=limits)
    peer.send(ping())
    peer.read()
    assert peer.look(1)
    assert peer.watch._rests_until_ns > peer.clock.now_ns()
    return peer


@pytest.mark.parametrize("limits", [Limits(idle_s=100), Limits(age_s=100), Limits(keepalive_s=100)])
def test_a_connection_at_rest_is_looked_at_again_when_something_is_due(limits: Limits) -> None:
    peer = at_rest(limits)
    assert peer.look(98)
    assert not peer.connection.outbox.frames
    assert peer.look(3)
    assert peer.connection.outbox.frames


def test_after_a_long_rest_a_window_that_stays_closed_is_timed_from_then() -> None:
    peer = at_rest()
    assert peer.look(3600)
    peer.send(settings({4: 1 << 20}), peer.request(1))
    peer.calls[1].answer(bytes(200_000))
    peer.read()
    assert peer.look(1)
    assert peer.look(STALL_S - 1)
    assert peer.goaway is None
    peer.look(2)
    peer.read()
    assert peer.goaway is CALM


def test_after_a_long_rest_a_frame_that_does_not_end_is_timed_from_then() -> None:
    peer = at_rest()
    assert peer.look(3600)
    peer.send(raw_frame(6, 0, 0, bytes(8))[:12])
    peer.look(STALL_S - 1)
    peer.read()
    assert peer.goaway is None
    peer.look(2)
    peer.read()
    assert peer.goaway is CALM
