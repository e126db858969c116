from __future__ import annotations

from pathlib import Path

import pytest

from scripts.image.trim import patterns, trim
from tests.image.dockerfile import ROOT


def site(folder: Path) -> Path:
    for name in ("a/__init__.py", "a/tests/one.py", "a/deep/tests/two.py", "b.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x" * 100)
    (folder / "a-1.dist-info").mkdir()
    (folder / "a-1.dist-info" / "RECORD").write_text(
        "a/__init__.py,sha256=x,100\na/tests/one.py,sha256=x,100\na/deep/tests/two.py,sha256=x,100\n"
        '"a-1.dist-info/RECORD",,\n../../bin/gone,,\n'
    )
    (folder / "b-1.dist-info").mkdir()
    (folder / "b-1.dist-info" / "RECORD").write_text('"b.py",,\n')
    return folder


def test_what_a_pattern_matches_goes_and_leaves_the_packages_list(tmp_path: Path) -> None:
    folder = site(tmp_path)
    assert trim(folder, ["a/**/tests"]) == 200
    assert not (folder / "a/tests").exists()
    assert not (folder / "a/deep/tests").exists()
    assert (folder / "a-1.dist-info/RECORD").read_text() == "a/__init__.py,sha256=x,100\na-1.dist-info/RECORD,,\n"


def test_a_package_that_lost_nothing_keeps_its_list_as_it_was(tmp_path: Path) -> None:
    folder = site(tmp_path)
    trim(folder, ["a/tests"])
    assert (folder / "b-1.dist-info/RECORD").read_text() == '"b.py",,\n'


def test_a_pattern_that_matches_nothing_is_an_error_and_nothing_goes(tmp_path: Path) -> None:
    folder = site(tmp_path)
    with pytest.raises(ValueError, match="c/tests matches nothing"):
        trim(folder, ["a/tests", "c/tests"])
    assert (folder / "a/tests").exists()


def test_comments_are_no_patterns() -> None:
    assert patterns("# head\n\na/*.py   # 3 MB\n") == ["a/*.py"]


@pytest.mark.parametrize("name", ["trim-common.txt", "trim-cpu.txt", "trim-cuda.txt"])
def test_the_lists_stay_below_site_packages(name: str) -> None:
    stated = patterns((ROOT / "docker" / name).read_text(encoding="utf-8"))
    assert stated
    assert not [line for line in stated if line.startswith(("/", "..", "erg"))]
