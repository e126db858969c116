"""An HTTP/2 client by the `h2` library over a socket: it sends any header list and any bytes, and keeps what comes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes, Settings

from tests.conformance.endpoints import Endpoint

Fields = Sequence[tuple[str, str]]
WAIT_S = 60.0
"""Of a socket: a server that says nothing fails the test instead of stopping the run."""
INFER = "/inference.GRPCInferenceService/ModelInfer"


def request_fields(path: str = INFER, *more: tuple[str, str], without: str = "") -> list[tuple[str, str]]:
    """What gRPC says that a request begins with; a name in `more` replaces the usual one."""
    usual = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    replaced = {name for name, _ in more}
    kept = [(name, value) for name, value in usual.items() if name not in replaced and name != without]
    fields = [*kept, *more]
    return [*(pair for pair in fields if pair[0][0] == ":"), *(pair for pair in fields if pair[0][0] != ":")]


def message(raw: bytes, *, compressed: bool = False) -> bytes:
    """A length-prefixed message."""
    return bytes((compressed,)) + len(raw).to_bytes(4, "big") + raw


@dataclass(slots=True)
class Answer:
    """All that came on one stream, with the frame that ended it."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended_by: str = ""
    reset: int | None = None

    @property
    def trailers_only(self) -> bool:
        """One block that is headers and trailers."""
        return self.ended_by == "headers"

    @property
    def last(self) -> dict[str, str]:
        """The block with the status."""
        return dict(self.headers if self.trailers_only else self.trailers)

    @property
    def status(self) -> int | None:
        stated = self.last.get("grpc-status")
        return None if stated is None else int(stated)

    @property
    def done(self) -> bool:
        return bool(self.ended_by) or self.reset is not None


class Http2Client:
    """One connection. h2 checks what the server sends against HTTP/2 and raises; what is sent it lets through."""

    def __init__(
        self, endpoint: Endpoint, *, settings: dict[SettingCodes, int] | None = None, returns_credit: bool = True
    ) -> None:
        host, port = endpoint.address.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), WAIT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket = plain
        if endpoint.root_certificate is not None:
            context = ssl.create_default_context(cafile=str(endpoint.root_certificate))
            context.set_alpn_protocols(["h2"])
            secured = context.wrap_socket(plain, server_hostname=host)
            assert secured.selected_alpn_protocol() == "h2"
            self._socket = secured
        self._returns_credit = returns_credit
        self.ended: h2.events.ConnectionTerminated | None = None
        self.pongs = 0
        self.answers: dict[int, Answer] = {}
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=True,
            )
        )
        # Its initial values, which need no acknowledgement and so hold for the first stream.
        self.connection.local_settings = Settings(client=True, initial_values=settings or {})
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def flush(self) -> None:
        self._socket.sendall(self.connection.data_to_send())

    def open(self, fields: Fields, *, end: bool = False) -> int:
        """Send HEADERS of a new stream; returns its number."""
        number = self.connection.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.connection.send_headers(number, fields, end_stream=end)
        self.flush()
        return number

    def send(self, number: int, body: bytes, *, end: bool = True, sizes: Iterable[int] = ()) -> None:
        """Send DATA: in frames of `sizes`, then in such as the windows let through; stops if the answer is there."""
        pieces = iter(sizes)
        while not self.answers[number].done:
            while body and not self.connection.local_flow_control_window(number) and not self.answers[number].done:
                self.receive()
            if self.answers[number].done:
                return
            most = min(self.connection.max_outbound_frame_size, next(pieces, 1 << 14))
            piece = body[: min(most, self.connection.local_flow_control_window(number))]
            body = body[len(piece) :]
            self.connection.send_data(number, piece, end_stream=end and not body)
            self.flush()
            if not body:
                return

    def call(self, fields: Fields, body: bytes = b"", *, sizes: Iterable[int] = ()) -> Answer:
        """A whole exchange on a new stream."""
        number = self.open(fields)
        self.send(number, body, sizes=sizes)
        return self.wait(number)

    def wait(self, number: int) -> Answer:
        """Until a stream's answer is whole, or the connection's end."""
        while not self.answers[number].done and self.ended is None:
            self.receive()
        return self.answers[number]

    def settle(self) -> None:
        """Until the server has handled all that was sent: its answer to a PING comes after what that provoked."""
        due = self.pongs + 1
        self.connection.ping(b"settling")
        self.flush()
        while self.pongs < due:
            self.receive()

    def grant(self, nbytes: int, number: int | None = None) -> None:
        """Let the server send so many bytes more, of a stream or of all."""
        self.connection.increment_flow_control_window(nbytes, number)
        self.flush()

    def receive(self) -> None:
        """Take what came next."""
        raw = self._socket.recv(1 << 16)
        if not raw:
            raise ConnectionError("the server closed the connection")
        for event in self.connection.receive_data(raw):
            self._take(event)
        self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.ended = event
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
        if answer is None:
            return
        kind = ""
        if isinstance(event, h2.events.ResponseReceived):
            kind, answer.headers = "headers", _text(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            kind, answer.trailers = "trailers", _text(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            kind = "data"
            answer.body += event.data or b""
            if self._returns_credit:
                self.connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = answer.reset if answer.ended_by else int(event.error_code or 0)
        if kind and getattr(event, "stream_ended", None) is not None:
            answer.ended_by = kind


def _text(fields: Iterable[tuple[bytes | str, bytes | str]] | None) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in fields or ()]
