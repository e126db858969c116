"""The front process's heap: what requests free is kept for the next ones, and the garbage collector looks seldom."""

from __future__ import annotations

import contextlib
import ctypes
import gc

KEEP_BYTES = 64 << 20
"""Free memory at the heap's end that glibc keeps. By default it gives back what a 600 KB message took as soon as that
is answered, and the next one pays for the same pages again: a quarter of the front's CPU under such a load."""
MAX_HEAP_BLOCK_BYTES = 32 << 20
"""Blocks up to this come from the heap, larger ones as mappings of their own; glibc allows no more."""
GC_ALLOCATIONS = 50_000
"""Objects made and not freed before the garbage collector looks at the young ones."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory. Other C libraries have no such setting and stay as they are."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAX_HEAP_BLOCK_BYTES)


def collect_seldom() -> None:
    """Leave what start-up built out of collections, which lives as long as the server, and have few of them.

    Requests leave no cycles; walking those in flight every 700 allocations cost 5 % of the front's CPU.
    """
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 10)
