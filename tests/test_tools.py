"""`make tools` and `tool`: one that is missing hides no other, and CI loses no test for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import tools as fetching
from tests import tools

# pytest's own; neither is an Exception.
SKIPPED, FAILED = pytest.skip.Exception, pytest.fail.Exception


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tools with nothing in it, on a machine with nothing on PATH."""
    monkeypatch.setattr(tools, "FOLDER", tmp_path)
    monkeypatch.setattr(fetching, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def program(path: Path, *, status: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


def made(name: str, *, status: int = 0, version: str = "1") -> fetching.Tool:
    """A tool whose fetching always works, and whose program ends with that status."""

    def fetch(into: Path) -> dict[str, str]:
        program(into / name, status=status)
        return {name: name}

    return fetching.Tool(version, "1 kB", {name: ("--version",)}, fetch)


def refused(name: str, *, version: str = "2") -> fetching.Tool:
    """A tool that no registry has."""

    def fetch(into: Path) -> dict[str, str]:
        program(into / name)
        raise fetching.ToolError("the registry answered no\nand no more")

    return fetching.Tool(version, "1 kB", {name: ("--version",)}, fetch)


def test_a_fetched_program_goes_before_one_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(folder / "elsewhere" / "helm")
    monkeypatch.setenv("PATH", str(folder / "elsewhere"))
    assert tools.tool("helm") == folder / "elsewhere" / "helm"
    program(folder / "bin" / "helm")
    assert tools.tool("helm") == folder / "bin" / "helm"


def test_a_missing_program_skips_its_test_with_why_it_was_not_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TOOLS", {"helm": refused("helm")})
    assert fetching.main([]) == 1
    with pytest.raises(SKIPPED, match="`make tools` fetches it: the registry answered no and no more"):
        tools.tool("helm")
    with pytest.raises(SKIPPED, match=r"crd-schemas is not here; `make tools` fetches it$"):
        tools.tool_folder("crd-schemas")


def test_a_missing_program_fails_its_test_in_ci(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(FAILED, match="helm is not here; `make tools` fetches it"):
        tools.tool("helm")
    with pytest.raises(FAILED, match="api-models is not here"):
        tools.tool_folder("api-models")


def test_one_that_cannot_be_fetched_leaves_the_others_and_its_older_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "TOOLS", {"helm": made("helm")})
    assert fetching.main([]) == 0
    monkeypatch.setattr(fetching, "TOOLS", {"helm": refused("helm"), "weed": made("weed")})
    assert fetching.main([]) == 1
    assert "not here: helm;" in capsys.readouterr().out
    assert tools.tool("helm").is_file()
    assert tools.tool("weed").is_file()
    assert {path.name for path in folder.iterdir()} == {"bin", "failed", "helm", "weed"}


def test_a_program_that_does_not_run_here_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TOOLS", {"helm": made("helm", status=3)})
    assert fetching.main([]) == 1
    with pytest.raises(SKIPPED, match="helm does not run here: exit status 3"):
        tools.tool("helm")


def test_what_is_there_at_its_version_is_not_fetched_again_and_another_version_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "TOOLS", {"helm": made("helm")})
    for expected in (True, False):
        assert fetching.main(["helm"]) == 0
        assert ("==> helm 1" in capsys.readouterr().out) is expected
    monkeypatch.setattr(fetching, "TOOLS", {"helm": made("helm", version="2")})
    assert fetching.main([]) == 0
    assert "==> helm 2" in capsys.readouterr().out
    (folder / "bin" / "helm").unlink()
    assert fetching.main([]) == 0
    assert tools.tool("helm").is_file()


def test_a_reason_is_forgotten_once_the_tool_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool, status in ((refused("helm"), 1), (made("helm"), 0)):
        monkeypatch.setattr(fetching, "TOOLS", {"helm": tool})
        assert fetching.main([]) == status
    assert list((folder / "failed").iterdir()) == []


def test_an_unknown_name_is_told_with_those_there_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetching.main(["helmet"]) == 2
    assert "unknown: helmet; there are helm-kubectl, hadolint" in capsys.readouterr().err


def test_every_version_is_exact() -> None:
    for version in (*fetching.PYPI.values(), *fetching.DEBIAN.values()):
        assert version[0].isdigit()
        assert not set(version) & set("<>*~=, ")
