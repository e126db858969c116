"""Shared tensor memory."""

from __future__ import annotations

import gc
import mmap
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from erg_server.workers import slab as slab_module
from erg_server.workers.slab import ALIGNMENT, KEEP_BYTES, Slab, aligned
from hypothesis import given
from hypothesis import strategies as st

PAGE = mmap.PAGESIZE


@given(st.integers(0, 1 << 60))
def test_the_next_offset_is_the_first_aligned_one(offset: int) -> None:
    assert aligned(offset) % ALIGNMENT == 0
    assert 0 <= aligned(offset) - offset < ALIGNMENT


def test_slots_do_not_overlap_and_end_at_their_bounds() -> None:
    slab = Slab.create(slots=3, slot_bytes=PAGE)
    for number, slot in enumerate(slab.slots):
        slot[:] = bytes([number + 1]) * PAGE
    assert [bytes(slot) for slot in slab.slots] == [bytes([number]) * PAGE for number in (1, 2, 3)]
    with pytest.raises(IndexError):
        slab.slots[0][PAGE] = 1
    with pytest.raises(ValueError, match="assignment"):
        slab.slots[0][PAGE - 1 : PAGE + 1] = b"xx"
    slab.close()


def test_a_slab_takes_the_memory_of_pages_that_were_written_until_they_are_given_back() -> None:
    slab = Slab.create(slots=2, slot_bytes=16 << 20)
    assert slab.used_bytes == 0
    size = KEEP_BYTES + 5 * PAGE
    slab.slots[1][:size] = bytes(size)
    assert slab.used_bytes == size
    slab.trim(1, size)
    assert slab.used_bytes == KEEP_BYTES
    slab.close()


def test_a_new_slab_is_zero_and_takes_no_memory() -> None:
    slab = Slab.create(slots=2, slot_bytes=1 << 30)
    assert os.fstat(slab.fd).st_blocks == 0
    assert bytes(slab.slots[1][-8:]) == bytes(8)
    slab.close()


def test_an_empty_tensor_is_a_view_of_nothing() -> None:
    slab = Slab.create(slots=1, slot_bytes=PAGE)
    array = np.frombuffer(slab.slots[0][64:64], np.float32).reshape(0, 3)
    assert array.shape == (0, 3)
    del array
    slab.close()


def test_a_passed_descriptor_maps_the_same_memory() -> None:
    slab = Slab.create(slots=2, slot_bytes=PAGE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"slab"], [slab.fd])
        _, (fd,), _, _ = socket.recv_fds(theirs, 16, 1)
    other = Slab(fd, slots=2, slot_bytes=PAGE)
    slab.slots[1][:5] = b"there"
    assert bytes(other.slots[1][:5]) == b"there"
    slab.close()
    other.slots[1][:5] = b"still"
    assert bytes(other.slots[1][:5]) == b"still"
    other.close()


def test_it_has_no_name_that_another_process_could_open_and_is_not_inherited() -> None:
    slab = Slab.create(slots=1, slot_bytes=PAGE)
    assert str(Path(f"/proc/self/fd/{slab.fd}").readlink()) == "/memfd:erg-slab (deleted)"
    assert not os.get_inheritable(slab.fd)
    slab.close()


@pytest.mark.interpreted
@pytest.mark.parametrize("slot_bytes", [5 * PAGE, 5 * PAGE + 1, 6 * PAGE - 1])
def test_trimming_a_slot_gives_memory_back_and_touches_no_other(
    slot_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slab_module, "KEEP_BYTES", 2 * PAGE)
    slab = Slab.create(slots=3, slot_bytes=slot_bytes)
    assert slab.slot_bytes >= slot_bytes
    for slot in slab.slots:
        slot[:] = b"\x07" * len(slot)
    full = os.fstat(slab.fd).st_blocks
    slab.trim(1, slab.slot_bytes)
    assert (full - os.fstat(slab.fd).st_blocks) * 512 == slab.slot_bytes - 2 * PAGE
    assert bytes(slab.slots[1]) == b"\x07" * 2 * PAGE + bytes(slab.slot_bytes - 2 * PAGE)
    for other in (0, 2):
        assert bytes(slab.slots[other]) == b"\x07" * slab.slot_bytes
    slab.close()


@pytest.mark.interpreted
def test_a_slot_keeps_what_ordinary_batches_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slab_module, "KEEP_BYTES", 2 * PAGE)
    slab = Slab.create(slots=1, slot_bytes=4 * PAGE)
    slab.slots[0][: 2 * PAGE] = b"x" * 2 * PAGE
    for used in (0, 1, 2 * PAGE):
        slab.trim(0, used)
    assert bytes(slab.slots[0][: 2 * PAGE]) == b"x" * 2 * PAGE
    slab.close()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_closing_leaves_no_descriptor() -> None:
    before = descriptors()
    for _ in range(5):
        Slab.create(slots=2, slot_bytes=PAGE).close()
    assert descriptors() <= before


def test_a_view_that_outlives_the_slab_stays_readable_and_then_gives_all_back() -> None:
    before = descriptors()
    slab = Slab.create(slots=2, slot_bytes=PAGE)
    slab.slots[0][:4] = b"kept"
    view = slab.slots[0][:4]
    slab.close()
    assert bytes(view) == b"kept"
    del view, slab
    gc.collect()
    assert descriptors() <= before


def test_a_slab_that_cannot_be_made_leaves_no_descriptor() -> None:
    before = descriptors()
    with pytest.raises((OSError, OverflowError, ValueError)):
        Slab.create(slots=1 << 20, slot_bytes=1 << 45)
    assert descriptors() <= before
