"""What every transport is to the server's lifecycle, and what a call is to a method."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message


# Not frozen, which would make making one, as each call does, twice as slow; nothing changes one.
@dataclass(slots=True, init=False)
class CallContext:
    """What a method may know of its call.

    `deadline_ns` is on the server's monotonic clock, or None. `metadata` is the caller's, keys ending in -bin as bytes.
    `trailers` is the method's to set before it answers: ASCII that goes out behind the answer of a unary call.
    """

    arrival_ns: int
    deadline_ns: int | None
    metadata: tuple[tuple[str, str | bytes], ...]
    trailers: tuple[tuple[str, str], ...]

    def __init__(
        self,
        *,
        arrival_ns: int,
        deadline_ns: int | None = None,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
    ) -> None:
        self.arrival_ns = arrival_ns
        self.deadline_ns = deadline_ns
        self.metadata = metadata
        self.trailers = ()


Done = Callable[[Sequence[bytes | memoryview] | None, BaseException | None], None]
"""Takes a serialized answer in parts that follow each other, or an error."""
StartHandler = Callable[[bytes | memoryview, CallContext, Done], Callable[[], None]]
"""Starts a call from its serialized request and returns what cancels it. `Done` is called once, later, and not after a
cancellation; raises where the call is not accepted."""
UnaryHandler = Callable[[Any, CallContext], Coroutine[Any, Any, Message]]
StreamBytesHandler = Callable[
    [AsyncIterator[bytes | memoryview], CallContext], AsyncIterator[Sequence[bytes | memoryview]]
]
StreamHandler = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Message]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a service. Exactly one of `unary` and `stream` is set.

    A method with `server_streaming` only (health's Watch) is a stream that reads one request. `start` does what
    `unary` does for transports that take callbacks: without a task, and without protobuf where it can. `stream_bytes`
    does what `stream` does for transports that hand over serialized messages and take answers in parts.
    """

    path: str
    request: type[Message]
    response: type[Message]
    unary: UnaryHandler | None = None
    stream: StreamHandler | None = None
    client_streaming: bool = False
    start: StartHandler | None = None
    stream_bytes: StreamBytesHandler | None = None

    def parse(self, raw: bytes | bytearray | memoryview) -> Message:
        """Read a request; raises DecodeError for bytes that are none."""
        return self.request.FromString(raw)  # type: ignore[arg-type]  # it takes any buffer

    def serialize(self, message: Message) -> Sequence[bytes | memoryview]:
        """Write an answer, in parts that follow each other."""
        return (message.SerializeToString(),)


class Transport(Protocol):
    """A listening front end."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, host:port."""
        ...

    async def start(self) -> None:
        """Listen; raises UnavailableError where an address is taken."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls and return when the accepted ones are answered, or after `timeout_s`."""
        ...

    async def stop(self) -> None:
        """Drop every call and stop listening."""
        ...
