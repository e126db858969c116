"""Which stream numbers of a connection mean what: not yet opened, open, ended, or ignored since a GOAWAY."""

from __future__ import annotations

from collections import deque
from typing import Final

from erg_server.transports.grpc.frames import MAX_STREAM, ConnectionFault, ErrorCode

REMEMBERED_RESETS: Final = 256


class StreamNumbers:
    """The peer's numbers only rise (RFC 9113, 5.1.1), so that one number tells idle streams from ended ones."""

    __slots__ = ("_ignored", "_reset_by_us", "last", "promised")

    def __init__(self) -> None:
        self.last = 0
        # The last number that a final GOAWAY said is answered; what comes after it is not looked at.
        self.promised = MAX_STREAM
        self._ignored = 0
        self._reset_by_us: deque[int] = deque(maxlen=REMEMBERED_RESETS)

    @property
    def answered(self) -> int:
        """What a GOAWAY may say now: it never says more than one before it did."""
        return min(self.last, self.promised)

    def promise(self) -> int:
        """Take no more streams; returns the last one that is answered."""
        self.promised = self.answered
        return self.promised

    def ignore(self, most: int) -> None:
        """A stream came after the GOAWAY, of which the peer did not know yet.

        Raises:
            ConnectionFault: so many came that it must know.
        """
        self._ignored += 1
        if self._ignored > most:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams after GOAWAY")

    def reset_by_us(self, number: int) -> None:
        """Remember that frames of this stream may still be under way, through no fault of the peer's."""
        self._reset_by_us.append(number)

    def was_reset_by_us(self, number: int) -> bool:
        """Whether a frame for a stream that has ended is to be ignored."""
        return number > self.promised or number in self._reset_by_us

    def check_known(self, number: int) -> None:
        """Raises ConnectionFault for a stream that the peer has not opened (RFC 9113, 5.1: idle)."""
        if number == 0 or number > self.last or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} has not been opened")
