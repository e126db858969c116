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

    def cancelled(self) -> None:
        """The caller reset the stream, or the connection is gone: nobody waits for the answer."""
        ...


class Stream:
    """State of one stream. Windows are in bytes; `progress_ns` is when its peer last made progress."""

    __slots__ = (
        "call",
        "drained",
        "ends",
        "head",
        "number",
        "pending",
        "pending_bytes",
        "progress_ns",
        "receive_left",
        "remote_closed",
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
        self.progress_ns = now_ns
        # What the windows did not let through yet: payloads of DATA, then the block of the trailers.
        self.pending: deque[bytes | memoryview] = deque()
        self.pending_bytes = 0
        self.trailers: bytes | None = None
        # Who waits for room to send more.
        self.drained: Future[None] | None = None
        # Whether its last frame has been queued.
        self.ends = False
