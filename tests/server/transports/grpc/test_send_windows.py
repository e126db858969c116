from __future__ import annotations

import pytest
from erg_server.transports.grpc.frames import DEFAULT_WINDOW, MAX_WINDOW, ErrorCode
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.outbox import CHUNK_BYTES, QUEUE_BYTES
from hyperframe.frame import DataFrame, HeadersFrame

from tests.server.transports.grpc.peer import Peer, data, kinds, message, reset, settings, window


def asked(peer: Peer, *numbers: int) -> None:
    for number in numbers:
        peer.send(peer.request(number))


def test_a_closed_window_lets_headers_through_and_holds_the_rest() -> None:
    peer = Peer()
    peer.send(settings({4: 0}))
    asked(peer, 1)
    peer.read()
    peer.calls[1].answer(b"held")
    assert kinds(peer.read()) == [HeadersFrame]
    assert peer.connection.held_bytes == 9
    peer.send(window(1, 9))
    assert kinds(peer.read()) == [DataFrame, HeadersFrame]
    assert peer.answers[1].body == message(b"held")
    assert peer.answers[1].status == "0"
    assert peer.connection.held_bytes == 0


def test_a_window_of_one_lets_a_byte_through_at_a_time() -> None:
    peer = Peer()
    peer.send(settings({4: 1}))
    asked(peer, 1)
    peer.calls[1].answer(b"slow")
    peer.read()
    for count in range(1, 9):
        assert len(peer.answers[1].body) == count
        peer.send(window(1, 1))
        peer.read()
    assert peer.answers[1].body == message(b"slow")
    assert peer.answers[1].status == "0"


def test_the_connections_window_bounds_all_streams_together() -> None:
    peer = Peer()
    peer.send(settings({4: MAX_WINDOW}))
    asked(peer, 1, 3)
    peer.calls[1].answer(bytes(40_000))
    peer.calls[3].answer(bytes(40_000))
    peer.read_all()
    assert sum(len(answer.body) for answer in peer.answers.values()) == DEFAULT_WINDOW
    peer.send(window(0, 1))
    peer.read_all()
    assert sum(len(answer.body) for answer in peer.answers.values()) == DEFAULT_WINDOW + 1
    peer.send(window(0, 100_000))
    peer.read_all()
    assert [len(peer.answers[number].body) for number in (1, 3)] == [40_005, 40_005]


def test_streams_take_turns() -> None:
    peer = Peer()
    peer.send(settings({4: MAX_WINDOW, 5: 1 << 20}))
    asked(peer, 1, 3, 5)
    peer.read()
    peer.connection.outbox.window = 0
    for number in (1, 3, 5):
        peer.calls[number].answer(bytes(4 * CHUNK_BYTES))
    peer.send(window(0, 100 * CHUNK_BYTES))
    order = [frame.stream_id for frame in peer.read_all() if isinstance(frame, DataFrame)]
    assert order[:12] == [1, 3, 5] * 4


def test_a_small_answer_does_not_wait_for_a_large_one() -> None:
    peer = Peer()
    peer.send(settings({4: MAX_WINDOW}), window(0, MAX_WINDOW - DEFAULT_WINDOW))
    asked(peer, 1, 3)
    peer.calls[1].answer(bytes(8 << 20))
    peer.calls[3].answer(b"small")
    sent_before = 0
    while 3 not in peer.answers or peer.answers[3].status is None:
        found = peer.read()
        sent_before += sum(len(frame.data) for frame in found if isinstance(frame, DataFrame))
        peer.connection.outbox.pump()
    assert sent_before <= 3 * QUEUE_BYTES


def test_a_stream_that_takes_nothing_does_not_stop_the_others() -> None:
    peer = Peer()
    asked(peer, 1)
    peer.send(settings({4: 0}))
    peer.calls[1].answer(b"stuck")
    peer.send(settings({4: 1000}))
    asked(peer, 3)
    peer.calls[3].answer(b"goes")
    peer.read()
    assert peer.answers[3].status == "0"


def test_many_stuck_streams_cost_nothing_when_the_connection_opens_by_bytes() -> None:
    peer = Peer()
    peer.send(settings({4: 0}))
    asked(peer, *range(1, 2000, 2))
    for call in peer.calls.values():
        call.answer(b"stuck")
    assert not peer.connection.outbox.blocked
    peer.send(window(0, 1))
    peer.read()
    peer.send(window(1, 100), *(window(number, 100) for number in range(1999, 1, -2)))
    peer.read_all()
    assert all(answer.status == "0" for answer in peer.answers.values())


def test_settings_shift_the_windows_of_open_streams_below_zero_and_back() -> None:
    peer = Peer()
    asked(peer, 1)
    peer.calls[1].answer(bytes(70_000))
    peer.read_all()
    peer.send(window(0, 100_000), settings({4: 0}))
    assert peer.connection.streams[1].send_left == -DEFAULT_WINDOW
    peer.send(window(1, DEFAULT_WINDOW))
    peer.read_all()
    assert len(peer.answers[1].body) == DEFAULT_WINDOW
    peer.send(settings({4: 10}))
    peer.read_all()
    assert len(peer.answers[1].body) == DEFAULT_WINDOW + 10
    peer.send(settings({4: 100_000}))
    peer.read_all()
    assert peer.answers[1].body == message(bytes(70_000))


def test_only_the_last_of_one_settings_values_counts() -> None:
    peer = Peer()
    asked(peer, 1)
    peer.calls[1].answer(bytes(70_000))
    many = b"".join(
        (4).to_bytes(2, "big") + value.to_bytes(4, "big") for value in [MAX_WINDOW, *range(1000), DEFAULT_WINDOW]
    )
    peer.send(len(many).to_bytes(3, "big") + b"\4\0\0\0\0\0" + many)
    assert peer.connection.fault is None
    assert peer.connection.outbox.initial_window == DEFAULT_WINDOW


@pytest.mark.parametrize("number", [0, 1])
def test_a_window_that_overflows_ends_what_it_belongs_to(number: int) -> None:
    peer = Peer()
    asked(peer, 1)
    peer.send(window(number, MAX_WINDOW))
    if number:
        assert peer.reset_of(1) is ErrorCode.FLOW_CONTROL_ERROR
        assert not peer.connection.closing
    else:
        assert peer.goaway is ErrorCode.FLOW_CONTROL_ERROR
    assert peer.calls[1].is_cancelled


def test_settings_that_overflow_a_streams_window_end_the_connection() -> None:
    peer = Peer()
    asked(peer, 1)
    peer.send(window(1, 1), settings({4: MAX_WINDOW}))
    assert peer.goaway is ErrorCode.FLOW_CONTROL_ERROR


def test_frames_are_as_large_as_the_peer_takes() -> None:
    peer = Peer()
    peer.send(settings({4: MAX_WINDOW}), window(0, 1 << 24))
    asked(peer, 1)
    peer.calls[1].answer(bytes(40_000))
    sizes = [len(frame.data) for frame in peer.read_all() if isinstance(frame, DataFrame)]
    assert max(sizes) == 16_384
    peer.send(settings({5: 1 << 20}))
    asked(peer, 3)
    peer.calls[3].answer(bytes(900_000))
    assert [len(frame.data) for frame in peer.read_all() if isinstance(frame, DataFrame)] == [900_005]


def test_headers_longer_than_a_frame_go_on_in_continuation() -> None:
    peer = Peer()
    asked(peer, 1)
    block = b"".join(b"\0\1%c\x7f\x81\x06" % name + b"v" * 1024 for name in b"abcdefghijklmnopqrstuvwxyz")
    stream = peer.connection.streams[1]
    peer.connection.outbox.trailers(stream, block)
    first, second = peer.connection.outbox.frames
    assert first[3:5] == b"\1\1"
    assert second[3:5] == b"\x09\4"
    assert bytes(first[9:]) + bytes(second[9:]) == block


def test_a_peer_that_keeps_no_table_is_told_that_none_is_used() -> None:
    peer = Peer()
    peer.send(settings({1: 0}))
    asked(peer, 1, 3)
    peer.connection.outbox.frames.clear()
    peer.calls[1].answer(b"a")
    frames = b"".join(peer.connection.outbox.frames)
    assert frames[9:11] == b"\x20\x88"
    peer.connection.outbox.frames.clear()
    peer.calls[3].answer(b"b")
    assert b"".join(peer.connection.outbox.frames)[9:10] == b"\x88"


def test_what_the_socket_does_not_take_stays_in_its_stream() -> None:
    peer = Peer()
    peer.send(settings({4: MAX_WINDOW, 5: 1 << 20}), window(0, 1 << 30))
    asked(peer, 1, 3)
    peer.read()
    outbox = peer.connection.outbox
    outbox.writable = False
    peer.calls[1].answer(bytes(500_000))
    assert peer.connection.held_bytes == 500_005
    assert kinds(peer.read()) == [HeadersFrame]
    outbox.writable = True
    peer.calls[3].answer(bytes(10 << 20))
    outbox.pump()
    assert outbox.queued_bytes <= QUEUE_BYTES + CHUNK_BYTES
    peer.read_all()
    assert [len(peer.answers[number].body) for number in (1, 3)] == [500_005, (10 << 20) + 5]
    assert peer.connection.held_bytes == peer.account.held_bytes == 0


def test_a_reset_drops_what_waited() -> None:
    peer = Peer()
    peer.send(settings({4: 0}))
    asked(peer, 1, 3)
    peer.calls[1].answer(bytes(1000))
    peer.calls[3].answer(bytes(1000))
    assert peer.connection.held_bytes == 2010
    peer.send(reset(1))
    assert peer.connection.held_bytes == 1005
    peer.connection.lost()
    assert peer.account.held_bytes == 0


def test_who_takes_no_answers_gets_no_new_calls() -> None:
    peer = Peer(limits=Limits(connection_buffer_bytes=10_000))
    peer.send(settings({4: 0}))
    asked(peer, 1, 3)
    peer.calls[1].answer(bytes(20_000))
    peer.send(peer.headers(5), data(5, b"x", end=True))
    assert peer.reset_of(5) is ErrorCode.REFUSED_STREAM
    peer.send(window(1, 30_000))
    peer.read_all()
    peer.send(peer.request(7))
    assert peer.reset_of(7) is None
