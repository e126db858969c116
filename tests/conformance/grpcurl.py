"""grpcurl, gRPC's Go client on the command line, from its package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN_S = 60


def binary() -> str:
    """The packaged program, or the one on PATH; skips where neither is."""
    packaged = Path(sys.executable).with_name("grpcurl")
    found = str(packaged) if packaged.exists() else shutil.which("grpcurl")
    if found is None:
        pytest.skip("grpcurl is not there: its package has a program for Linux on x86_64 only")
    return found


def grpcurl(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Its exit status (64 and the call's code, where that failed), what it printed, and what it complained of."""
    done = subprocess.run(
        [binary(), *arguments], input=stdin, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    return done.returncode, done.stdout, done.stderr
