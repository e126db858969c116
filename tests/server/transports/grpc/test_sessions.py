"""Whole sessions of real calls: cut at every byte, and through windows that let a byte through at a time."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import astuple

import h2.config
import h2.connection
import h2.events
import pytest
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.grpc.frames import PREFACE
from erg_server.transports.grpc.limits import Limits
from h2.settings import SettingCodes, Settings
from hyperframe.frame import SettingsFrame

from tests.server.transports.grpc.peer import REQUEST, Peer, continuation, data, message, ping, raw_frame, settings
from tests.server.transports.grpc.served import STREAM, answered, infer, read_messages, transport

GZIP = (("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip"))
NOWHERE = [(name, "/no/where" if name == ":path" else value) for name, value in REQUEST]
LONG = "long " * 300
GIVE_UP_S = 60.0
MAX_ROUNDS = 400
"""A byte of each stream a round: more than any of them has."""
STREAMS = (1, 3, 5, 7, 9, 11)


def session(peer: Peer) -> bytes:
    """A call of each kind and end, their frames mixed."""
    packed = message(gzip.compress(infer(LONG)), compressed=True)
    # Header blocks are encoded in the order in which they are sent: each depends on those before it.
    begun = peer.headers(1, STREAM).serialize() + data(1, message(infer("a"))[:7]).serialize()
    begun += peer.request(3, message(infer("unary")))
    block = peer.encoder.encode([*REQUEST, ("key", "v" * 40)])
    return b"".join(
        (
            PREFACE,
            SettingsFrame(0).serialize(),
            begun,
            raw_frame(1, 0, 5, block[:9]),
            continuation(5, block[9:], end=True).serialize(),
            data(1, message(infer("a"))[7:] + message(infer("b")), padding=3).serialize(),
            data(5, message(infer("padded")), end=True, padding=2).serialize(),
            peer.request(7, message(b"\xff\xff")),
            ping().serialize(),
            peer.request(9, packed, [*REQUEST, *GZIP]),
            peer.request(11, b"", NOWHERE),
            settings({4: 70_000}).serialize(),
            data(1, message(infer("c"))).serialize(),
            peer.headers(1, [("trailing", "x")], end=True).serialize(),
        )
    )


async def outcome(cut: int) -> tuple[list[tuple[object, ...]], int]:
    """What came on each stream of a session that arrives in two parts, and how long it is."""
    peer = Peer(transport().new_connection(), greet=False)
    raw = session(peer)
    peer.send(raw[:cut])
    # The calls that have come so far begin, and may be answered.
    await asyncio.sleep(0)
    peer.send(raw[cut:])
    assert peer.connection.fault is None
    # A call that is lost fails the test instead of stopping the run.
    async with asyncio.timeout(GIVE_UP_S):
        for number in STREAMS:
            await answered(peer, number)
    assert not peer.connection.streams
    assert peer.connection.held_bytes == 0
    # A reset says that the rest of a refused request is not wanted, where that had not come yet.
    return [astuple(peer.answers[number])[:3] for number in STREAMS], len(raw)


async def test_a_session_has_the_same_answers_wherever_it_is_cut() -> None:
    whole, size = await outcome(0)
    ids = [[answer.id for answer in read_messages(body)] for _, body, _ in whole[:3]]  # type: ignore[arg-type]
    assert ids == [["a", "b", "c"], ["unary"], ["padded"]]
    statuses = [dict(trailers)["grpc-status"] for _, _, trailers in whole]  # type: ignore[call-overload]
    assert statuses == ["0", "0", "0", "3", "0", "12"]
    body = whole[4][1]
    assert isinstance(body, bytes)
    assert pb.ModelInferResponse.FromString(gzip.decompress(body[5:])).id == LONG
    for cut in range(1, size):
        assert (await outcome(cut))[0] == whole, cut


@pytest.mark.parametrize("stream_window", [1, 2, 6])
@pytest.mark.parametrize("answer_window", [0, 1])
async def test_streams_in_turns_through_windows_of_nearly_nothing(stream_window: int, answer_window: int) -> None:
    """h2 keeps to the server's windows and raises where the server does not keep to the client's."""
    peer = Peer(transport(limits=Limits(stream_window_bytes=stream_window)).new_connection(), greet=False)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: answer_window})
    client.initiate_connection()
    bodies: dict[int, bytes] = {}
    ended: set[int] = set()

    async def exchange() -> None:
        peer.connection.receive(memoryview(client.data_to_send()))
        # Handlers of streams run in tasks, and what they answer waits for the next turn.
        await asyncio.sleep(0)
        peer.connection.outbox.pump()
        raw = b"".join(peer.connection.outbox.frames)
        peer.connection.outbox.frames.clear()
        peer.connection.outbox.queued_bytes = 0
        for event in client.receive_data(raw):
            assert not isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated))
            number = getattr(event, "stream_id", 0)
            if isinstance(event, h2.events.DataReceived):
                assert len(event.data or b"") == 1
                bodies[number] = bodies.get(number, b"") + (event.data or b"")
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(number)

    await exchange()
    left: dict[int, bytes] = {}
    due: dict[int, list[str]] = {}
    for number in range(1, 13, 2):
        streams = number % 4 == 1
        due[number] = [f"{number}{part}" for part in ("ab" if streams else "a")]
        client.send_headers(number, list(STREAM if streams else REQUEST))
        left[number] = b"".join(message(infer(text)) for text in due[number])
    for _ in range(MAX_ROUNDS):
        for number in list(left):
            body = left[number]
            room = min(client.local_flow_control_window(number), len(body))
            if room:
                client.send_data(number, body[:room], end_stream=room == len(body))
                left[number] = body[room:]
        left = {number: body for number, body in left.items() if body}
        for number in due.keys() - ended:
            if not client.remote_flow_control_window(number):
                client.increment_flow_control_window(1, number)
        await exchange()
    assert ended == due.keys()
    for number, texts in due.items():
        assert [answer.id for answer in read_messages(bodies[number])] == texts
    assert peer.connection.held_bytes == 0
