from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from erg_server.planning.cli import plan

from tests.server.planning.builders import measured, write_model

QUIET = "[models.m]\nrate_per_s = 20\nobjective_ms = 50\n"
FLOOD = "[models.m]\nrate_per_s = 2000\nobjective_ms = 50\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path / "repo", "m", [measured(1, 5.0), measured(8, 12.0)])
    return tmp_path / "repo"


def run(repository: Path, load: str, *options: str, suffix: str = "toml") -> Result:
    path = repository.parent / f"load.{suffix}"
    path.write_text(load)
    arguments = [str(repository), "--load", str(path), "--seconds", "2", "--devices", "1xcpu", *options]
    return CliRunner().invoke(plan, arguments)


def test_a_plan_that_holds_exits_with_0(repository: Path) -> None:
    result = run(repository, QUIET)
    assert result.exit_code == 0, result.output
    assert "every objective is met" in result.output
    assert "manifest" in result.output


def test_a_plan_that_fails_exits_with_3_and_says_what_helps(repository: Path) -> None:
    result = run(repository, FLOOD)
    assert result.exit_code == 3, result.output
    assert "objectives are not met: m" in result.output
    assert "more of kind cpu would do" in result.output


def test_a_trace_is_planned_too(repository: Path) -> None:
    trace = "time_s,model,rows\n" + "".join(f"{number / 10},m,2\n" for number in range(20))
    assert run(repository, trace, suffix="csv").exit_code == 0


def test_json_goes_to_a_file_and_has_the_whole_plan(repository: Path, tmp_path: Path) -> None:
    result = run(repository, FLOOD, "--json", str(tmp_path / "plan.json"))
    document = json.loads((tmp_path / "plan.json").read_text())
    assert "Placement" in result.output
    assert (document["format_version"], document["met"], document["unmet"]) == (1, False, ["m"])
    assert document["models"][0]["objective_ms"] == 50
    assert document["models"][0]["batch_times"] == {
        "source": "manifest",
        "mean_ms_by_rows": {"1": 5.0, "2": 6.0, "4": 8.0, "8": 12.0},
        "p99_over_mean": 1.1,
    }
    assert document["advice"][0]["further_devices"] >= 1


def test_a_dash_prints_json_alone(repository: Path) -> None:
    document = json.loads(run(repository, FLOOD, "--json", "-", "--no-advice").stdout)
    assert document["advice"] is None


def test_equal_seeds_print_equal_plans(repository: Path) -> None:
    first, again, other = (run(repository, QUIET, "--json", "-", "--seed", seed).stdout for seed in ("1", "1", "2"))
    assert first == again != other


def test_what_batches_take_must_be_known(tmp_path: Path) -> None:
    write_model(tmp_path / "repo", "m")
    refused = run(tmp_path / "repo", QUIET)
    assert refused.exit_code == 1
    assert "--assume-ms m=5" in refused.output
    assumed = run(tmp_path / "repo", QUIET, "--assume-ms", "m=4+1")
    assert assumed.exit_code == 0
    assert "assumed: 4 ms + 1 ms a row" in assumed.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--assume-ms", "x=5"], "--assume-ms: the load has no model 'x'; it has m"),
        (["--objective-ms", "x=5"], "--objective-ms: the load has no model 'x'"),
        (["--devices", "tpu"], "there is no such device"),
        (["--memory-budget", "much"], "is no size above 0"),
        (["--seconds", "0"], "--seconds"),
    ],
)
def test_a_wrong_command_exits_with_2_and_says_why(repository: Path, options: list[str], told: str) -> None:
    result = run(repository, QUIET, *options)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


def test_a_wrong_load_file_is_told_with_its_line(repository: Path) -> None:
    result = run(repository, "[models.m]\nrate_per_s = 5\nrow = 2\n")
    assert result.exit_code == 2
    assert "load.toml:3: models.m.row: is no key of a model's load; did you mean 'rows'?" in result.output


def test_the_help_teaches_by_examples() -> None:
    output = CliRunner().invoke(plan, ["--help"]).output
    assert "erg plan model_repo --load trace.csv --devices 2xgpu --memory-budget gpu=20GiB" in output
    assert "Exits with 0 when every objective is met, 3 when one is not" in output
