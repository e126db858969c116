"""Only what is between the markers is ever written."""

import pytest
from bench.published.section import BEGIN, END, MarkerError, replaced, write_atomically
from hypothesis import given
from hypothesis import strategies as st

text = st.text().filter(lambda each: BEGIN not in each and END not in each)


@given(before=text, old=text, after=text, new=text)
def test_hand_written_text_around_the_markers_stays(before, old, after, new):
    page = replaced(f"{before}{BEGIN}{old}{END}{after}", new)
    assert page == f"{before}{BEGIN}\n\n{new.strip()}\n\n{END}{after}"
    assert replaced(page, new) == page


@pytest.mark.parametrize(
    "page",
    ["no markers", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}", f"{BEGIN}{BEGIN}{END}"],
)
def test_a_page_without_one_pair_of_markers_is_refused(page):
    with pytest.raises(MarkerError, match="make bench writes"):
        replaced(page, "new")


def test_generated_text_cannot_bring_markers_of_its_own():
    with pytest.raises(MarkerError, match="generated"):
        replaced(f"{BEGIN}{END}", f"a {END} b")


def test_a_page_that_cannot_be_written_stays_as_it_was(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(page, "half \ud800")
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]


def test_a_page_keeps_its_mode(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("old")
    page.chmod(0o640)
    write_atomically(page, "new")
    assert page.read_text() == "new"
    assert page.stat().st_mode & 0o777 == 0o640
