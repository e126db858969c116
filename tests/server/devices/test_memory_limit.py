"""The memory limit over a process, from files of both versions of control groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from erg_server.devices.memory_limit import read_memory_limit
from erg_server.telemetry.limit_families import LimitSample
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30


@dataclass
class Host:
    total: int = 16 * GIB
    available: int = 10 * GIB


HOST = LimitSample(scope="host", limit_bytes=16 * GIB, used_bytes=6 * GIB)


def group(folder: Path, *, limit: str, usage: int, inactive: int, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, usage_name = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / usage_name).write_text(f"{usage}\n")
    prefix = "" if version == 2 else "total_"
    (folder / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {inactive}\n{prefix}active_file 7\n")


def read(tmp_path: Path, groups: str, mounts: str = "cgroup") -> LimitSample:
    (tmp_path / "groups").write_text(groups)
    return read_memory_limit(tmp_path / "groups", tmp_path / mounts, Host)


def test_a_containers_limit_and_its_working_set_are_told(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", limit=str(2 * GIB), usage=GIB, inactive=GIB // 4)
    expected = LimitSample(scope="container", limit_bytes=2 * GIB, used_bytes=GIB - GIB // 4)
    assert read(tmp_path, "0::/\n") == expected
    # Version 2 without a namespace of its own: the path is the host's, the mount is the container's.
    assert read(tmp_path, "0::/kubepods.slice/pod1/container2\n") == expected


def test_version_1_is_read_from_its_memory_controller(tmp_path: Path) -> None:
    group(tmp_path / "cgroup/memory/pod", limit=str(GIB), usage=GIB // 2, inactive=0, version=1)
    groups = "5:devices:/other\n4:cpu,memory:/pod\n0::/\n"
    assert read(tmp_path, groups) == LimitSample(scope="container", limit_bytes=GIB, used_bytes=GIB // 2)


def test_the_closest_limit_counts_whichever_group_has_it(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", limit="max", usage=9 * GIB, inactive=0)
    group(tmp_path / "cgroup/slice", limit=str(GIB), usage=GIB // 2, inactive=0)
    group(tmp_path / "cgroup/slice/service", limit=str(4 * GIB), usage=GIB // 8, inactive=0)
    told = read(tmp_path, "0::/slice/service\n")
    assert told == LimitSample(scope="container", limit_bytes=GIB, used_bytes=GIB // 2)


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, "9223372036854771712"), (2, str(64 * GIB))])
def test_a_group_without_a_limit_has_the_hosts(tmp_path: Path, version: int, limit: str) -> None:
    folder = tmp_path / "cgroup" / ("memory" if version == 1 else "")
    group(folder, limit=limit, usage=GIB, inactive=0, version=version)
    assert read(tmp_path, "1:memory:/\n" if version == 1 else "0::/\n") == HOST


def test_files_that_are_not_there_or_make_no_sense_leave_the_host(tmp_path: Path) -> None:
    assert read_memory_limit(tmp_path / "none", tmp_path, Host) == HOST
    assert read(tmp_path, "0::/\n") == HOST
    group(tmp_path / "cgroup", limit=str(GIB), usage=GIB, inactive=0)
    for name, text in (("memory.stat", "inactive_file"), ("memory.stat", "anon 5\n"), ("memory.current", "much")):
        kept = (tmp_path / "cgroup" / name).read_text()
        (tmp_path / "cgroup" / name).write_text(text)
        assert read(tmp_path, "0::/\n") == HOST, name
        (tmp_path / "cgroup" / name).write_text(kept)


@given(st.text(alphabet=st.sampled_from("0:/.\nmemory,é "), max_size=40))
def test_any_list_of_groups_gives_some_limit(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    assert read(tmp_path_factory.getbasetemp(), text) == HOST


def test_this_process_has_a_limit_of_its_own_or_the_hosts() -> None:
    told = read_memory_limit()
    assert 0 < told.used_bytes <= told.limit_bytes <= psutil.virtual_memory().total
