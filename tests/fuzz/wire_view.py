"""What a peer sees of one connection: every byte that the server sent is one that HTTP/2 and gRPC allow it to send."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import hpack
from erg_server.transports.grpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_STREAM,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Setting,
    parse_settings,
)

SIZES = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
OWN_RESETS = {ErrorCode.NO_ERROR, ErrorCode.ENHANCE_YOUR_CALM}
"""Of streams that are answered early, or that the server gives up: no peer brings these about by what it sends."""


@dataclass(slots=True)
class Answer:
    """One stream as its caller sees it. `credit` is the most that it ever allowed beyond the initial window."""

    opened: bool = False
    credit: int = 0
    blocks: int = 0
    body: bytes = b""
    ended: bool = False
    reset: bool = False


class WireView:
    """Knows what was offered (`went`), at most, and judges by it what comes (`came`)."""

    def __init__(self) -> None:
        self._sent = bytearray()
        self._preface = PREFACE
        self._received = bytearray()
        self._answers: dict[int, Answer] = {}
        self._window = self._initial = DEFAULT_WINDOW
        self._frame_bytes = DEFAULT_FRAME_BYTES
        self._pings = 0
        # Of each SETTINGS that is not acknowledged: with that, the server says from where on it holds.
        self._stated: deque[dict[int, int]] = deque()
        self._data_bytes = 0
        self._decoder = hpack.Decoder()
        self._greeted = False
        self._block: tuple[int, int, bytes] | None = None
        self._last_opened = 0
        self._last_stream = MAX_STREAM
        self._over = False
        # What the server answered that earns it nothing: it has to count that, and to end it at some number.
        self.costs = 0

    def _answer(self, number: int) -> Answer:
        return self._answers.setdefault(number, Answer())

    def went(self, raw: bytes) -> None:
        """Bytes go to the server, which may act on them from now on, or may not."""
        self._sent += raw
        wanted = self._preface[: len(self._sent)]
        if wanted and self._sent[: len(wanted)] == wanted:
            self._preface = self._preface[len(wanted) :]
            del self._sent[: len(wanted)]
        while not self._preface and len(self._sent) >= 9:
            size = int.from_bytes(self._sent[:3], "big")
            if len(self._sent) < 9 + size:
                break
            kind, flags = self._sent[3], self._sent[4]
            number = int.from_bytes(self._sent[5:9], "big") & MAX_STREAM
            self._offer(kind, flags, number, bytes(self._sent[9 : 9 + size]))
            del self._sent[: 9 + size]

    def _offer(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._answer(number).opened = True
            self._last_opened = max(self._last_opened, number)
        elif kind == PING:
            self._pings += 1
        elif kind == WINDOW_UPDATE and len(payload) == 4:
            credit = int.from_bytes(payload, "big") & MAX_STREAM
            if number:
                self._answer(number).credit += credit
            else:
                self._window += credit
        elif kind == SETTINGS and not flags & ACK and len(payload) % 6 == 0:
            self._stated.append(dict(parse_settings(payload)))

    def came(self, raw: bytes) -> None:
        """Bytes of the server; raises AssertionError for any that it may not send."""
        self._received += raw
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + size:
                break
            kind, flags = self._received[3], self._received[4]
            number = int.from_bytes(self._received[5:9], "big")
            payload = bytes(self._received[9 : 9 + size])
            del self._received[: 9 + size]
            assert not self._over, "a frame after the GOAWAY that ends the connection"
            assert size <= self._frame_bytes
            assert size == SIZES.get(kind, size)
            assert self._greeted or (kind, flags) == (SETTINGS, 0), "the first frame is not SETTINGS"
            assert self._block is None or (kind, number) == (CONTINUATION, self._block[0])
            self._take(kind, flags, number, payload)
            self._greeted = True

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            answer = self._open(number)
            answer.body += payload
            self._data_bytes += len(payload)
            assert answer.blocks == 1
            assert self._data_bytes <= self._window, "more than the connection's window"
            assert len(answer.body) <= self._initial + answer.credit, "more than the stream's window"
            assert not flags & END_STREAM
        elif kind in {HEADERS, CONTINUATION}:
            _, first, block = self._block or (number, flags, b"")
            self._block = number, first, block + payload
            if flags & END_HEADERS:
                self._block = None
                self._take_block(self._open(number), bool(first & END_STREAM), block + payload)
        elif kind == RST_STREAM:
            # The numbers that a caller skips are streams that have ended (RFC 9113, 5.1.1).
            assert number <= self._last_opened, "a reset of a stream that nobody opened"
            answer = self._answer(number)
            assert not answer.reset, "a second reset"
            answer.reset = True
            self.costs += ErrorCode(int.from_bytes(payload, "big")) not in OWN_RESETS
        elif kind == WINDOW_UPDATE:
            assert 0 < int.from_bytes(payload, "big") <= MAX_STREAM
            if number:
                self._open(number)
        elif kind == SETTINGS and flags & ACK:
            assert self._stated, "an acknowledgement of nothing"
            stated = self._stated.popleft()
            self._initial = stated.get(Setting.INITIAL_WINDOW_SIZE, self._initial)
            self._frame_bytes = stated.get(Setting.MAX_FRAME_SIZE, self._frame_bytes)
            self.costs += 1
        elif kind == PING and flags & ACK:
            self._pings -= 1
            self.costs += 1
            assert self._pings >= 0, "an answer to no PING"
        elif kind == GOAWAY:
            last, code = int.from_bytes(payload[:4], "big"), ErrorCode(int.from_bytes(payload[4:8], "big"))
            assert last <= self._last_stream, "a GOAWAY that promises more than one before"
            self._last_stream = last
            self._over = code is not ErrorCode.NO_ERROR
        else:
            assert (kind, number) in {(SETTINGS, 0), (PING, 0)}

    def _open(self, number: int) -> Answer:
        answer = self._answer(number)
        assert answer.opened, "a frame for a stream that nobody opened"
        assert not answer.ended, "a frame after the stream's end"
        assert not answer.reset, "a frame after the stream was reset"
        return answer

    def _take_block(self, answer: Answer, ends: bool, block: bytes) -> None:
        fields = {str(name): str(value) for name, value in self._decoder.decode(block)}
        answer.blocks += 1
        answer.ended = ends
        assert answer.blocks == 2 or ":status" in fields
        assert answer.blocks <= 2
        assert ends == ("grpc-status" in fields), "only the last block has the status"
        assert "internal error" not in fields.get("grpc-message", "")
        if fields.get("grpc-status") == "0":
            body = answer.body
            while body:
                size = 5 + int.from_bytes(body[1:5], "big")
                assert body[0] <= 1
                assert len(body) >= size, "a good answer with half a message"
                body = body[size:]
