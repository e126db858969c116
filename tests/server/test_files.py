"""Texts that are replaced whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from erg_server.files import replace_text


def test_replacing_a_text_leaves_the_old_one_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    replace_text(path, "old")

    def full(_self: Path, _target: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_may_be_read_as_others_may_and_a_replaced_one_as_before(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "report.html"
    other.write_text("any file")
    replace_text(path, "old")
    assert path.stat().st_mode == other.stat().st_mode
    path.chmod(0o640)
    replace_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640
