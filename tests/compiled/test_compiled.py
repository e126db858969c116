"""The wheel that pip builds, with its compiled modules, passes the tests of the source."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEEL = ROOT / "build" / "compiled"
SUITES = ("tests/server", "tests/contract", "tests/conformance", "tests/e2e")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(WHEEL)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def _wheel() -> None:
    if not (WHEEL / ".stamp").exists():
        pytest.skip("the wheel is not built: make compiled")
    if not list(WHEEL.glob("*.so")):
        pytest.skip("the wheel has no compiled modules: make compiled says why")


def test_every_module_that_is_to_be_compiled_is() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    modules = build["targets"]["wheel"]["hooks"]["custom"]["modules"]
    names = [path.removesuffix(".py").replace("/", ".") for path in modules]
    assert len(names) > 30
    listing = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]))"
    done = run("-c", listing, *names)
    assert done.returncode == 0, done.stdout
    files = done.stdout.split()
    assert len(files) == len(names)
    assert [file for file in files if not (file.startswith(str(WHEEL)) and file.endswith(".so"))] == []


@pytest.mark.slow
def test_the_tests_of_the_server_pass_with_its_modules_compiled() -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not interpreted", *SUITES)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " passed" in done.stdout.splitlines()[-1]
