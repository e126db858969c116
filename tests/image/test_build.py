"""What `make image` runs, refuses and writes, with programs that only say what they were called with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.image import build
from scripts.image.build import Build, BuildError

DIGEST = "sha256:" + "a" * 64
PAGE = f"# words\nARG BUILD_BASE=x/python:3-full@{DIGEST}\nARG BASE=x/python:3@{DIGEST}\nFROM ${{BASE}}\nARG BASE\n"


def of(**changes: object) -> Build:
    values = {
        "flavor": "cpu", "version": "1.2.3", "revision": "abc", "created_s": 86_400, "source": "", "secrets": {},
        "bases": {"BASE": f"x/python:3@{DIGEST}"},
    }  # fmt: skip
    return Build(**(values | changes))  # type: ignore[arg-type]


def test_the_command_names_version_commit_and_time() -> None:
    command = build.build_command("podman", of())
    assert command[:6] == ["podman", "build", "--file", "docker/Dockerfile.cpu", "--tag", "erg:1.2.3-cpu"]
    assert {"VERSION=1.2.3", "REVISION=abc", "CREATED=1970-01-02T00:00:00Z", "SOURCE_DATE_EPOCH=86400"} < set(command)
    assert command[-1] == "."


def test_podman_and_buildah_are_told_the_time_of_files_and_docker_takes_the_variable() -> None:
    assert "--timestamp" in build.build_command("buildah", of())
    assert "--timestamp" not in build.build_command("docker", of())


def test_secrets_go_by_path_and_never_as_arguments(tmp_path: Path) -> None:
    command = build.build_command("docker", of(secrets={"pip_conf": tmp_path / "pip.conf"}))
    assert command[command.index("--secret") + 1] == f"id=pip_conf,src={tmp_path}/pip.conf"
    assert not any("pip.conf" in part for part in command if not part.startswith("id="))


@pytest.mark.parametrize("reference", ["python:3.11-slim", "python@sha256:abc", "python:3@sha512:" + "a" * 64])
def test_a_base_without_a_digest_is_refused_with_the_way_to_one(reference: str) -> None:
    with pytest.raises(BuildError, match=r"has no digest.*skopeo inspect.*--allow-unpinned-base"):
        build.check_pinned({"BASE": reference})


def test_the_bases_of_a_dockerfile_are_the_defaults_of_its_arguments() -> None:
    assert build.stated_bases(PAGE) == {"BUILD_BASE": f"x/python:3-full@{DIGEST}", "BASE": f"x/python:3@{DIGEST}"}


def test_locking_changes_digests_and_nothing_else() -> None:
    other = "sha256:" + "b" * 64
    locked = build.relocked(PAGE, {"x/python:3-full": other, "x/python:3": other})
    assert locked == PAGE.replace(DIGEST, other)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_first_engine_that_answers_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    program(tmp_path, "podman", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.find_engine("") == "podman"


def test_no_engine_is_an_error_that_says_why_each_one_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BuildError, match=r"docker does not work \(Cannot connect.*podman is not installed.*apt install"
    ):
        build.find_engine("")


def test_pips_configuration_is_handed_over_as_a_secret(tmp_path: Path) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text("[global]\n")
    assert build._secrets({"PIP_CONFIG_FILE": str(conf)}) == {"pip_conf": conf}
    with pytest.raises(BuildError, match="PIP_CERT=/nowhere is no file"):
        build._secrets({"PIP_CERT": "/nowhere"})


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, build.ROOT / "scripts/image/build.py", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_unpinned_base_ends_the_command_before_an_engine_is_asked(tmp_path: Path) -> None:
    answer = run("cpu", BASE="python:3.11-slim", PATH=str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.startswith("image: BASE=python:3.11-slim has no digest")


def test_locking_without_skopeo_says_what_to_install(tmp_path: Path) -> None:
    answer = run("--lock", PATH=str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr == "image: skopeo is not installed (Debian: apt install skopeo)\n"
