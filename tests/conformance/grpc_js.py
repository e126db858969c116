"""The cases by grpc-js, whose HTTP/2 is Node's: installed once, at the versions of its lock file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cases import Call, Result
from tests.conformance.endpoints import Endpoint

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "node"
INSTALL_FILES = ("package.json", "package-lock.json", ".npmrc")
INSTALL_S, RUN_S = 300, 180


def installed() -> Path:
    """The folder of its packages; skips where Node is not, or no registry can be reached to install from."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on PATH (Debian: nodejs and npm)")
    contents = b"".join((PROGRAM / name).read_bytes() for name in INSTALL_FILES)
    folder = ROOT / ".cache" / "conformance" / f"node-{hashlib.sha256(contents).hexdigest()[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            for name in INSTALL_FILES:
                shutil.copy(PROGRAM / name, made)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts"],
                cwd=made,
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_S,
            )
            if done.returncode and "network" in done.stderr and not os.environ.get("CI"):
                pytest.skip(f"npm reaches no registry: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
            # Whole or not at all, also where two runs install at once.
            Path(made, "node_modules").rename(folder)
    return folder


def run(
    endpoint: Endpoint, calls: Mapping[str, Call], *, together: bool, loaded: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Result]:
    """Make every call over one channel, one after the other or all at once."""
    lines = start(endpoint, calls, together=together, loaded=loaded)
    return {
        line["name"]: Result(
            code=line["code"],
            details=line["details"] if line["code"] else "",
            answers=tuple(line["answers"]),
            metadata=tuple(line["metadata"]),
        )
        for line in lines
    }


def start(
    endpoint: Endpoint, calls: Mapping[str, Call], *, together: bool = False, loaded: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Every line that the program prints."""
    root = "-" if endpoint.root_certificate is None else str(endpoint.root_certificate)
    wanted = {"calls": [call.as_json(name) for name, call in calls.items()], "together": together, "loaded": loaded}
    done = subprocess.run(
        ["node", str(PROGRAM / "calls.js"), endpoint.address, root, str(ROOT / "protos")],
        input=json.dumps(wanted),
        env=os.environ | {"NODE_PATH": str(installed())},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
