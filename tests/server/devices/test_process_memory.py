"""A process's memory, from the kernel's own files and from such as other kernels would have."""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

import pytest
from erg_server.devices.process_memory import ProcessMemory, parse_kilobytes, process_memory
from hypothesis import given
from hypothesis import strategies as st

STATUS = "Name:\tpython\nState:\tS (sleeping)\nVmHWM:\t     900 kB\nVmRSS:\t     800 kB\nRssShmem:\t     300 kB\n"
ROLLUP = "55d0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:  800 kB\nPss:  600 kB\nPss_Shmem:  150 kB\n"


def proc(folder: Path, status: str | None, rollup: str | None) -> Path:
    (folder / "7").mkdir()
    for name, text in (("status", status), ("smaps_rollup", rollup)):
        if text is not None:
            (folder / "7" / name).write_text(text)
    return folder


def test_this_process_has_memory_of_its_own_which_grows_with_what_it_writes() -> None:
    before = process_memory(os.getpid())
    assert before is not None
    assert before.rss_bytes <= before.peak_rss_bytes
    assert before.pss_bytes is not None
    assert 0 < before.own_bytes <= before.pss_bytes <= before.rss_bytes
    size = 64 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as private:
        private.write(b"x" * size)
        after = process_memory(os.getpid())
        assert after is not None
        assert after.own_bytes - before.own_bytes > size // 2
    with mmap.mmap(-1, size) as shared:
        shared.write(b"x" * size)
        after = process_memory(os.getpid())
        assert after is not None
        assert after.pss_bytes is not None
        assert after.pss_bytes - after.own_bytes >= size, "a shared mapping is a memory file's, as a slab is"


def test_without_the_right_to_the_proportional_set_it_is_the_resident_one(tmp_path: Path) -> None:
    kb = 1024
    assert process_memory(7, proc(tmp_path, STATUS, ROLLUP)) == ProcessMemory(
        rss_bytes=800 * kb, peak_rss_bytes=900 * kb, pss_bytes=600 * kb, own_bytes=450 * kb
    )
    (tmp_path / "7" / "smaps_rollup").unlink()
    assert process_memory(7, tmp_path) == ProcessMemory(
        rss_bytes=800 * kb, peak_rss_bytes=900 * kb, pss_bytes=None, own_bytes=500 * kb
    )


@pytest.mark.parametrize("status", [None, "Name:\tpython\nState:\tZ (zombie)\n"])
def test_a_process_that_ended_has_none(tmp_path: Path, status: str | None) -> None:
    assert process_memory(7, proc(tmp_path, status, None)) is None


def test_a_process_that_ended_and_is_not_waited_for_has_none() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_memory(process.pid) is None


@given(st.text())
def test_whatever_a_file_of_proc_says_is_numbers_or_left_out(text: str) -> None:
    assert all(value >= 0 for value in parse_kilobytes(text).values())


def test_only_lines_of_kilobytes_count() -> None:
    assert parse_kilobytes("Pss: 12 kB\nThreads:\t3\nVmRSS:\t-4 kB\nOdd\nA: ² kB\n") == {"Pss": 12 * 1024}
