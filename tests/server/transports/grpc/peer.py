"""A client of one connection without a socket: it sends what it is told, frame by frame, and reads what comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import hpack
from erg_server.clock import ManualClock
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.frames import PREFACE, ErrorCode
from erg_server.transports.grpc.header_blocks import HeaderCache
from erg_server.transports.grpc.limits import BufferAccount, Limits
from erg_server.transports.grpc.stream import Call, Stream
from erg_server.transports.grpc.watch import Watch
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

REQUEST: tuple[tuple[str, str], ...] = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Call"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
SECOND_NS = 10**9


def message(raw: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message on the wire."""
    return bytes((compressed,)) + len(raw).to_bytes(4, "big") + raw


class FakeCall:
    """What a stream's bytes go to, as it came."""

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self.connection = connection
        self.stream = stream
        self.body = b""
        self.ended = False
        self.is_cancelled = False
        self.incomplete = False

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        assert not self.ended
        self.connection.credit(len(payload))
        self.body += bytes(payload)
        self.ended = end_stream

    def cancelled(self) -> None:
        assert not self.is_cancelled
        self.is_cancelled = True

    def answer(self, raw: bytes) -> None:
        self.connection.outbox.answer(self.stream, (raw,), len(raw))


class EchoCall(FakeCall):
    """Answers with what it was sent, once that is whole."""

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        super().data(payload, end_stream=end_stream)
        if end_stream:
            self.answer(self.body)


@dataclass(slots=True)
class Answer:
    """What came for one stream."""

    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] | None = None
    reset: int | None = None

    @property
    def status(self) -> str | None:
        return dict(self.trailers if self.trailers is not None else self.headers).get("grpc-status")

    @property
    def text(self) -> str | None:
        return dict(self.trailers if self.trailers is not None else self.headers).get("grpc-message")


class Peer:
    """One connection and its client."""

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        limits: Limits | None = None,
        clock: ManualClock | None = None,
        call: Callable[[Connection, Stream], Call | None] = FakeCall,
        account: BufferAccount | None = None,
        cache: HeaderCache | None = None,
        greet: bool = True,
    ) -> None:
        self.clock = clock or ManualClock(10 * SECOND_NS)
        self.calls: dict[int, FakeCall] = {}
        self.account = account or BufferAccount()
        self._call = call
        self.connection = connection or Connection(
            limits=limits or Limits(),
            cache=cache or HeaderCache(),
            account=self.account,
            now_ns=self.clock.now_ns,
            start_call=self._start,
        )
        self.watch = Watch(self.connection)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.answers: dict[int, Answer] = {}
        self.received: list[Frame] = []
        if greet:
            self.send(PREFACE + SettingsFrame(0).serialize())
            self.read()

    def _start(self, connection: Connection, stream: Stream) -> Call | None:
        call = self._call(connection, stream)
        if isinstance(call, FakeCall):
            self.calls[stream.number] = call
        return call

    def send(self, *parts: bytes | Frame, step: int | None = None) -> None:
        """Let bytes arrive: at once, or `step` at a time."""
        raw = b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
        for at in range(0, len(raw), step or len(raw) or 1):
            # A receive buffer is used again: what is kept of it must have been copied.
            buffer = bytearray(raw[at : at + (step or len(raw))])
            self.connection.receive(memoryview(buffer))
            buffer[:] = b"\xee" * len(buffer)

    def headers(self, number: int, fields: Iterable[tuple[str, str]] = REQUEST, *, end: bool = False) -> HeadersFrame:
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(number, self.encoder.encode(list(fields)), flags=flags)

    def request(self, number: int, body: bytes = b"", fields: Iterable[tuple[str, str]] = REQUEST) -> bytes:
        """A whole request: HEADERS and one DATA that ends it."""
        return self.headers(number, fields).serialize() + data(number, body, end=True).serialize()

    def read(self) -> list[Frame]:
        """The frames that came since, sorted into `answers` as far as they are one."""
        raw = b"".join(self.connection.outbox.frames)
        self.connection.outbox.frames.clear()
        self.connection.outbox.queued_bytes = 0
        found = parse_frames(raw)
        for frame in found:
            self._sort(frame)
        self.received += found
        return found

    def read_all(self) -> list[Frame]:
        """As `read`, of a peer that takes whatever the windows let through."""
        found = self.read()
        while self.connection.outbox.blocked:
            self.connection.outbox.pump()
            more = self.read()
            if not more:
                break
            found += more
        return found

    def _sort(self, frame: Frame) -> None:
        if isinstance(frame, HeadersFrame):
            fields = [(str(name), str(value)) for name, value in self.decoder.decode(frame.data)]
            answer = self.answers.get(frame.stream_id)
            if answer is None:
                answer = self.answers[frame.stream_id] = Answer(fields)
                if "END_STREAM" in frame.flags:
                    answer.trailers = fields
            else:
                assert "END_STREAM" in frame.flags
                answer.trailers = fields
        elif isinstance(frame, DataFrame):
            self.answers[frame.stream_id].body += frame.data
        elif isinstance(frame, RstStreamFrame):
            self.answers.setdefault(frame.stream_id, Answer([])).reset = frame.error_code

    @property
    def goaway(self) -> ErrorCode | None:
        """The code of the last GOAWAY that came."""
        self.read()
        codes = [frame.error_code for frame in self.received if isinstance(frame, GoAwayFrame)]
        return ErrorCode(codes[-1]) if codes else None

    def reset_of(self, number: int) -> ErrorCode | None:
        """The code with which a stream was reset."""
        self.read()
        answer = self.answers.get(number)
        return None if answer is None or answer.reset is None else ErrorCode(answer.reset)

    def look(self, seconds: float = 0, *, socket_bytes: int = 0, paused_ns: int | None = None) -> bool:
        """Let time pass and the watch look."""
        now_ns = self.clock.advance(int(seconds * SECOND_NS))
        return self.watch.look(now_ns, socket_bytes=socket_bytes, paused_ns=paused_ns)


def parse_frames(raw: bytes) -> list[Frame]:
    """Every frame of whole ones."""
    found: list[Frame] = []
    view = memoryview(raw)
    while view:
        frame, length = Frame.parse_frame_header(view[:9])
        assert len(view) >= 9 + length
        frame.parse_body(view[9 : 9 + length])
        found.append(frame)
        view = view[9 + length :]
    return found


def data(number: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> DataFrame:
    flags = ["END_STREAM"] if end else []
    if padding is None:
        return DataFrame(number, payload, flags=flags)
    return DataFrame(number, payload, pad_length=padding, flags=[*flags, "PADDED"])


def continuation(number: int, block: bytes, *, end: bool) -> ContinuationFrame:
    return ContinuationFrame(number, block, flags=["END_HEADERS"] if end else [])


def reset(number: int, code: int = 8) -> RstStreamFrame:
    return RstStreamFrame(number, code)


def settings(values: dict[int, int] | None = None) -> SettingsFrame:
    return SettingsFrame(0, values or {})


def window(number: int, credit: int) -> WindowUpdateFrame:
    return WindowUpdateFrame(number, credit)


def ping(payload: bytes = b"12345678") -> PingFrame:
    return PingFrame(0, payload)


def raw_frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """A frame that may break every rule."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def kinds(found: Sequence[Frame]) -> list[type]:
    return [type(frame) for frame in found]
