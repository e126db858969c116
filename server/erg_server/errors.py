"""The errors Erg tells its callers about, each with the one status code that every transport translates."""

from __future__ import annotations

import enum

MAX_MESSAGE_BYTES = 2000
"""Clients drop a whole status whose headers pass 8 KiB, and a byte of its message may take three there."""


class StatusCode(enum.IntEnum):
    """Canonical status codes; the numbers are gRPC's, which is where most callers meet them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ErgError(Exception):
    """An error with a cause the caller can read; its message is sent to the caller as it is.

    So are `trailers`, keys and values of ASCII that programs read, where the answer has a place for them.
    """

    code = StatusCode.INTERNAL

    def __init__(self, *args: object, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(*args)
        self.trailers = trailers

    @property
    def message(self) -> str:
        """The text that the caller receives, cut after `MAX_MESSAGE_BYTES`."""
        text = str(self.args[0]) if self.args else self.__class__.__name__
        # A path may hold bytes that are no UTF-8, which no status can carry.
        raw = text.encode(errors="replace")
        if len(raw) <= MAX_MESSAGE_BYTES:
            return raw.decode()
        return f"{raw[:MAX_MESSAGE_BYTES].decode(errors='ignore')}…"


class InvalidArgumentError(ErgError):
    """The request contradicts the model's signature or the protocol."""

    code = StatusCode.INVALID_ARGUMENT


class NotFoundError(ErgError):
    """No such model, version, region or setting."""

    code = StatusCode.NOT_FOUND


class AlreadyExistsError(ErgError):
    """The name is taken."""

    code = StatusCode.ALREADY_EXISTS


class FailedPreconditionError(ErgError):
    """The server is not in a mode in which this call means anything."""

    code = StatusCode.FAILED_PRECONDITION


class ResourceExhaustedError(ErgError):
    """A bounded queue, region or message limit is full."""

    code = StatusCode.RESOURCE_EXHAUSTED


class UnavailableError(ErgError):
    """The model or the server cannot answer now, and may later."""

    code = StatusCode.UNAVAILABLE


class DeadlineExceededError(ErgError):
    """The request's time ran out before a worker took it."""

    code = StatusCode.DEADLINE_EXCEEDED


class CancelledError(ErgError):
    """The caller went away before a worker took the request."""

    code = StatusCode.CANCELLED


class UnimplementedError(ErgError):
    """This build or this machine cannot do what was asked."""

    code = StatusCode.UNIMPLEMENTED


class InternalError(ErgError):
    """A fault of Erg or of a backend."""

    code = StatusCode.INTERNAL
