"""One HTTP/2 stream: who has closed it, what may still be sent either way, and what waits to be sent."""

from __future__ import annotations

from asyncio import Future
from collections import deque
from typing import Protocol

from erg_server.transports.grpc.call_head import CallHead


class Call(Protocol):
    """What a stream carries: a gRPC call. It answers through the connection's outbox."""

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        """Bytes came; `payload` is valid during this call only."""
        ...

    @property
    def incomplete(self) -> bool:
        """Whether the caller began something that it has to go on with."""
        ...

    def cancelled(self) -> None:
        """The caller reset the stream, or the connection is gone: nobody waits for the answer."""
        ...


class Stream:
    """State of one stream. Windows are in bytes."""

    __slots__ = (
        "call",
        "drained",
        "head",
        "moved_bytes",
        "number",
        "pending",
        "pending_bytes",
        "receive_left",
        "remote_closed",
        "seen_bytes",
        "seen_ns",
        "send_left",
        "trailers",
    )

    def __init__(self, number: int, head: CallHead, *, receive_left: int, send_left: int, now_ns: int) -> None:
        self.number = number
        self.head = head
        self.call: Call | None = None
        self.remote_closed = False
        self.receive_left = receive_left
        self.send_left = send_left
        # What the windows did not let through yet: payloads of DATA, then the block of the trailers.
        self.pending: deque[bytes | memoryview] | None = None
        self.pending_bytes = 0
        self.trailers: bytes | None = None
        # Who waits for room to send more.
        self.drained: Future[None] | None = None
        # Bytes of either direction, counted where a message does not come or go whole; when a watch saw it move last.
        self.moved_bytes = 0
        self.seen_bytes = 0
        self.seen_ns = now_ns
