import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from erg_loadtest import cli, load_options, sweep_command
from erg_loadtest.errors import PlanError, ServerError
from erg_loadtest.pareto import front, front_pictures
from erg_loadtest.quality import Quality
from erg_loadtest.sweep import Point, parse_configs, parse_counts, parse_numbers, points, with_changes
from erg_loadtest.validity import Validity
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtest.made_runs import made_result, made_run


def test_points_are_every_combination_with_one_configuration_after_another():
    found = points(["a", "b"], concurrencies=[1, 8], configs={"max_batch_size": ["1", "8"]})
    assert [point.label for point in found][:5] == [
        "a, max_batch_size=1, 1 in flight", "a, max_batch_size=1, 8 in flight", "a, max_batch_size=8, 1 in flight",
        "a, max_batch_size=8, 8 in flight", "b, max_batch_size=1, 1 in flight",
    ]  # fmt: skip
    assert len({point.label for point in found}) == len(found) == 8
    assert points(["a"]) == [Point(model="a")]
    assert [point.label for point in points(["a", "a"], rates=[2.5])] == ["a, 2.5/s"]


def test_a_sweep_is_over_callers_or_over_rates():
    with pytest.raises(PlanError, match="one of them"):
        points(["a"], concurrencies=[1], rates=[1.0])


@pytest.mark.parametrize("text", ["", "x", "1,,2", "0", "-1", "nan", "inf"])
def test_what_is_no_list_of_positive_numbers_is_refused(text):
    with pytest.raises(PlanError, match="--request-rate"):
        parse_numbers(text, "--request-rate")
    with pytest.raises(PlanError, match="--concurrency"):
        parse_counts("1.5", "--concurrency")


@pytest.mark.parametrize("texts", [["x"], ["=1"], ["x="], ["x=1", "x=2"]])
def test_what_is_no_change_of_a_configuration_is_refused(texts):
    with pytest.raises(PlanError, match="KEY=VALUE,VALUE"):
        parse_configs(texts)


def test_changes_reach_into_messages_and_lists_and_leave_the_original():
    config = {"name": "m", "instance_group": [{"count": 1}]}
    changed = with_changes(
        config, [("instance_group.0.count", "2"), ("dynamic_batching.preferred_batch_size", "[4]"), ("a.0.b", "x")]
    )
    assert changed == {
        "name": "m", "instance_group": [{"count": 2}], "dynamic_batching": {"preferred_batch_size": [4]},
        "a": [{"b": "x"}],
    }  # fmt: skip
    assert config == {"name": "m", "instance_group": [{"count": 1}]}


@pytest.mark.parametrize("key", ["name.x", "instance_group.x", "instance_group.7.count", "instance_group.0.count.x"])
def test_a_key_that_leads_nowhere_is_refused_with_its_name(key):
    with pytest.raises(PlanError, match=key):
        with_changes({"name": "m", "instance_group": [{"count": 1}]}, [(key, "1")])


def variant(label, *, accuracy, latency_ms, joules):
    return made_run(
        label=label, latency_ms=latency_ms, noise=0.01, joules_per_s=joules, quality=Quality(performance=accuracy)
    )


def test_the_front_leaves_out_what_is_beaten_everywhere_and_the_cheapest_that_keeps_the_objective_is_chosen():
    runs = [
        variant("fp32", accuracy=0.93, latency_ms=9.0, joules=6.0),
        variant("int8", accuracy=0.92, latency_ms=5.0, joules=3.0),
        variant("broken", accuracy=0.90, latency_ms=9.5, joules=6.5),
        variant("tiny", accuracy=0.70, latency_ms=2.0, joules=1.0),
    ]
    found = front(runs)
    assert found.axes == ("performance", "p99_ms", "joules", "usd")
    assert found.modelled == {"joules", "usd"}
    assert [runs[index].label for index in found.members] == ["fp32", "int8", "tiny"]
    # Money is the same for all in these runs; the first of the front has it.
    without_money = [
        replace(run, figures={name: each for name, each in run.figures.items() if "usd" not in name}) for run in runs
    ]
    assert front(without_money).chosen == 3
    assert front(without_money, p99_ms=1.0).chosen is None
    assert "no run keeps a p99 of 1 ms" in front(without_money, p99_ms=1.0).reason
    assert len(front_pictures(runs, found)) == 6


def test_an_axis_that_some_run_lacks_is_no_axis():
    runs = [variant("a", accuracy=0.9, latency_ms=5.0, joules=1.0), made_run(label="b", pages=False)]
    assert front(runs).axes == ("p99_ms",)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_nothing_on_the_front_is_beaten_and_everything_off_it_is(values):
    base = made_run(seconds=1)
    names = ("joules_per_1000", "usd_per_1000", "latency_p99_us")
    runs = [
        replace(
            base,
            figures={
                **{name: figure for name, figure in base.figures.items() if name not in names},
                **{name: replace(base.figures[name], value=float(v)) for name, v in zip(names, value, strict=True)},
            },
        )
        for value in values
    ]

    def beats(one, other):
        return all(a <= b for a, b in zip(one, other, strict=True)) and one != other

    expected = [index for index, own in enumerate(values) if not any(beats(other, own) for other in values)]
    assert list(front(runs).members) == expected


class FakeControl:
    def __init__(self, _target):
        self.calls = []
        controls.append(self)

    def change(self, model, changes):
        self.calls.append((model, changes))

    def restore(self):
        self.calls.append("restored")


controls: list[FakeControl] = []


@pytest.fixture
def invoke(monkeypatch):
    """Runs `sweep` against made results; `fail_at` is the run at which the server is gone."""
    controls.clear()

    def run(*arguments, fail_at=None):
        plans = []

        def load(plan, progress):
            plans.append(plan)
            if len(plans) - 1 == fail_at:
                raise ServerError("gone")
            options = {"seconds": 3, "rate": 100, "latency_ms": 5.0, "noise": 0.2, "failures": 0, "pages": True}
            return made_result(model=plan.model, seed=len(plans), **options)[1]

        monkeypatch.setattr(load_options, "run_load", load)
        monkeypatch.setattr(sweep_command, "ModelControl", FakeControl)
        return CliRunner().invoke(cli.load, ["sweep", *arguments]), plans

    return run


def test_a_sweep_writes_one_document_and_one_page(invoke, tmp_path):
    paths = [str(tmp_path / name) for name in ("s.json", "s.csv", "s.html", "s.png")]
    outcome, plans = invoke(
        "m", "--models", "n", "--concurrency", "1,2", "--performance", "m=0.9", "--performance", "n=0.8",
        "--training-time", "5", "--output", paths[0], "--csv", paths[1], "--report", paths[2], "--plot", paths[3],
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    assert [(plan.model, plan.arrivals.concurrency) for plan in plans] == [("m", 1), ("m", 2), ("n", 1), ("n", 2)]
    document = json.loads((tmp_path / "s.json").read_text())
    assert (document["format"], document["kind"], len(document["runs"])) == (1, "sweep", 4)
    assert document["indices"][0]["inference_cost"] == 1.0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "Pareto front" in (tmp_path / "s.html").read_text()
    compared = CliRunner().invoke(cli.load, ["compare", paths[0], "--force"])
    assert compared.exit_code == 0, compared.output


def test_a_sweep_with_an_invalid_run_says_so_and_ends_with_its_code(monkeypatch):
    def load(plan, progress):
        options = {"seconds": 3, "rate": 100, "latency_ms": 5.0, "noise": 0.2, "failures": 0, "pages": True}
        result = made_result(model=plan.model, seed=1, **options)[1]
        busy = plan.arrivals.concurrency == 2
        return replace(result, validity=Validity(reasons=("no CPU left",) if busy else ()))

    monkeypatch.setattr(load_options, "run_load", load)
    outcome = CliRunner().invoke(cli.load, ["sweep", "m", "--concurrency", "1,2"])
    assert outcome.exit_code == 3
    assert "(invalid)" in outcome.output


def test_configurations_are_loaded_once_each_and_put_back_even_when_a_run_fails(invoke):
    outcome, _ = invoke("m", "--concurrency", "1,2", "--config", "max_batch_size=1,8", fail_at=3)
    assert outcome.exit_code == 2
    assert "gone" in outcome.output
    one, eight = (("max_batch_size", "1"),), (("max_batch_size", "8"),)
    assert controls[0].calls == [("m", one), ("m", eight), "restored"]


def test_a_sweep_that_was_interrupted_goes_on_and_another_one_is_refused(invoke, tmp_path):
    state = ["--state", str(tmp_path / "state")]
    assert invoke("m", "--concurrency", "1,2,4", *state, fail_at=2)[0].exit_code == 2
    outcome, plans = invoke("m", "--concurrency", "1,2,4", *state)
    assert outcome.exit_code == 0, outcome.output
    assert [plan.arrivals.concurrency for plan in plans] == [4]
    outcome, plans = invoke("m", "--concurrency", "1,2,8", *state)
    assert (outcome.exit_code, plans) == (2, [])
    assert "another plan" in outcome.output


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"format": 1, "kind": "run"}', '{"format": 1, "kind": "state", "steps": 3}']
)
def test_a_file_that_is_no_state_is_refused_and_left(invoke, tmp_path, text):
    path = tmp_path / "state"
    path.write_text(text)
    outcome, plans = invoke("m", "--concurrency", "1", "--state", str(path))
    assert (outcome.exit_code, plans) == (2, [])
    assert path.read_text() == text


def test_nothing_is_run_where_a_file_could_not_be_written_at_the_end(invoke, tmp_path):
    outcome, plans = invoke("m", "--concurrency", "1", "--report", str(tmp_path / "absent" / "s.html"))
    assert (outcome.exit_code, plans) == (2, [])
    assert "its folder does not exist" in outcome.output
