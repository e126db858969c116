import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from erg_loadtest import cli
from erg_loadtest.compare import IncomparableError, compare, sentence

from tests.loadtest.made_runs import made_run
from tests.loadtest.narrow import known


def noisy(run, *, spread=0.05):
    """The same run with room for chance in its price."""
    figure = run.figures["usd_per_1000"]
    wide = replace(figure, low=figure.value * (1 - spread), high=figure.value * (1 + spread))
    return replace(run, figures={**run.figures, "usd_per_1000": wide})


def priced(run, factor):
    found = {
        name: replace(each, value=each.value * factor, low=known(each.low) * factor, high=known(each.high) * factor)
        for name, each in run.figures.items()
        if name.startswith("usd")
    }
    return replace(run, figures={**run.figures, **found})


def test_a_saving_beyond_chance_is_real_and_says_how_much():
    first = noisy(made_run(label="fp32"))
    found = compare(first, priced(replace(first, label="int8"), 0.7))
    assert (found.price, found.outcome) == ("usd_per_1000", "cheaper")
    ratio = known(known(found.decisive).ratio)
    assert ratio.value == pytest.approx(0.7)
    assert known(ratio.low) < 0.7 < known(ratio.high)
    assert re.match(r"int8 is cheaper than fp32: -30\.0 %\s\[-3\d\.\d %, -2\d\.\d %\] in cost", sentence(found))
    assert "modelled" in sentence(found)
    assert compare(priced(first, 0.7), first).outcome == "dearer"


def test_a_difference_that_chance_explains_is_not_told_as_one():
    first = noisy(made_run(label="a"))
    found = compare(first, priced(replace(first, label="b"), 0.97))
    assert found.outcome == "cannot tell"
    assert sentence(found).startswith("Cannot tell whether b is cheaper than a: -3.0 %")


def test_without_a_price_that_both_have_nothing_can_be_told():
    bare = made_run(pages=False)
    found = compare(bare, replace(bare, label="b"))
    assert (found.price, found.outcome) == ("", "cannot tell")
    assert "they share no figure of cost" in sentence(found)


def test_joules_decide_where_there_is_no_money():
    run = made_run()
    joules = {name: figure for name, figure in run.figures.items() if not name.startswith("usd")}
    assert compare(replace(run, figures=joules), run).price == "joules_per_1000"


def test_modelled_is_not_held_against_measured():
    found = compare(made_run(source="modelled"), made_run(source="measured"))
    energy = next(each for each in found.contrasts if each.name == "joules_per_1000")
    assert (energy.ratio, energy.note) == (None, "one is modelled, the other measured")
    assert found.price == "cpu_s_per_1000"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"validity": {"valid": False}}, "is invalid"),
        ({"plan": {"arrivals": {"kind": "ConstantRate", "rate_per_s": 7.0}}}, "arrivals differ .*rate_per_s"),
    ],
)
def test_runs_that_differ_in_more_than_the_server_are_refused_unless_forced(change, reason):
    first = made_run(label="a")
    second = replace(first, label="b", **change)
    with pytest.raises(IncomparableError, match=f"(?s)'a' and 'b' cannot be compared: .*{reason}.*--force"):
        compare(first, second)
    assert any(re.search(reason, text) for text in compare(first, second, force=True).forced)


def test_another_seed_is_no_other_load():
    first = made_run()
    other = replace(first, plan={**first.plan, "scenario": {**first.plan["scenario"], "seed": 9}})
    assert compare(first, other).forced == ()


def test_another_machine_another_power_source_and_another_quality_are_pointed_out():
    first = made_run()
    other = replace(made_run(source="measured"), machine={"cpu": "other"})
    notes = " ".join(compare(first, other).notes)
    assert "different machines" in notes
    assert "Power sources differ" in notes


@pytest.fixture
def files(tmp_path):
    def write(*runs):
        paths = []
        for index, run in enumerate(runs):
            paths.append(str(tmp_path / f"{index}.json"))
            (tmp_path / f"{index}.json").write_text(json.dumps(run.to_json()))
        return paths

    return write


def test_the_command_shows_writes_and_draws_the_comparison(files, tmp_path):
    first = noisy(made_run(label="fp32"))
    paths = files(first, priced(replace(first, label="int8"), 0.7), first)
    outputs = ["--output", str(tmp_path / "c.json"), "--report", str(tmp_path / "c.html")]
    outcome = CliRunner().invoke(cli.load, ["compare", *paths, *outputs])
    assert outcome.exit_code == 0, outcome.output
    assert "int8 is cheaper than fp32" in outcome.output.replace("\n", " ")
    document = json.loads((tmp_path / "c.json").read_text())
    assert [each["outcome"] for each in document["comparisons"]] == ["cheaper", "cannot tell"]
    page = (tmp_path / "c.html").read_text()
    assert "int8 is cheaper than fp32" in page
    assert "fp32 (2)" in page


def test_the_command_refuses_with_code_2(files):
    first = made_run(label="a")
    paths = files(first, replace(first, validity={"valid": False, "reasons": ["late"]}))
    outcome = CliRunner().invoke(cli.load, ["compare", *paths])
    assert outcome.exit_code == 2
    assert "invalid" in outcome.output
    assert CliRunner().invoke(cli.load, ["compare", *paths, "--force"]).exit_code == 0
    assert CliRunner().invoke(cli.load, ["compare", paths[0]]).exit_code == 2
