"""RAPL, over a powercap tree made for the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from erg_server.energy.power_source import Activity
from erg_server.energy.rapl_power import RaplPower, find_rapl

from tests.server.energy.builders import S
from tests.server.energy.powercap import write_zone


def at(now_ns: int) -> Activity:
    return Activity(now_ns=now_ns, cpu_ns=0, held_ns={})


def test_packages_and_memory_are_one_domain_and_what_is_within_them_is_not_counted_twice(tmp_path: Path) -> None:
    package = write_zone(tmp_path, "intel-rapl:0", "package-0", 1000)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 2000)
    memory = write_zone(tmp_path, "intel-rapl:0:2", "dram", 3000)
    others = [
        write_zone(tmp_path, "intel-rapl:0:0", "core", 1),
        write_zone(tmp_path, "intel-rapl:0:1", "uncore", 1),
        write_zone(tmp_path, "intel-rapl:2", "psys", 1),
        write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1),
    ]
    zones, reason = find_rapl(tmp_path)
    power = RaplPower(zones)
    assert reason == ""
    assert [zone.name for zone in zones] == ["package-0", "0/dram", "package-1"]
    assert power.read(at(0)) == 0
    for path, energy_uj in [(package, 1100), (second, 2010), (memory, 3001), *((each, 999) for each in others)]:
        path.write_text(f"{energy_uj}\n")
    assert power.read(at(S)) == 111
    assert (power.domain, power.source) == ("cpu", "measured")
    power.close()


def test_each_zone_wraps_at_its_own_range(tmp_path: Path) -> None:
    package = write_zone(tmp_path, "intel-rapl:0", "package-0", 990, range_uj=1000)
    memory = write_zone(tmp_path, "intel-rapl:0:0", "dram", 60, range_uj=64)
    power = RaplPower(find_rapl(tmp_path)[0])
    power.read(at(0))
    package.write_text("5\n")
    memory.write_text("6\n")
    assert power.read(at(S)) == 15 + 10
    power.close()


def test_a_zone_that_does_not_answer_once_is_made_up_for_by_its_next_reading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = write_zone(tmp_path, "intel-rapl:0", "package-0", 100)
    memory = write_zone(tmp_path, "intel-rapl:0:0", "dram", 100)
    power = RaplPower(find_rapl(tmp_path)[0])
    power.read(at(0))
    package.write_text("150\n")
    memory.write_text("")
    assert power.read(at(S)) == 50
    package.write_text("")
    assert power.read(at(2 * S)) is None
    assert power.read(at(3 * S)) is None
    assert caplog.text.count("package-0") == 1  # told once
    package.write_text("160\n")
    memory.write_text("107\n")
    assert power.read(at(4 * S)) == 60 + 7
    package.write_text("")
    power.read(at(5 * S))
    assert caplog.text.count("package-0") == 2
    power.close()


def test_a_machine_without_it_is_told_so(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        zones, reason = find_rapl(root)
        assert zones == ()
        assert f"there is no RAPL under {root}" in reason


def test_counters_that_root_alone_may_read_are_told_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0")
    secret = write_zone(tmp_path, "intel-rapl:0:0", "dram")
    opened: list[int] = []
    really_open = os.open

    def guarded(path: os.PathLike[str], flags: int) -> int:
        if Path(path) == secret:  # tests run as root, whom no mode keeps out
            raise PermissionError(13, "Permission denied", str(path))
        opened.append(really_open(path, flags))
        return opened[-1]

    monkeypatch.setattr("erg_server.energy.rapl_power.os.open", guarded)
    zones, reason = find_rapl(tmp_path)
    assert zones == ()  # a package without its memory would pose as the whole
    assert f"{secret} can be read by root alone" in reason
    assert "chmod a+r" in reason
    assert len(opened) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
