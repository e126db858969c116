"""How a conversion ends early: what is said, the exit status, and whose disk was full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from click.testing import CliRunner
from erg_converters import cli, pipeline
from erg_converters.cli import convert
from erg_converters.interrupts import DiskFullError, Terminated, telling_full_disk
from erg_server import files


@pytest.fixture
def recipe(tmp_path: Path, tiny_cnn_onnx: Path) -> Path:
    """A recipe without candidates, which runs in a moment."""
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[source]\nkind = "onnx"\npath = "{tiny_cnn_onnx}"\n[measure]\nbatch_sizes = [1]\nrounds = 1\n'
        f'[publish]\nrepository = "{tmp_path / "repository"}"\nname = "cnn"\n'
    )
    return path


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_the_exit_status_tells_the_two_signals_apart(recipe, monkeypatch, error, status):
    def end(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "run_recipe", end)
    result = CliRunner().invoke(convert, ["run", str(recipe)])
    assert result.exit_code == status
    assert f"Go on with: erg convert resume {recipe}" in result.output


@pytest.mark.parametrize("command", ["run", "resume", "explain"])
def test_a_cache_that_cannot_be_written_is_one_line_and_no_traceback(recipe, command):
    cache = recipe / "cache"
    result = CliRunner().invoke(convert, [command, str(recipe), "--cache", str(cache)])
    assert result.exit_code == (0 if command == "explain" else 1), result.output
    if command != "explain":
        assert f"Error: {recipe}" in result.output
        assert "Not a directory" in result.output
        assert isinstance(result.exception, SystemExit)


def test_init_leaves_no_half_a_recipe_where_the_disk_is_full(tmp_path, tiny_cnn_onnx, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(files, "write_text", full)
    path = tmp_path / "made.toml"
    result = CliRunner().invoke(cli.convert, ["init", str(tiny_cnn_onnx), "-o", str(path)])
    assert result.exit_code == 1
    assert "Error: somewhere: No space left on device" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (OSError(errno.ENOSPC, "full"), "the-repository"),
        (OSError(errno.ENOSPC, "full", "read-from", None, "written-to"), "written-to"),
        (OSError(errno.EDQUOT, "full", "written-to"), "written-to"),
    ],
)
def test_a_full_disk_is_told_by_where_it_was_written_to(error, place):
    with (
        pytest.raises(DiskFullError, match=f"the disk is full at {place}; nothing was published"),
        telling_full_disk(Path("cache"), Path("r.toml")),
        telling_full_disk(Path("cache"), Path("r.toml"), writing=Path("the-repository")),
    ):
        raise error


def test_a_report_that_finds_no_room_does_not_deny_what_was_published(recipe, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline, "draw_report", full)
    result = CliRunner().invoke(convert, ["run", str(recipe), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 1
    assert "published" in result.output.splitlines()[-1]
    assert "nothing was published" not in result.output
    assert (tmp_path / "repository" / "cnn" / "1" / "manifest.json").is_file()
