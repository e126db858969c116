"""The transport on real sockets: what a state machine alone cannot show."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from erg_server.clock import MonotonicClock
from erg_server.errors import UnavailableError
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext, Method
from erg_server.transports.grpc.frames import MAX_STREAM, PREFACE, ErrorCode
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.protocol import MAX_QUEUED_FRAMES
from erg_server.transports.grpc.server import Address, GrpcTransport
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame, RstStreamFrame

from tests.server.transports.grpc.peer import REQUEST, Peer, message, ping, raw_frame, reset, settings, window
from tests.server.transports.grpc.served import echo, infer, until

HOST = "127.0.0.1"


class Wire:
    """A client's socket, which says what its peer's state machine never gets to see."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.peer = Peer(greet=False)  # for its encoder

    def send(self, *parts: bytes | Frame) -> None:
        self.writer.write(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))

    async def frames(self) -> AsyncIterator[Frame]:
        while True:
            try:
                head = await self.reader.readexactly(9)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(await self.reader.readexactly(length)))
            yield frame

    async def answer(self, number: int) -> bytes:
        """The body of a stream's answer; empty if it has none."""
        body = b""
        async for frame in self.frames():
            if frame.stream_id == number:
                if isinstance(frame, DataFrame):
                    body += frame.data
                if "END_STREAM" in frame.flags or isinstance(frame, RstStreamFrame):
                    break
        return body

    async def goaway(self) -> ErrorCode | None:
        """The code of the GOAWAY with which the server closes."""
        code = None
        async for frame in self.frames():
            if isinstance(frame, GoAwayFrame):
                code = ErrorCode(frame.error_code)
        return code


@asynccontextmanager
async def running(*addresses: Address, limits: Limits | None = None, reuse_port: bool = False):
    kinds: dict[str, Any] = {"request": pb.ModelInferRequest, "response": pb.ModelInferResponse}
    transport = GrpcTransport(
        [Method(path="/test.Service/Call", unary=echo, **kinds)],
        addresses=addresses or (Address(host=HOST),),
        clock=MonotonicClock(),
        limits=limits,
        reuse_port=reuse_port,
    )
    await transport.start()
    try:
        yield transport
    finally:
        await transport.stop()
        assert transport._account.held_bytes == 0


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Wire]:
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
    wire = Wire(reader, writer)
    wire.send(PREFACE, settings())
    try:
        yield wire
    finally:
        writer.transport.abort()


async def works(wire: Wire, number: int) -> None:
    wire.send(wire.peer.request(number, message(infer("hello"))))
    assert b"hello" in await wire.answer(number)


HOSTILE = {
    "ping": (ping().serialize(), ErrorCode.ENHANCE_YOUR_CALM),
    "settings": (settings().serialize(), ErrorCode.ENHANCE_YOUR_CALM),
    "continuation": (raw_frame(9, 0, 1, b"") * 20, ErrorCode.PROTOCOL_ERROR),
    "push": (raw_frame(5, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "huge": (b"\xff\xff\xff\0\0\0\0\0\1", ErrorCode.FRAME_SIZE_ERROR),
    "bad_headers": (raw_frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"), ErrorCode.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_connection_is_told_why_and_the_others_do_not_notice(name: str) -> None:
    raw, code = HOSTILE[name]
    async with (
        running(limits=Limits(control_frames=100)) as transport,
        connected(transport.addresses[0]) as good,
        connected(transport.addresses[0]) as bad,
    ):
        await works(good, 1)
        # It goes on sending after it was turned away, and yet reads what it was told.
        for _ in range(200):
            bad.send(raw)
        assert await bad.goaway() is code
        await works(good, 3)
        async with connected(transport.addresses[0]) as other:
            await works(other, 1)


async def test_the_log_says_why_a_connection_was_ended(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with running() as transport, connected(transport.addresses[0]) as bad:
            bad.send(ping(), raw_frame(9, 0, 1, b""))
            assert await bad.goaway() is ErrorCode.PROTOCOL_ERROR
    assert "PROTOCOL_ERROR: CONTINUATION without a header block" in caplog.text


async def test_rapid_reset_over_a_socket() -> None:
    async with running(limits=Limits(resets=50)) as transport, connected(transport.addresses[0]) as bad:
        for number in range(1, 1001, 2):
            bad.send(bad.peer.headers(number), reset(number))
        assert await bad.goaway() is ErrorCode.ENHANCE_YOUR_CALM


async def test_who_reads_nothing_is_not_read_either() -> None:
    limits = Limits(stall_s=3600, connection_buffer_bytes=1 << 20)
    async with running(limits=limits) as transport, connected(transport.addresses[0]) as greedy:
        greedy.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too
        greedy.send(settings({4: (1 << 31) - 1}), window(0, (1 << 31) - 65_536))
        (protocol,) = [each async for each in _connections(transport)]
        # The less the kernel takes, the sooner the server's own bound shows.
        server_socket = protocol.transport.get_extra_info("socket")
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        fields = [(name, "/x" * 500 if name == ":path" else value) for name, value in REQUEST]
        greedy.peer.encoder.header_table_size = 0
        block = greedy.peer.encoder.encode(fields)
        number = 1
        while protocol.paused_ns is None or not greedy.writer.transport.get_write_buffer_size():
            greedy.send(*(raw_frame(1, 5, number + 2 * each, block) for each in range(100)))
            number += 200
            await asyncio.sleep(0)
        assert protocol.paused_ns is not None
        # What one receive may add stays within what is read at once.
        assert len(protocol.connection.outbox.frames) < MAX_QUEUED_FRAMES + transport.buffer.nbytes / 20
        async with connected(transport.addresses[0]) as other:
            await works(other, 1)
        greedy.writer.transport.resume_reading()  # type: ignore[attr-defined]
        last = number
        greedy.send(greedy.peer.request(last, message(infer("after"))))
        assert b"after" in await greedy.answer(last)


async def _connections(transport: GrpcTransport):
    await until(lambda: transport._connections)
    for protocol in transport._connections:
        yield protocol


async def test_a_large_answer_arrives_whole_while_small_ones_pass_it() -> None:
    async with running() as transport, connected(transport.addresses[0]) as wire:
        wire.send(settings({4: (1 << 31) - 1}), window(0, (1 << 31) - 65_536))
        big = message(infer("big", bytes(8 << 20)))
        wire.send(wire.peer.headers(1))
        for at in range(0, len(big), 1 << 19):
            part = big[at : at + (1 << 19)]
            wire.send(raw_frame(0, int(at + (1 << 19) >= len(big)), 1, part))
        body = await wire.answer(1)
        assert len(body) == len(big)
        await works(wire, 3)


async def test_calls_end_when_their_connection_is_cut() -> None:
    cancelled = asyncio.Event()

    async def wait(_: object, __: CallContext) -> pb.ModelInferResponse:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    kinds: dict[str, Any] = {"request": pb.ModelInferRequest, "response": pb.ModelInferResponse}
    async with running() as transport:
        transport.methods.add(Method(path="/test.Service/Call", unary=wait, **kinds))
        async with connected(transport.addresses[0]) as wire:
            wire.send(wire.peer.request(1, message(infer("x"))))
            (protocol,) = [each async for each in _connections(transport)]
            await until(lambda: protocol.connection.streams)
        await cancelled.wait()
        await until(lambda: not transport._connections)


async def test_draining_tells_every_connection_and_ends_with_the_last() -> None:
    async with running() as transport, connected(transport.addresses[0]) as wire:
        await works(wire, 1)
        draining = asyncio.ensure_future(transport.drain(60))
        assert await wire.goaway() is ErrorCode.NO_ERROR
        wire.writer.close()
        await draining
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection(HOST, int(transport.addresses[0].rsplit(":", 1)[1]))


async def test_calls_that_cross_the_drain_are_answered() -> None:
    async with running() as transport, connected(transport.addresses[0]) as wire:
        await works(wire, 1)
        draining = asyncio.ensure_future(transport.drain(60))
        # Two calls that the client had begun: one goes ahead of its answer to the first ping, one behind it.
        crossing = [wire.peer.request(number, message(infer("crossing"))) for number in (3, 5)]
        last, answered = [], set()
        async for frame in wire.frames():
            if isinstance(frame, GoAwayFrame):
                last.append(frame.last_stream_id)
            elif isinstance(frame, PingFrame):
                ahead, behind = crossing or (b"", b"")
                wire.send(ahead, PingFrame(0, frame.opaque_data, flags=["ACK"]), behind)
                crossing = []
            elif isinstance(frame, DataFrame) and b"crossing" in frame.data:
                answered.add(frame.stream_id)
        wire.writer.close()
        await draining
        assert (last, answered) == ([MAX_STREAM, 5], {3, 5})


async def test_a_peer_that_answers_no_ping_is_not_waited_for() -> None:
    async with running() as transport, connected(transport.addresses[0]) as wire:
        await works(wire, 1)
        draining = asyncio.ensure_future(transport.drain(0.2))
        assert await wire.goaway() is ErrorCode.NO_ERROR
        wire.writer.close()
        await draining
        assert not transport._connections


async def test_draining_survives_connections_that_their_peers_have_just_closed() -> None:
    async with running() as transport:
        host, port = transport.addresses[0].rsplit(":", 1)
        gone = [socket.create_connection((host, int(port))) for _ in range(8)]
        await until(lambda: len(transport._connections) == len(gone))
        for each in gone:
            # Its server has not read the end yet: the GOAWAY is answered by a reset before the socket is shut down.
            each.recv(1 << 16)
            each.close()
        await transport.drain(60)
        assert not transport._connections


async def test_several_listeners_and_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "erg.sock"
    both = Address(host=HOST), Address(unix_path=str(path)), Address(host=HOST)
    async with running(*both) as transport:
        assert len(set(transport.addresses)) == 3
        for address in transport.addresses:
            async with connected(address) as wire:
                await works(wire, 1)
    assert not path.exists()


async def test_a_socket_that_nobody_listens_on_is_replaced_and_no_other_file_is(tmp_path: Path) -> None:
    path = tmp_path / "erg.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with running(Address(unix_path=str(path))) as transport:
        async with connected(transport.addresses[0]) as wire:
            await works(wire, 1)
        with pytest.raises(UnavailableError, match=r"erg\.sock"):
            async with running(Address(unix_path=str(path))):
                pass
        async with connected(transport.addresses[0]) as wire:
            await works(wire, 1)
    path.write_text("not a socket")
    with pytest.raises(UnavailableError, match=r"erg\.sock"):
        async with running(Address(unix_path=str(path))):
            pass
    assert path.read_text() == "not a socket"


async def test_a_port_is_shared_only_where_that_is_asked_for() -> None:
    async with running(reuse_port=True) as first:
        address = Address(host=HOST, port=int(first.addresses[0].rsplit(":", 1)[1]))
        async with running(address, reuse_port=True) as second, connected(second.addresses[0]) as wire:
            await works(wire, 1)
        with pytest.raises(UnavailableError, match="--grpc-port"):
            async with running(address):
                pass
