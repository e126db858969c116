"""The cache of conversions: what it keeps, what it throws away, what a failure leaves."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from erg_converters.artifact import Artifact, Format
from erg_converters.workspace import ResumeStore, Workspace, default_root, digest_of
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "cache")


def artifact(workspace: Workspace, key: str, content: bytes = b"weights") -> Artifact:
    path = workspace.work_folder(key) / "made.onnx"
    path.write_bytes(content)
    return Artifact.of(Format.ONNX, path)


def put(workspace: Workspace, key: str) -> None:
    workspace.put(key, artifact(workspace, key), seconds=2.5, figures={"size": "7 B"})


def test_what_was_put_is_got_with_its_figures(workspace: Workspace) -> None:
    put(workspace, "k")
    entry = workspace.get("k")
    assert entry is not None
    assert entry.artifact.path.read_bytes() == b"weights"
    assert (entry.artifact.format, entry.seconds, dict(entry.figures)) == (Format.ONNX, 2.5, {"size": "7 B"})


def test_an_unknown_key_has_no_entry(workspace: Workspace) -> None:
    assert workspace.get("k") is None


def test_putting_clears_the_work(workspace: Workspace) -> None:
    put(workspace, "k")
    assert not (workspace.root / "work" / "k").exists()


def test_a_changed_file_is_thrown_away(workspace: Workspace) -> None:
    put(workspace, "k")
    (workspace.root / "files" / "k" / "model.onnx").write_bytes(b"wejghts")
    assert workspace.get("k") is None
    assert not (workspace.root / "files" / "k").exists()
    put(workspace, "k")
    assert workspace.get("k") is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 3}', "\x00"])
def test_a_damaged_entry_is_thrown_away(workspace: Workspace, text: str) -> None:
    put(workspace, "k")
    (workspace.root / "files" / "k" / "entry.json").write_text(text)
    assert workspace.get("k") is None
    assert not (workspace.root / "files" / "k").exists()


def test_an_entry_that_another_run_put_first_stands(workspace: Workspace) -> None:
    put(workspace, "k")
    workspace.put("k", artifact(workspace, "k", b"others!"), seconds=1, figures={})
    entry = workspace.get("k")
    assert entry is not None
    assert entry.artifact.path.read_bytes() == b"weights"


def test_a_full_disk_leaves_no_entry_and_keeps_the_work(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made = artifact(workspace, "k")

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"wei")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        workspace.put("k", made, seconds=1, figures={})
    monkeypatch.undo()
    assert workspace.get("k") is None
    assert made.path.exists()
    assert list((workspace.root / "files").iterdir()) == []


def test_a_resume_store_is_there_again(workspace: Workspace) -> None:
    store = workspace.resume_store("k")
    store["layer.1"] = {"cosine": 0.5}
    store["layer.2"] = 3
    del store["layer.2"]
    assert dict(workspace.resume_store("k")) == {"layer.1": {"cosine": 0.5}}


def test_a_torn_resume_store_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "resume.json").write_text('{"layer')
    assert len(ResumeStore(tmp_path / "resume.json")) == 0


def test_texts_are_kept_by_key(workspace: Workspace) -> None:
    assert workspace.get_text("k") is None
    workspace.put_text("k", "one")
    workspace.put_text("k", "two")
    assert workspace.get_text("k") == "two"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5), st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_equal_parts_have_equal_digests_and_others_other_ones(one: dict[str, Any], other: dict[str, Any]) -> None:
    shuffled = dict(reversed(list(one.items())))
    assert digest_of(one) == digest_of(shuffled)
    assert (digest_of(one) == digest_of(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_the_environment_moves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERG_CONVERT_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("ERG_CONVERT_CACHE")
    assert default_root() == Path(".erg-cache/convert")
