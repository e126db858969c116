import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from erg_loadtest import cli, load_options
from erg_loadtest.errors import ServerError
from erg_loadtest.validity import Validity

from tests.loadtest.made_runs import made_result


@pytest.fixture
def invoke(monkeypatch):
    """Runs `search` against a server whose latency jumps at 300 requests a second."""

    def run(*arguments, fail_at=None, late_from=1e9):
        plans = []

        def load(plan, progress):
            plans.append(plan)
            if len(plans) - 1 == fail_at:
                raise ServerError("gone")
            rate = plan.arrivals.rate_per_s
            _, result = made_result(
                model="m", seconds=int(np.ceil(plan.limit.duration_s)), rate=int(rate), noise=0.05, failures=0,
                latency_ms=5.0 if rate < 300 else 50.0, pages=False, seed=plan.arrivals.seed,
            )  # fmt: skip
            validity = Validity(reasons=("late",) if rate >= late_from else ())
            return replace(result, arrivals=plan.arrivals, validity=validity)

        monkeypatch.setattr(load_options, "run_load", load)
        options = ("--p99-ms", "20", "--start-rate", "100", *arguments)
        return CliRunner().invoke(cli.load, ["search", "m", *options]), plans

    return run


def test_the_highest_rate_is_found_reported_and_drawn(invoke, tmp_path):
    paths = [str(tmp_path / name) for name in ("s.json", "s.csv", "s.html", "s.png")]
    outcome, plans = invoke("--output", paths[0], "--csv", paths[1], "--report", paths[2], "--plot", paths[3])
    assert outcome.exit_code == 0, outcome.output
    document = json.loads((tmp_path / "s.json").read_text())
    assert 280 < document["found"]["holds_per_s"] < 300 <= document["found"]["fails_per_s"]
    assert [plan.arrivals.rate_per_s for plan in plans][:3] == [100.0, 200.0, 400.0]
    assert len({plan.arrivals.seed for plan in plans}) == len(plans)
    page = (tmp_path / "s.html").read_text()
    assert "Latency against rate" in page
    assert "hold p99 within 20 ms" in page
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_that_was_interrupted_goes_on_with_the_steps_it_has(invoke, tmp_path):
    state = ("--state", str(tmp_path / "state"))
    outcome, first = invoke(*state, fail_at=3)
    assert (outcome.exit_code, len(first)) == (2, 4)
    outcome, second = invoke(*state, "--format", "json")
    whole = invoke("--format", "json")
    assert outcome.exit_code == 0, outcome.output
    assert [plan.arrivals for plan in first[:3] + second] == [plan.arrivals for plan in whole[1]]
    assert json.loads(outcome.output)["found"] == json.loads(whole[0].output)["found"]
    assert invoke(*state, "--format", "json")[1] == []


def test_another_objective_does_not_go_on_from_the_same_file(invoke, tmp_path):
    state = ("--state", str(tmp_path / "state"))
    invoke(*state)
    outcome, plans = invoke(*state, "--success", "0.95")
    assert (outcome.exit_code, plans) == (2, [])


@pytest.mark.parametrize("key", ["trial", "run"])
def test_a_state_whose_steps_lost_a_part_is_refused(invoke, tmp_path, key):
    path = tmp_path / "state"
    invoke("--state", str(path))
    document = json.loads(path.read_text())
    document["steps"][0][key] = {}
    path.write_text(json.dumps(document))
    outcome, plans = invoke("--state", str(path))
    assert (outcome.exit_code, plans) == (2, [])


def test_no_rate_is_exit_code_1(invoke):
    outcome, _ = invoke("--p99-ms", "1")
    assert outcome.exit_code == 1
    assert "No rate was found" in outcome.output


@pytest.mark.parametrize(("option", "value"), [("--success", "1"), ("--p99-ms", "0"), ("--precision", "0")])
def test_an_impossible_objective_is_exit_code_2(invoke, option, value):
    assert invoke(option, value)[0].exit_code == 2


@pytest.mark.parametrize("arguments", [("--mlperf", "offline"), ("--trace", __file__)])
def test_a_search_decides_itself_when_requests_are_due(invoke, arguments):
    outcome, plans = invoke(*arguments)
    assert (outcome.exit_code, plans) == (2, [])
    assert "a search decides when requests are due" in outcome.output


def test_a_client_at_its_limit_ends_the_search_with_the_rate_that_was_known(invoke):
    outcome, _ = invoke(late_from=200)
    text = " ".join(outcome.output.split())
    assert outcome.exit_code == 0
    assert re.search(r"19\d\.?\d? requests a second hold .* at 2\d\d\.?\d? the client is the limit: late", text)
