"""Tensor memory that front and worker both map: an anonymous file with no name anybody else could open."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import Final

ALIGNMENT: Final = 64
"""A cache line, and what vectorised kernels like their tensors to start at."""
KEEP_BYTES: Final = 8 << 20
"""Memory that a slot keeps between batches; what a larger batch took beyond it goes back to the system."""


def aligned(offset: int) -> int:
    """The next offset at which a tensor may start."""
    return (offset + ALIGNMENT - 1) & -ALIGNMENT


class Slab:
    """`slots` regions of `slot_bytes` each. The file is sparse: address space is reserved, pages come with use."""

    def __init__(self, fd: int, *, slots: int, slot_bytes: int) -> None:
        self.fd = fd
        self.slot_bytes = slot_bytes
        self._map = mmap.mmap(fd, slots * slot_bytes)
        view = memoryview(self._map)
        self.slots = tuple(view[at : at + slot_bytes] for at in range(0, slots * slot_bytes, slot_bytes))
        view.release()

    @classmethod
    def create(cls, *, slots: int, slot_bytes: int) -> Slab:
        """A new slab, its slots rounded up to whole pages; the caller passes `fd` on and closes the slab."""
        # `trim` gives back whole pages, which must not be the next slot's.
        slot_bytes = _page_end(slot_bytes)
        fd = os.memfd_create("erg-slab", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, slots * slot_bytes)
            return cls(fd, slots=slots, slot_bytes=slot_bytes)
        except BaseException:
            os.close(fd)
            raise

    def trim(self, slot: int, used_bytes: int) -> None:
        """Give back what a batch of `used_bytes` used beyond what a slot keeps."""
        if used_bytes > KEEP_BYTES:
            start = slot * self.slot_bytes + KEEP_BYTES
            end = slot * self.slot_bytes + min(self.slot_bytes, _page_end(used_bytes))
            self._map.madvise(mmap.MADV_REMOVE, start, end - start)

    @property
    def used_bytes(self) -> int:
        """Memory that the file takes now: pages that were written and not given back."""
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        """Close the file and unmap it. While a view of a slot is left, the mapping stays until that is gone."""
        os.close(self.fd)
        with contextlib.suppress(BufferError):
            for slot in self.slots:
                slot.release()
            self._map.close()


def _page_end(size: int) -> int:
    return (size + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
