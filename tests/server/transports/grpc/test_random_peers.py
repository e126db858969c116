"""Whatever a peer sends: nothing is raised, nothing hangs, what is held is bounded and given back."""

from __future__ import annotations

import asyncio
import zlib
from itertools import pairwise

import hpack
from erg_server.transports.grpc.frames import PREFACE, ErrorCode
from erg_server.transports.grpc.limits import Limits
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.transports.grpc.peer import REQUEST, Peer, message, parse_frames, raw_frame
from tests.server.transports.grpc.served import STREAM, infer, peer_of, transport

LIMITS = Limits(connection_buffer_bytes=10_000, stream_window_bytes=70_000, concurrent_streams=5, header_bytes=2000)
NUMBERS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9, 11, 99, (1 << 31) - 1, (1 << 32) - 1])
FLAGS = st.sampled_from([0, 1, 4, 5, 5, 5, 8, 9, 0x20, 0x2D, 0xFF])
ENCODED = hpack.Encoder()
ENCODED.header_table_size = 0
BLOCKS = [
    ENCODED.encode(list(fields))
    for fields in (
        REQUEST,
        STREAM,
        [*REQUEST, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")],
        [*STREAM, ("grpc-timeout", "1n")],
        [("trailer", "x")],
        [(":method", "GET")],
    )
]
BODIES = [
    message(infer("a")),
    message(infer("b" * 500)),
    message(zlib.compress(infer("c" * 5000)), compressed=True),
    message(infer("half" * 9))[:20],
    b"",
]
PAYLOADS = st.one_of(
    st.sampled_from(BLOCKS),
    st.sampled_from(BODIES),
    st.binary(max_size=40),
    st.integers(0, (1 << 32) - 1).map(lambda value: value.to_bytes(4, "big")),
    st.builds(lambda key, value: key.to_bytes(2, "big") + value.to_bytes(4, "big"), st.integers(0, 9),
              st.sampled_from([0, 1, 100, 16_384, 65_535, (1 << 31) - 1, 1 << 31])),
)  # fmt: skip
RAW = st.builds(raw_frame, st.integers(0, 11), FLAGS, NUMBERS, PAYLOADS)
REQUESTS = st.builds(
    lambda number, block, body, end: raw_frame(1, 4, number, block) + raw_frame(0, end, number, body),
    st.sampled_from(range(1, 41, 2)),
    st.sampled_from(BLOCKS[:4]),
    st.sampled_from(BODIES),
    st.integers(0, 1),
)
SEQUENCES = st.lists(st.one_of(RAW, REQUESTS, st.binary(min_size=1, max_size=20)), max_size=25)


async def survive(peer: Peer, raw: bytes, cuts: list[int]) -> None:
    connection = peer.connection
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        peer.send(raw[start:end])
        await asyncio.sleep(0)
        assert connection.held_bytes <= LIMITS.connection_buffer_bytes + 5 * 6000 + 70_000
        assert len(connection.streams) <= LIMITS.concurrent_streams
        connection.outbox.queued_bytes = 0
        connection.outbox.pump()
    if connection.fault is not None:
        assert connection.closing
        assert isinstance(connection.fault.code, ErrorCode)
    parse_frames(b"".join(connection.outbox.frames))
    for _ in range(70):
        peer.look(1)
    connection.lost()
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.held_bytes == 0
    assert connection.outbox.pending_bytes == 0
    assert not connection.streams
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@settings(max_examples=300)
@given(SEQUENCES, st.lists(st.integers(0, 5000), max_size=6))
def test_any_frames_in_any_pieces(parts: list[bytes], cuts: list[int]) -> None:
    async def run() -> None:
        peer = peer_of(transport(limits=LIMITS))
        await survive(peer, b"".join(parts), cuts)

    asyncio.run(run())


@given(st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=6), st.booleans())
def test_any_bytes_in_any_pieces(raw: bytes, cuts: list[int], greeted: bool) -> None:
    async def run() -> None:
        peer = Peer(transport(limits=LIMITS).new_connection(), greet=greeted)
        await survive(peer, raw if greeted else PREFACE + raw, cuts)

    asyncio.run(run())
