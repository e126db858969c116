"""Frames: a connection and its socket against a peer that sends anything, in any pieces.

An input is either the bytes of a connection or a script: frames, requests, settings and windows, good and bad; pieces
of any size; a socket that takes nothing for a while; time that passes; a server that drains. Calls are echoed. After
each step every account must agree, every byte sent must be allowed, and nothing may wait that could go on.
"""

from __future__ import annotations

import gzip
import zlib

from tests.fuzz import fuzzer
from tests.fuzz.script import Script

with fuzzer.instrumented(__name__):
    import hpack
    from erg_server.clock import ManualClock
    from erg_server.transports.grpc.call import log
    from erg_server.transports.grpc.limits import Limits

    from tests.fuzz.fake_socket import SteppedLoop
    from tests.fuzz.session import GREETING, Errors, Session, tightened
    from tests.server.transports.grpc.peer import REQUEST, SECOND_NS, message, raw_frame
    from tests.server.transports.grpc.served import STREAM, infer

FRAME, CALL, HEADERS, DATA, WINDOW, SETTING, RAW, RETIRED = 0, 2, 4, 5, 6, 7, 8, 9
STALL, TAKE, READY, PASS, DRAIN, BREAK = range(10, 16)
"""Kinds of steps, a byte's lower four bits. Three say how what it sends is cut, and one whether the loop turns."""
TIGHT = Limits(
    message_bytes=6000, concurrent_streams=4, header_bytes=800, frame_bytes=16_384, stream_window_bytes=5100,
    connection_window_bytes=66_000, connection_buffer_bytes=9000, control_frames=12, control_frames_per_s=10,
    resets=6, resets_per_s=5, continuation_frames=3, stall_bytes=100, idle_s=30, age_s=100, age_grace_s=10,
)  # fmt: skip
LIMITS = [TIGHT, Limits(), Limits(linger_s=0)]
FIELDS = [
    REQUEST,
    STREAM,
    [*REQUEST, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip, deflate")],
    [*STREAM, ("grpc-encoding", "deflate"), ("grpc-accept-encoding", "deflate")],
    [*STREAM, ("grpc-timeout", "1S"), ("x-id", "7")],
    [*REQUEST, ("grpc-timeout", "1n")],
    [("trailer", "x")],
    [(":method", "GET"), *REQUEST[1:]],
    [*REQUEST, ("x-long", "z" * 1500)],
    [*REQUEST, ("x-bin", "AAEC,//8"), ("grpc-encoding", "identity")],
    [*REQUEST, ("x-bin", "=")],
    [*REQUEST, ("grpc-timeout", "1")],
    [*REQUEST, ("grpc-encoding", "br")],
    [(name, "/test.Service/None" if name == ":path" else value) for name, value in REQUEST],
]
_HALF = message(infer("half" * 9))
BODIES = [
    b"",
    message(infer("a")),
    message(infer("b" * 1500)),
    message(infer("b" * 5000)),
    message(zlib.compress(infer("c" * 5000)), compressed=True),
    message(zlib.compress(infer("d" * 9000)), compressed=True),
    _HALF[:20],
    _HALF[20:],
    message(infer("e")) * 5,
    message(b"\xff" * 9),
    b"\x00\x00\x00\x17\x71",
    message(infer("g" * 5000))[:4500],
    message(infer("h" * 3000)) * 3,
    message(gzip.compress(infer("f" * 2000), mtime=0), compressed=True),
]
NUMBERS = [*range(1, 200, 2), 0, 2, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
U32 = [0, 1, 5, 100, 2000, 16_383, 16_384, 65_535, 1 << 20, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31]
PIECE_BYTES = [0, 0, 0, 1, 2, 9, 10, 700]
"""Sizes of the pieces in which what a step sends arrives; 0 is whole."""
KEEP = 2
"""Where in PIECE_BYTES it does not arrive before what the next step sends."""
MOST_PIECES = 40
TIMES_NS = [10**6, SECOND_NS, 2 * SECOND_NS, 11 * SECOND_NS, 31 * SECOND_NS, 61 * SECOND_NS, 7201 * SECOND_NS]


def check(raw: bytes) -> None:
    """Play a script; raises where anything breaks a promise."""
    script = Script(raw)
    how = script.byte()
    errors = Errors()
    log.addHandler(errors)
    loop = SteppedLoop(ManualClock(10 * SECOND_NS))
    try:
        with tightened():
            loop.run_until_complete(_play(loop, script, how))
    finally:
        loop.close()
        log.removeHandler(errors)
    assert not errors.found, errors.found


async def _play(loop: SteppedLoop, script: Script, how: int) -> None:
    session = Session(loop, LIMITS[how % 3], client_streaming=how % 3 < 2)
    encoder = hpack.Encoder()
    if how & 16:
        session.deliver(GREETING)
    if how & 32:
        pieces = script.byte() or 4096
        while script.more:
            session.deliver(script.take(pieces))
            await session.step(settle=bool(how & 64))
    kept = b""
    while script.more:
        step = script.byte()
        kind, cut = step & 15, step >> 4 & 7
        part = kept + _part(kind, script, encoder)
        kept = b""
        size = PIECE_BYTES[cut] or len(part) or 1
        if part and cut == KEEP:
            kept = part
            continue
        for piece in _pieces(part, size):
            session.deliver(piece)
        _happen(kind, script, session)
        await session.step(settle=step >= 128)
    await session.finish()


def _pieces(part: bytes, size: int) -> list[bytes]:
    """`part` in pieces of `size`; what follows the first few, where all that depends on it has been cut, is one."""
    edge = min(len(part), size * MOST_PIECES)
    return [part[at : at + size] for at in range(0, edge, size)] + ([part[edge:]] if edge < len(part) else [])


def _part(kind: int, script: Script, encoder: hpack.Encoder) -> bytes:
    """The bytes that a step sends."""
    if kind in {FRAME, FRAME + 1}:
        return raw_frame(script.byte() % 12, script.byte(), script.one_of(NUMBERS), script.text())
    if kind in {CALL, CALL + 1}:
        number, block = script.one_of(NUMBERS), encoder.encode(list(script.one_of(FIELDS)), huffman=False)
        return raw_frame(1, 4, number, block) + raw_frame(0, 1, number, script.one_of(BODIES))
    if kind == HEADERS:
        number, end = script.one_of(NUMBERS), script.byte()
        block = encoder.encode(list(script.one_of(FIELDS)), huffman=bool(end & 2))
        if end & 4:
            half = len(block) // 2
            return raw_frame(1, end & 1, number, block[:half]) + raw_frame(9, 4, number, block[half:])
        return raw_frame(1, 4 | end & 1, number, block)
    if kind == DATA:
        number, flags = script.one_of(NUMBERS), script.byte() & 9
        body = script.one_of(BODIES)
        padding = script.byte() if flags & 8 else 0
        return raw_frame(0, flags, number, (bytes((padding,)) + body + bytes(padding)) if flags & 8 else body)
    if kind == WINDOW:
        return raw_frame(8, 0, script.one_of(NUMBERS), script.one_of(U32).to_bytes(4, "big"))
    if kind == SETTING:
        return raw_frame(4, 0, 0, (script.byte() % 8).to_bytes(2, "big") + script.one_of(U32).to_bytes(4, "big"))
    if kind == RAW:
        return script.text()
    if kind == RETIRED:
        return raw_frame(6, 1, 0, b"erg-last")
    return b""


def _happen(kind: int, script: Script, session: Session) -> None:
    """What a step does beside sending."""
    if kind == STALL:
        session.socket.ready = False
        session.socket.high = script.byte() * 8
    elif kind == TAKE:
        session.socket.take(script.short())
    elif kind == READY:
        session.socket.ready = True
        session.socket.take(1 << 30)
    elif kind == PASS:
        session.clock.advance(script.one_of(TIMES_NS))
    elif kind == DRAIN:
        if script.byte() & 1:
            session.connection.drain()
        else:
            session.connection.retire()
        session.protocol.flush()
    elif kind == BREAK:
        how = script.byte()
        session.socket.breaks_at_write |= how & 7 == 1
        session.socket.breaks_at_end |= how & 7 == 2
        if how & 7 == 3:
            session.socket.abort()
        elif how & 7 == 4:
            session.socket.end()


if __name__ == "__main__":
    fuzzer.run("frames", check, max_bytes=2048)
