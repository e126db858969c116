"""Ends a conversion in good order: at a signal, and where the disk is full."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from erg_converters.errors import ConversionError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(ConversionError):
    """There is no room to write what comes next; no candidate could go on."""


class ReportLostError(ConversionError):
    """A version was published, and what was found on the way could not be written down."""


class Terminated(KeyboardInterrupt):  # it ends what an interrupt ends
    """SIGTERM came."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, says that a disk or a quota is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextmanager
def telling_full_disk(cache: Path, recipe: Path, *, writing: Path | None = None) -> Iterator[None]:
    """Turn a full disk into a DiskFullError that says what to do; other errors pass.

    `writing` is where the block writes, for errors that do not say it themselves; by default the cache.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError | ReportLostError) or not is_disk_full(error):
            raise
        # Of a copy the second name is the one that was written.
        place = getattr(error, "filename2", None) or getattr(error, "filename", None) or writing or cache
        raise DiskFullError(
            f"the disk is full at {place}; nothing was published and every finished step is kept in {cache}: free some "
            f"space, or name another cache with --cache, then `erg convert resume {recipe}`"
        ) from error


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, by a KeyboardInterrupt, so that it cleans up behind itself."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; who runs conversions elsewhere stops them otherwise.
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
