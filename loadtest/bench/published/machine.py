"""Where a run took place: the machine, the versions, and whether anybody else was using it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$", re.MULTILINE)
_LOOK_S = 2.0


def described() -> str:
    """The processor and how many of its CPUs are ours."""
    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{len(os.sched_getaffinity(0))} CPUs of {name}"


def pinned(requirements: Path) -> dict[str, str]:
    """The versions that a requirements file names."""
    return dict(_PINNED.findall(requirements.read_text(encoding="utf-8")))


def versions(rivals: Path, *, build: str) -> dict[str, str]:
    """What takes part, as a reader would look for it."""
    mlserver, mosec = pinned(rivals / "mlserver.txt"), pinned(rivals / "mosec.txt")
    found = {"Python": platform.python_version(), f"Erg ({build})": _version("erg")}
    found |= {"MLServer": mlserver["mlserver"], "Mosec": mosec["mosec"]}
    return found | {"ONNX Runtime": _version("onnxruntime"), "OpenVINO": _version("openvino")}


def busy_cores() -> float:
    """How many cores are in use now, by whatever runs; takes two seconds."""
    share: float = psutil.cpu_percent(interval=_LOOK_S)
    return share / 100 * (psutil.cpu_count() or 1)


def split_cores(available: Sequence[int], workers: int) -> tuple[list[int], list[int]]:
    """Cores of the servers, one a worker, and of the client: the others, or the same where there are no others."""
    servers = list(available)[:workers]
    return servers, list(available)[workers:] or servers


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores only, for good."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
