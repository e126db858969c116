"""CPU time of processes and of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from erg_server.energy.cpu_time import ProcessTime, machine_cpu_ns, process_cpu_ns


def test_the_clock_of_this_process_is_its_own() -> None:
    before_ns = time.process_time_ns()
    found_ns = process_cpu_ns(os.getpid())
    assert found_ns is not None
    assert before_ns <= found_ns <= time.process_time_ns()


def test_another_process_is_told_to_better_than_a_tick() -> None:
    code = "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # It has run.
        found_ns = process_cpu_ns(child.pid)
        times = psutil.Process(child.pid).cpu_times()
        assert found_ns is not None
        assert 0 < found_ns < (times.user + times.system + 60) * 1e9
        child.communicate(b"\n")
    assert process_cpu_ns(child.pid) is None


def test_without_such_clocks_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(clock: int) -> int:
        raise OSError(22, f"no clock {clock}")

    monkeypatch.setattr("erg_server.energy.cpu_time.time.clock_gettime_ns", refused)
    found_ns = process_cpu_ns(os.getpid())
    assert found_ns is not None
    assert found_ns > 0


def test_the_machines_time_leaves_idleness_out(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9999 777 4 5 66 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert machine_cpu_ns(stat) == (100 + 20 + 30 + 4 + 5) * tick_ns
    stat.write_text("nonsense\n")
    assert machine_cpu_ns(stat) is None
    assert machine_cpu_ns(tmp_path / "none") is None


def test_a_worker_that_restarts_goes_on_counting() -> None:
    worker = ProcessTime()
    assert worker.observe(None, None) == 0
    assert worker.observe(10, 500) == 500
    assert worker.observe(10, 700) == 200
    assert worker.observe(10, None) == 0
    assert worker.observe(11, 40) == 40
    assert worker.observe(11, 30) == 0
    assert worker.total_ns == 740
