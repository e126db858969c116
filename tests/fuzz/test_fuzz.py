"""What the fuzzers begin with and what they have found is replayed here; each then searches on for half a minute."""

from __future__ import annotations

import importlib
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import fuzzer, make_seeds

TARGETS = sorted(make_seeds.SEEDS)
INPUTS = [pytest.param(name, path, id=f"{name}-{path.name}") for name in TARGETS for path in fuzzer.inputs(name)]
SEARCH_S = 20
ROOT = fuzzer.FOLDER.parents[1]


def play(name: str, raw: bytes) -> None:
    importlib.import_module(f"tests.fuzz.{name}").check(raw)


@pytest.mark.parametrize(("name", "path"), INPUTS)
def test_every_seed_and_every_mended_finding_passes(name: str, path: Path) -> None:
    play(name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_committed_seeds_are_those_that_the_script_writes(name: str) -> None:
    written = {path.name: path.read_bytes() for path in (fuzzer.FOLDER / "seeds" / name).iterdir()}
    assert written == make_seeds.SEEDS[name]()


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_too_short_to_mean_something(name: str) -> None:
    for raw in (b"", *(bytes((value,)) for value in range(256))):
        play(name, raw)


@pytest.mark.parametrize("name", TARGETS)
def test_help_says_how_to_run_a_finding_again(name: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", f"tests.fuzz.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"python -m tests.fuzz.{name} .cache/fuzz/{name}-crash-" in shown
    assert f"tests/fuzz/regressions/{name}" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_search_finds_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 and Python up to 3.13 only")
    folders = [fuzzer.FOLDER / kind / name for kind in ("seeds", "regressions")]
    found = tmp_path / "found"
    found.mkdir()
    # libFuzzer reads the peak that the kernel has of it, which begins with that of the process it came from: this one.
    limit_mb = 512 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    search = subprocess.run(
        [
            sys.executable, "-m", f"tests.fuzz.{name}", f"-max_total_time={SEARCH_S}", f"-rss_limit_mb={limit_mb}",
            f"-artifact_prefix={tmp_path}/", found, *(folder for folder in folders if folder.is_dir()),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=20 * SEARCH_S,
    )  # fmt: skip
    # atheris shows the exception on the one, libFuzzer the input on the other.
    said = search.stdout[-4000:] + search.stderr[-4000:]
    assert search.returncode == 0, said
    done = re.search(r"Done (\d+) runs", search.stderr)
    begun = re.search(r"INITED cov: (\d+)", search.stderr)
    assert done is not None, said
    assert begun is not None, said
    # It has seen what the seeds reach of the server, and gone on from there.
    assert int(begun[1]) > 30
    assert int(done[1]) > len(fuzzer.inputs(name))
    assert list(found.iterdir())
