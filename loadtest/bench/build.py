"""Builds the C++ programs of the benchmarks. Debian: libgrpc++-dev, protobuf-compiler-grpc, g++."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "cpp"


def built(name: str, folder: Path | None = None) -> Path:
    """The program of that name, built in `folder` (None: one that later runs find again) where it is out of date."""
    out = (folder or Path(tempfile.gettempdir()) / "erg-bench-cpp").resolve()
    program = out / name
    make = shutil.which("make") or "make"
    subprocess.run([make, "-s", "-C", str(SOURCES), f"OUT={out}", f"-j{os.cpu_count()}", str(program)], check=True)
    return program
