import html.parser
import io
import re
import xml.etree.ElementTree as ET

import pytest
from erg_loadtest.indices import indices
from erg_loadtest.quality import Quality
from erg_loadtest.run_page import run_page
from erg_loadtest.svg import Axis, Bar, Point, Series, bars, chart, number
from erg_loadtest.terminal import render_document
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.loadtest.made_runs import made_run

HOSTILE = "</title><script>alert(1)</script>\"'&\x00[red]"


class Elements(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.attributes = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_a_hostile_name_stays_text_and_the_page_loads_nothing():
    run = made_run(model=HOSTILE)
    shown = run_page(run, indices(run.parts(), run.parts()), run.parts())
    found = Elements(shown)
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in {"src", "href"}]
    assert "&lt;script&gt;" in shown
    assert "\x00" not in shown
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org|127\.0\.0\.1)", shown)


def test_a_page_has_the_pictures_of_a_run_each_with_its_numbers_and_words_for_those_who_do_not_see_it():
    shown = run_page(made_run())
    titles = re.findall(r"<h3>(.*?)</h3>", shown)
    assert titles == [
        "Latency distribution", "Batch sizes", "Requests over time", "Latency over time", "Energy of 1,000 inferences",
        "Cost of 1,000 inferences",
    ]  # fmt: skip
    pictures = [ET.fromstring(picture) for picture in re.findall(r"<svg.*?</svg>", shown, flags=re.DOTALL)]
    assert len(pictures) == 6
    for picture in pictures:
        tags = [child.tag.rpartition("}")[2] for child in picture]
        assert tags[:2] == ["title", "desc"]
        assert picture.get("role") == "img"
    assert shown.count("<summary>numbers</summary>") == 6


def test_modelled_figures_are_marked_in_table_picture_and_terminal():
    run = made_run(source="modelled")
    shown = run_page(run)
    assert re.search(r"energy, all accounts</td><td class=\"n\">[^<]*\(modelled\)", shown)
    assert "Faint bars are modelled" in shown
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_document(run))
    text = console.export_text()
    assert re.search(r"energy, all accounts .*\(modelled\)", text)
    assert "(modelled)" not in run_page(made_run(source="measured"))


def test_an_invalid_run_says_so_first():
    run = made_run()
    from dataclasses import replace

    shown = run_page(replace(run, validity={"valid": False, "reasons": ["the client had no CPU left"]}))
    assert "This run is invalid: the client had no CPU left" in shown


def test_a_run_without_an_answer_has_a_page():
    shown = run_page(made_run(failures=1000, pages=False))
    assert "1,000 of 1,000 requests failed" in shown


def test_indices_stand_with_their_definition_and_raw_parts():
    run = made_run(quality=Quality(performance=0.9))
    shown = run_page(run, indices(run.parts(), run.parts()), run.parts())
    assert "Baseline: m. Weights: power 1, memory 1, time 1." in shown
    assert "missing: training time<" in shown
    assert "training time by --training-time" in shown
    assert re.search(r"power, W</td><td class=\"n\">10</td>", shown)


def test_markup_in_a_name_means_nothing_on_a_terminal():
    console = Console(width=200, record=True, file=io.StringIO())
    run = made_run(model="[red]\x1b[2J")
    console.print(render_document(run, indices(run.parts(), run.parts())))
    text = console.export_text()
    assert "[red]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (1.5e-6, "1.50e-06"), (100, "100")],
)
def test_numbers_have_three_digits_that_matter(value, text):
    assert number(value) == text


FLOATS = st.floats(-1e12, 1e12)


@given(
    st.lists(st.tuples(FLOATS, FLOATS), max_size=20),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["line", "steps", "dots", "columns"]),
)
def test_any_points_make_well_formed_pictures_within_their_frame(points, log_x, log_y, kind):
    made = chart(
        "t",
        "d",
        Axis(label="x", log=log_x),
        Axis(label="y", log=log_y, from_zero=True),
        [Series(name="s", points=[Point(x=x, y=y, label="<&>") for x, y in points], kind=kind)],
    )
    if not made:
        return
    for circle in ET.fromstring(made).iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx") or "nan") <= 400
        assert 0 <= float(circle.get("cy") or "nan") <= 270


@given(st.lists(st.tuples(st.text(max_size=9), st.floats(0, 1e12)), max_size=9))
def test_any_bars_make_well_formed_pictures(rows):
    made = bars("t", "d", [Bar(label=label, value=value, text="v", low=0, high=value) for label, value in rows])
    assert not made or ET.fromstring(made) is not None
