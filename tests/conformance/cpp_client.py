"""The cases by C++ gRPC from Debian, an older C core than grpcio's: built once from one file, without stubs."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conformance.cases import Call, Result, fingerprint
from tests.conformance.endpoints import Endpoint

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "cpp" / "calls.cc"
BUILD_S, RUN_S = 300, 180
RESERVED = ("grpc-", "content-type", "date", "user-agent", "accept-encoding")


@functools.cache
def built() -> Path:
    """The program; skips where it cannot be built. Asked once: pkg-config alone takes a second."""
    compiler, finder = shutil.which("g++"), shutil.which("pkg-config")
    if compiler is None or finder is None:
        pytest.skip("g++ and pkg-config are not on PATH")
    asked = subprocess.run([finder, "--cflags", "--libs", "grpc++"], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip("C++ gRPC is not installed (Debian: libgrpc++-dev)")
    flags = asked.stdout.split()
    named = hashlib.sha256(SOURCE.read_bytes() + asked.stdout.encode()).hexdigest()[:16]
    program = ROOT / ".cache" / "conformance" / f"calls-{named}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, also where two runs build at once.
        made = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [compiler, "-O1", "-std=c++17", "-o", str(made), str(SOURCE), *flags],
            capture_output=True, text=True, check=False, timeout=BUILD_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.rename(program)
    return program


def run(endpoint: Endpoint, calls: Mapping[str, Call], *, together: bool) -> dict[str, Result]:
    """Make every call over one channel, one after the other or all at once."""
    root = "-" if endpoint.root_certificate is None else str(endpoint.root_certificate)
    done = subprocess.run(
        [str(built()), endpoint.address, root, "once" if together else "turn"],
        input="".join(line for call in calls.values() for line in _told(call)),
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(calls, _results(done.stdout), strict=True))


def _told(call: Call) -> Iterator[str]:
    deadline_ms = -1 if call.deadline_ms is None else call.deadline_ms
    cancel_after = -1 if call.cancel_after is None else call.cancel_after
    yield f"call {call.shape} {call.path} {deadline_ms} {cancel_after} {call.compression or '-'}\n"
    for key, value in call.metadata:
        yield f"meta {key} {(value.encode() if isinstance(value, str) else value).hex()}\n"
    for request in call.requests:
        yield f"send {request.hex()}\n"


def _results(printed: str) -> Iterator[Result]:
    lines = [line.split(" ") for line in printed.splitlines()]
    starts = [place for place, words in enumerate(lines) if words[0].isdigit()]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        code, details = lines[start]
        rest = lines[start + 1 : end]
        names = {words[1] for words in rest if words[0] == "meta"}
        yield Result(
            code=int(code),
            details=bytes.fromhex(details).decode(),
            answers=tuple(fingerprint(bytes.fromhex(words[1])) for words in rest if words[0] == "answer"),
            metadata=tuple(sorted(name for name in names if not name.startswith(RESERVED))),
        )
