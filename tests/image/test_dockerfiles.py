"""What both Dockerfiles must say, read from their text: neither engine nor network is needed."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.image.dockerfile import ROOT, parse
from tests.tools import tool

FLAVORS = ("cpu", "cuda")
pytestmark = pytest.mark.parametrize("flavor", FLAVORS)


def lines(flavor: str) -> list[str]:
    return (ROOT / "docker" / f"Dockerfile.{flavor}").read_text(encoding="utf-8").splitlines()


def test_hadolint_finds_nothing(flavor: str) -> None:
    command: list[str | Path] = [
        tool("hadolint"),
        "--failure-threshold",
        "style",
        ROOT / "docker" / f"Dockerfile.{flavor}",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_base_is_named_with_its_version_and_digest(flavor: str) -> None:
    dockerfile = parse(flavor)
    assert set(dockerfile.arguments) == {"BUILD_BASE", "BASE"}
    for reference in dockerfile.arguments.values():
        assert re.fullmatch(r"[\w.-]+/[\w./-]+:\d+\.\d+\.\d+-[\w.-]+@sha256:[0-9a-f]{64}", reference)
    stages = {stage.name for stage in dockerfile.stages}
    for stage in dockerfile.stages:
        assert stage.base in {"${BUILD_BASE}", "${BASE}", "scratch"} | stages


def test_both_bases_carry_the_same_python(flavor: str) -> None:
    """The environment is made with one and runs with the other."""
    versions = {re.search(r"python:([\d.]+)-", base)[1] for base in parse(flavor).arguments.values()}  # type: ignore[index]
    assert len(versions) == 1


def test_the_last_stage_holds_nothing_but_what_the_others_leave(flavor: str) -> None:
    last = parse(flavor).stages[-1]
    assert last.base == "scratch"
    assert not last.of("RUN")
    assert not last.of("ADD")
    assert all(copied.startswith("--from=") for copied in last.of("COPY"))


def test_the_last_stage_starts_erg_as_a_user_by_number(flavor: str) -> None:
    last = parse(flavor).stages[-1]
    assert last.of("USER") == ["10001:10001"]
    assert json.loads(last.of("ENTRYPOINT")[0]) == ["erg"]
    assert json.loads(last.of("CMD")[0]) == ["serve"]
    assert last.of("STOPSIGNAL") == ["SIGTERM"]
    assert last.of("EXPOSE") == ["8001 8002"]


def test_variables_override_no_setting_of_a_mounted_file(flavor: str) -> None:
    """An ERG_ variable of the image would beat the chart's erg.toml."""
    assert "ERG_" not in " ".join(parse(flavor).stages[-1].of("ENV"))


def test_extras_are_ours_and_convert_is_not_among_them(flavor: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (stated,) = [a.removeprefix("EXTRAS=") for a in parse(flavor).stages[0].of("ARG") if a.startswith("EXTRAS=")]
    extras = set(stated.split(","))
    assert extras <= set(known)
    assert not extras & {"convert", "dev", "loadtest"}


def test_the_build_installs_pinned_packages_alone(flavor: str) -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {line.partition("==")[0].lower() for line in text.splitlines() if "==" in line}
    stage = parse(flavor).stages[0]
    assert "PIP_CONSTRAINT=/src/constraints.txt" in " ".join(stage.of("ENV"))
    for command in stage.of("RUN"):
        for names in re.findall(r"--only-binary=:all: (?!--no-compile)([a-z -]+)", command):
            assert set(names.split()) <= pinned


def test_everything_that_is_copied_is_in_the_context(flavor: str) -> None:
    stated = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [Path(line.removeprefix("!")) for line in stated if line.startswith("!")]
    for stage in parse(flavor).stages:
        for copied in stage.of("COPY"):
            if not copied.startswith("--from="):
                for source in copied.split()[:-1]:
                    assert Path(source) in allowed, f".dockerignore leaves {source} out"
                    assert (ROOT / source).exists()


def test_no_statement_is_in_one_dockerfile_alone_but_the_backends(flavor: str) -> None:
    """Two files, for an engine builds one; what they share is kept the same by this test."""
    ours, others = set(lines(flavor)), set(lines(next(other for other in FLAVORS if other != flavor)))
    only = [line for line in ours - others if not line.startswith("#")]
    for line in only:
        assert re.search(
            r"EXTRAS=|erg-c|trim-c|description|licenses|onnxruntime-gpu|LD_LIBRARY_|NVIDIA_|erg\[", line
        ), line
