"""The heap's settings, each in a process of its own, since they are the process's."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MIB = 1 << 20
PROGRAM = """
import gc
from erg_server import heap
from erg_server.workers.loop import resident_bytes
{setting}
before = resident_bytes()
blocks = [bytes(600_000) + b"x" for _ in range({count})]
full = resident_bytes()
blocks.clear()
print(full - before, resident_bytes() - before, gc.get_threshold()[0], gc.get_freeze_count())
"""


def run(setting: str, count: int) -> list[int]:
    """Bytes held at most, bytes held after all was freed, and the collector's settings."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(setting=setting, count=count)], capture_output=True, text=True, check=True
    )
    return [int(text) for text in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_what_messages_took_is_kept_up_to_a_bound_and_given_back_beyond() -> None:
    full, left, *_ = run("heap.keep_freed_memory()", 50)
    assert full > 25 * MIB
    assert left > full - 2 * MIB
    full, left, *_ = run("heap.keep_freed_memory()", 400)
    assert full > 200 * MIB
    assert left < 80 * MIB
    full, left, *_ = run("", 50)
    assert left < full - 20 * MIB, "without the setting glibc keeps it too, and the setting does nothing"


def test_what_is_there_is_left_out_of_collections_which_come_seldom() -> None:
    *_, allocations, frozen = run("heap.collect_seldom()", 1)
    assert allocations == 50_000
    assert frozen > 1000
