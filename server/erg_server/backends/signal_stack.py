"""The thread's alternate signal stack, kept as it is while a library does with it what it likes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of sigaltstack(2) on Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int | None, int, int]:
    """Address, flags and size of the calling thread's alternate signal stack."""
    now = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
    return now.sp, now.flags, now.size


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the calling thread back the stack that it had.

    Python's handlers run on the alternate stack where there is one. A library that sets one and frees it again leaves
    a process that the next signal kills with SIGSEGV.
    """
    before = _Stack()
    sigaltstack = ctypes.CDLL(None).sigaltstack
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
