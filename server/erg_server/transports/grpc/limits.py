"""What a peer may ask of the server. Every limit has a safe default; the sums say what a hostile one can cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection, and of all of them together where it says so."""

    message_bytes: int = 64 << 20
    """Largest message taken or sent."""
    concurrent_streams: int = 1024
    header_bytes: int = 16 << 10
    """Decoded header list of one call (RFC 9113, 10.5.1), and header block on the wire."""
    frame_bytes: int = 1 << 20
    """Largest frame taken: a large message in few frames."""
    stream_window_bytes: int = 1 << 20
    """What a caller may send of one message before it must wait: a 600 KB request arrives in one flight."""
    connection_window_bytes: int = 8 << 20
    connection_buffer_bytes: int = 128 << 20
    """Bytes that one connection's calls hold: incomplete messages, those a handler has not taken, and answers that
    the caller does not take. A message that would pass it is refused, and so are new calls while it is passed."""
    total_buffer_bytes: int = 1 << 30
    """The same over all connections."""

    control_frames: int = 512
    """PING, SETTINGS, PRIORITY, empty and unknown frames in one go; `control_frames_per_s` come back every second."""
    control_frames_per_s: int = 100
    resets: int = 512
    """Calls that the caller may reset in one go (CVE-2023-44487); each answered call earns one back."""
    resets_per_s: int = 100
    continuation_frames: int = 32
    """CONTINUATION frames of one header block (CVE-2024-27316)."""

    handshake_s: float = 10.0
    """From the connection to its preface and SETTINGS."""
    stall_s: float = 60.0
    """How long a header block may take, and a message or an answer to move on by `stall_bytes`."""
    stall_bytes: int = 16 << 10
    idle_s: float = 0.0
    """A connection without calls is closed after this; 0 keeps it."""
    age_s: float = 0.0
    """A connection is drained after this, so that callers spread over new servers; 0 keeps it."""
    age_grace_s: float = 0.0
    """What calls of a connection that is too old have to end; 0 is as long as they take."""
    keepalive_s: float = 7200.0
    """Silence after which a PING asks whether the peer is there; `keepalive_timeout_s` is how long it may take."""
    keepalive_timeout_s: float = 20.0
    linger_s: float = 1.0
    """What the peer has to read the last frames and close, before its connection is torn down."""


class BufferAccount:
    """Bytes that the connections of one server hold for their calls."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0


class Budget:
    """A bounded allowance that refills with time: what a peer may do that costs the server and earns it nothing."""

    __slots__ = ("_left", "_per_ns", "_size", "_spent_ns")

    def __init__(self, size: int, per_s: int, now_ns: int) -> None:
        self._size = size
        self._left = float(size)
        self._per_ns = per_s / 1e9
        self._spent_ns = now_ns

    def spend(self, now_ns: int) -> bool:
        """Take one; False if nothing is left."""
        self._left = min(self._size, self._left + (now_ns - self._spent_ns) * self._per_ns) - 1
        self._spent_ns = now_ns
        return self._left >= 0

    def earn(self) -> None:
        """Give one back."""
        if self._left < self._size:
            self._left += 1
