"""Writes the seeds: one small input for each thing that a target can do (python -m tests.fuzz.make_seeds).

The fuzzers change and join them; without, they would need hours to find a first answered call.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from erg_server.transports.grpc.header_blocks import encode_headers
from google.protobuf.message import Message

from tests.fuzz.frames import (
    BREAK,
    CALL,
    DATA,
    DRAIN,
    FRAME,
    HEADERS,
    PASS,
    RAW,
    READY,
    RETIRED,
    SETTING,
    STALL,
    TAKE,
    WINDOW,
)
from tests.fuzz.fuzzer import FOLDER
from tests.server.transports.builders import add_input, infer_message
from tests.server.transports.grpc.peer import REQUEST, message, raw_frame
from tests.server.transports.grpc.served import STREAM, infer

TIGHT, LOOSE, ONE_MESSAGE = 18, 16, 17
"""Sessions that begin with a greeting: under tight limits, the server's own, and where streams take one message."""
PLAIN_TIGHT, PLAIN_LOOSE = 48, 112
"""Bytes of a connection after a greeting; the second lets calls run between pieces."""


def step(kind: int, *values: int, cut: int = 0, settle: bool = True) -> bytes:
    return bytes((kind | cut << 4 | settle << 7, *values))


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """A frame of any kind; `number` is the place in NUMBERS, as in every step (99 + 1 is stream 0)."""
    return step(FRAME, kind, flags, number, len(payload)) + payload


def frames_seeds() -> dict[str, bytes]:
    calls = b"".join(step(CALL, number, 0, 1) for number in range(3))
    wire = raw_frame(1, 4, 1, encode_headers(REQUEST)) + raw_frame(0, 1, 1, message(infer("a")))
    stream = raw_frame(1, 4, 3, encode_headers(STREAM)) + raw_frame(0, 0, 3, message(infer("b")) * 3)
    return {
        "unary-calls": bytes((TIGHT,)) + calls,
        "unary-calls-in-pieces": bytes((TIGHT,)) + b"".join(step(CALL, n, n, n, cut=3 + n) for n in range(5)),
        "streamed-messages": bytes((TIGHT,)) + step(HEADERS, 0, 0, 1) + b"".join(
            step(DATA, 0, end, body) for end, body in ((0, 1), (0, 6), (0, 7), (0, 8), (1, 0))),
        "one-message-of-a-stream": bytes((ONE_MESSAGE,)) + step(HEADERS, 0, 0, 1) + step(DATA, 0, 0, 1)
        + step(HEADERS, 1, 0, 1) + step(DATA, 1, 0, 8) + step(SETTING, 4, 0)
        + step(HEADERS, 2, 0, 1) + step(DATA, 2, 0, 1) * 2,
        "compressed": bytes((LOOSE,)) + step(CALL, 0, 2, 4) + step(CALL, 1, 3, 4) + step(CALL, 2, 2, 13),
        "compressed-over-the-limit": bytes((TIGHT,)) + step(CALL, 0, 2, 5) + step(CALL, 1, 3, 5) + step(CALL, 2, 0, 4),
        "padded": bytes((TIGHT,)) + step(HEADERS, 0, 0, 0) + step(DATA, 0, 8, 2, 40, cut=5) + step(DATA, 0, 9, 0, 3),
        "huffman-and-continuation": bytes((LOOSE,)) + step(HEADERS, 0, 2, 0) + step(DATA, 0, 1, 1)
        + step(HEADERS, 1, 6, 1) + step(DATA, 1, 1, 8),
        "closed-windows": bytes((TIGHT,)) + step(SETTING, 4, 0) + calls + step(WINDOW, 0, 2) + step(WINDOW, 0, 4)
        + step(SETTING, 4, 7) + step(WINDOW, 100, 6),
        "shut-streams": bytes((TIGHT,)) + step(SETTING, 4, 2) + step(CALL, 0, 0, 1) + step(CALL, 1, 1, 1)
        + step(SETTING, 4, 0) + step(WINDOW, 0, 3) + step(WINDOW, 1, 1),
        "windows-too-large": bytes((TIGHT,)) + step(HEADERS, 0, 0, 0) + step(WINDOW, 0, 11) + step(WINDOW, 100, 11),
        "small-frames-large-answer": bytes((LOOSE,)) + step(SETTING, 5, 6) + step(CALL, 0, 0, 3) + step(SETTING, 1, 0)
        + step(CALL, 1, 0, 3),
        "stalled-socket": bytes((TIGHT,)) + step(STALL, 2) + step(CALL, 0, 0, 3) + step(CALL, 1, 0, 3)
        + step(CALL, 2, 1, 8)
        + step(TAKE, 0, 200) + step(READY),
        "stalled-for-ever": bytes((TIGHT,)) + step(STALL, 0) + calls + step(PASS, 5) * 2,
        "many-pings-while-stalled": bytes((LOOSE,)) + step(STALL, 1) + frame(6, 0, 100, b"12345678") * 70 + step(READY),
        "ping-of-another-size": bytes((TIGHT,)) + frame(6, 0, 100, b"1234567"),
        "ping-flood": bytes((TIGHT,)) + frame(6, 0, 100, b"12345678") * 14,
        "rapid-reset": bytes((TIGHT,)) + b"".join(step(HEADERS, n, 0, 0) + frame(3, 0, n, bytes(4)) for n in range(8)),
        "continuation-flood": bytes((TIGHT,)) + frame(1, 0, 0, b"\0\1a\1b") + frame(9, 0, 0, b"\0\1a\1b") * 4,
        "large-block": bytes((TIGHT,)) + frame(1, 0, 0, bytes(250)) + frame(9, 0, 0, bytes(250)) * 3,
        "refused-streams": bytes((TIGHT,)) + b"".join(step(HEADERS, n, 0, n % 8) for n in range(20)),
        "too-much-held": bytes((TIGHT,)) + b"".join(step(HEADERS, n, 0, 1) + step(DATA, n, 0, 11) for n in range(4)),
        "answers-that-wait": bytes((LOOSE,)) + step(SETTING, 4, 4) + step(HEADERS, 0, 0, 1) + step(DATA, 0, 0, 12)
        + step(HEADERS, 1, 0, 1) + step(DATA, 1, 0, 12) + step(WINDOW, 0, 7) + step(WINDOW, 1, 7)
        + step(WINDOW, 100, 7),
        "a-setting-that-passes-a-window": bytes((LOOSE,)) + step(HEADERS, 0, 0, 0) + step(WINDOW, 0, 8)
        + step(SETTING, 4, 11),
        "metadata": bytes((TIGHT,)) + b"".join(step(CALL, n, 9 + n, 1) for n in range(4)),
        "trailers": bytes((TIGHT,)) + step(HEADERS, 0, 0, 1) + step(DATA, 0, 0, 1) + step(HEADERS, 0, 1, 6),
        "deadlines": bytes((TIGHT,)) + step(HEADERS, 0, 0, 5) + step(HEADERS, 1, 0, 4) + step(PASS, 0) + step(PASS, 2),
        "half-a-message-for-long": bytes((TIGHT,)) + step(HEADERS, 0, 0, 0) + step(DATA, 0, 0, 6) + step(PASS, 5) * 2,
        "idle-and-retired": bytes((TIGHT,)) + calls + step(PASS, 4) + step(RETIRED),
        "old-and-silent": bytes((LOOSE,)) + calls + step(PASS, 6) + step(PASS, 4),
        "drained": bytes((TIGHT,)) + step(HEADERS, 0, 0, 0) + step(DRAIN, 0) + step(DRAIN, 1) + calls[4:]
        + step(DATA, 0, 1, 1),
        "fault-while-draining": bytes((TIGHT,)) + step(HEADERS, 0, 0, 0) + step(DRAIN, 1) + step(HEADERS, 1, 0, 0)
        + frame(6, 0, 0, bytes(8)),
        "peer-goes-away": bytes((TIGHT,)) + step(HEADERS, 0, 0, 1) + frame(7, 0, 100, bytes(8)) + step(DATA, 0, 1, 1),
        "broken-off": bytes((TIGHT,)) + step(HEADERS, 0, 0, 1) + step(DATA, 0, 0, 2) + step(BREAK, 3),
        "broken-while-writing": bytes((TIGHT,)) + step(BREAK, 1) + step(CALL, 0, 0, 3),
        "broken-while-writing-much": bytes((TIGHT,)) + step(BREAK, 1) + b"".join(
            step(CALL, n, 0, 3, settle=n == 3) for n in range(4)),
        "broken-while-closing": bytes((TIGHT,)) + step(BREAK, 2) + step(WINDOW, 0, 0),
        "ended": bytes((TIGHT,)) + step(STALL, 9) + calls + step(BREAK, 4) + step(TAKE, 9, 9),
        "closed-connection-window": bytes((TIGHT,)) + b"".join(step(CALL, n, 0, 3) for n in range(14))
        + step(PASS, 5) * 2,
        "every-kind-of-frame": bytes((LOOSE,)) + step(HEADERS, 0, 0, 1) + b"".join(
            frame(kind, 0, 0, bytes(5)) for kind in (2, 10, 11)),
        "not-http2": bytes((0, RAW, 18)) + b"GET / HTTP/1.1\r\n\r\n",
        "no-settings": bytes((0, RAW, 24)) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + step(PASS, 3),
        "wire": bytes((PLAIN_TIGHT, 7)) + wire + stream,
        "wire-with-turns": bytes((PLAIN_LOOSE, 30)) + wire + stream + raw_frame(0, 1, 3) + raw_frame(8, 0, 0, bytes(4)),
    }  # fmt: skip


def header_block_seeds() -> dict[str, bytes]:
    def fields(link: int, how: int, *chosen: int, table: int | None = None) -> bytes:
        step = (5 if table is not None else 6) << 4 | link
        return bytes((step, *([] if table is None else [table]), how | len(chosen), *chosen))

    def raw(link: int, block: bytes) -> bytes:
        return bytes((link, len(block))) + block

    wide = b"\x40\x01a\x50" + b"v" * 80
    again = b"".join(bytes((0x20 | link, at)) for at in (1, 2, 3, 1) for link in (0, 3 * 5 + 1, 0))
    return {
        "one-client": b"\7\0" + fields(0, 8, 6) + fields(0, 8, 6) + fields(0, 8, 8) + fields(0, 40, 9, 10),
        "clients-of-a-kind": b"\7\0" + b"".join(fields(link, 8, 8 + at % 2) for at in range(4) for link in (0, 1, 2)),
        "few-kept": b"\0\1" + b"".join(fields(at % 3, 8, 8, at % 12) for at in range(9)),
        "table-sizes": b"\3\0" + b"".join(fields(at % 3, 8, 8 + at % 4, table=at % 8) for at in range(12)),
        "again": b"\7\0" + fields(0, 8, 8) + fields(1, 24, 9) + fields(2, 40, 11) + again,
        "changed": b"\7\0" + fields(0, 8, 8) + b"".join(bytes((0x30, 1, at, 0x90 + at)) + again[:2] for at in range(6)),
        "over-the-limit": b"\7\0" + fields(0, 8, 12, 12, 12) + fields(1, 8, 12, 11) + fields(1, 8, 12, 12, 11),
        "raw": b"\7\0" + raw(0, b"\x82\x86\x84\xbe") + raw(1, b"\x40\x01a\x01b\xbe") + raw(1, b"\xbe"),
        "equal-entries-in-tables-of-two-sizes": b"\7\0"
        + raw(0, b"\x3f\x21\x82")
        + raw(1, b"\x00\x01a\x01b")
        + raw(0, wide)
        + raw(1, wide)
        + raw(1, b"\xbe")
        + raw(0, b"\xbe"),
        "table-update": b"\7\0" + raw(0, b"\x20\x40\x01a\x01b") + raw(0, b"\x3f\xe1\x1f\x82") + raw(1, b"\x3f\xff\x7f"),
        "huge-integers": b"\7\0" + raw(0, b"\xff" * 30) + raw(1, b"\x7f" + b"\xff" * 9 + b"\x01") + raw(2, b"\x00\xff"),
    }


def request_codec_seeds() -> dict[str, bytes]:
    def raw(sent: Message) -> bytes:
        text = sent.SerializeToString()
        return b"\0" + len(text).to_bytes(2, "big") + text

    def built(*, model: int, number: int, how: int, tail: bytes = b"") -> bytes:
        return bytes((1, model, 0, number, how)) + tail

    tensor = bytes((10, 3, 3, 0))  # FP32 [2, 2], raw, as many bytes as it needs
    honest = infer_message(b"\1" * 8, id="a")
    add_input(honest, "x", "FP32", [1, 2])
    text = honest.SerializeToString()
    strings = infer_message(b"\1\0\0\0a")
    add_input(strings, "x", "BYTES", [1])
    typed = infer_message()
    add_input(typed, "x", "INT8", [3], int_contents=[1, -2, 300])
    tail = text[-10:]
    swallowed = text + b"\x7a" + bytes((len(tail),)) + tail
    flips = b"".join(bytes((7, 0, at, at % 8)) + raw(honest) for at in range(12))
    return {
        "one-form": b"\3" + raw(honest) + bytes((6, 0, len(text) - 1, 9)) + bytes((6, 0, 5, 98)) + raw(honest),
        "other-ids": b"\3" + b"".join(built(model=1, number=at, how=1, tail=tensor) for at in range(8)),
        "more-forms-than-kept": b"\0" + b"".join(built(model=at, number=2, how=1, tail=tensor) for at in range(6)) * 2,
        "two-tensors-and-parameters": b"\3" + built(model=1, number=2, how=30, tail=tensor * 2 + b"\x0a\x01\x0a") * 2,
        "shared-memory": b"\3" + built(model=1, number=2, how=1 | 32, tail=bytes((10, 3, 2 | 16 << 2, 20))) * 2,
        "typed": b"\3" + raw(typed) + built(model=1, number=2, how=1, tail=bytes((10, 2, 0x20))),
        "strings": b"\3" + raw(strings) + bytes((6, 0, len(strings.SerializeToString()) - 5, 7)),
        "a-field-that-swallows": b"\3\0" + len(swallowed).to_bytes(2, "big") + swallowed + raw(honest),
        "flipped-bits": b"\3" + raw(honest) + flips,
        "joined": b"\3" + raw(honest) + bytes((2, len(tail))) + tail + bytes((3, 1, 0, 2, 1)) + tensor
        + bytes((4, 0, 3, 2, 0x0A, 0)) + bytes((5, 0, 3, 2)),
    }  # fmt: skip


def message_seeds() -> dict[str, bytes]:
    def start(encoding: int, limit: int, *cuts: int) -> bytes:
        return bytes((encoding, limit, len(cuts), *cuts))

    def item(step: int, plain: bytes, *change: int) -> bytes:
        return bytes((step, len(plain))) + plain + bytes(change)

    packed = zlib.compress(b"a" * 50)
    by_hand = b"\x01" + len(packed).to_bytes(4, "big") + packed
    more = b"\x01" + (len(packed) + 1).to_bytes(4, "big") + packed + b"!"
    return {
        "plain": start(0, 3, 3, 5, 1) + item(8 | 4, b"abc") + item(8 | 4, b"") + item(40 | 4, b"defg"),
        "gzip": start(1, 3, 7) + item(17 | 4, b"abcabc") + item(9 | 4, b"x") + item(12, b"plain"),
        "deflate": start(2, 4, 1) + item(0xF9, b"zip") + item(9 | 4, b""),
        "at-the-limit": start(0, 2, 9) + item(8 | 4, b"y" * 40) + item(8 | 4, b"y" * 41),
        "expands-too-far": start(2, 4) + item(0xF9, b"\0" * 200),
        "expands-more-than-its-size-allows": start(2, 4) + item(0x39, b"\0" * 200),
        "expands-over-the-limit": start(1, 2) + item(17, b"b" * 30),
        "not-announced": start(0, 3, 6) + item(8 | 2, b"abc"),
        "damaged": start(1, 3) + item(17 | 2, b"abcabc", 12, 1, 7, 1),
        "more-after-the-stream": start(2, 3, 4) + item(8, by_hand) + item(8, more),
        "half": start(0, 4, 2) + item(8, b"\0\0\0\0\x09abc"),
        "too-large": start(0, 4, 5) + item(8, b"\0\xff\xff\xff\xff"),
        "bad-flag": start(1, 3) + item(8 | 4 | 2, b"abc") + item(8, b"\x02\0\0\0\0"),
    }


SEEDS = {
    "frames": frames_seeds,
    "header_blocks": header_block_seeds,
    "messages": message_seeds,
    "request_codec": request_codec_seeds,
}


def main() -> None:
    for name, make in SEEDS.items():
        seeds = make()
        folder: Path = FOLDER / "seeds" / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for title, raw in seeds.items():
            (folder / title).write_bytes(raw)


if __name__ == "__main__":
    main()
