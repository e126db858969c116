"""The rules by promtool: each alert fires when it should, after its `for`, and is silent when it should not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.alert_cases import CASES, MODEL, Case, Series, traffic
from tests.monitoring.rules import RULE_FILES, alerts, rules
from tests.tools import tool


def promtool(*arguments: str) -> str:
    """Runs it; fails with what it says."""
    ended = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def as_labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}"


def expect(alert: str, at: str, labels: dict[str, str] | None) -> dict[str, Any]:
    """What promtool is to find at a moment: the alert with these labels, or nothing of it."""
    samples = [] if labels is None else [{"labels": f"ALERTS{as_labels({'alertname': alert} | labels)}", "value": 1}]
    return {"expr": f'ALERTS{{alertname="{alert}"}}', "eval_time": at, "exp_samples": samples}


def scenario(series: Series, step: str, tests: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": step, "input_series": inputs, "promql_expr_test": tests}


def run(tmp_path: Path, scenarios: list[dict[str, Any]], step: str = "1m") -> str:
    document = {"rule_files": list(map(str, RULE_FILES)), "evaluation_interval": step, "tests": scenarios}
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return promtool("test", "rules", str(path))


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    told = promtool("check", "rules", *map(str, RULE_FILES))
    assert told.count("SUCCESS") == len(RULE_FILES) > 0


def test_every_alert_has_a_case_here_and_what_an_operator_needs() -> None:
    assert {case.alert for case in CASES} == alerts().keys()
    assert all(case.quiet for case in CASES)
    for name, rule in alerts().items():
        assert rule.labels["severity"] in {"warning", "critical"}, name
        assert rule.labels.keys() == {"severity"}, name
        assert rule.annotations.keys() == {"summary", "description", "runbook"}, name
        assert "$value" in rule.annotations["description"], name
        assert rule.annotations["runbook"] == f"docs/kubernetes.md#{name.lower()}"


def test_no_name_is_used_twice() -> None:
    names = [rule.record or rule.alert for rule in rules()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_after_its_for_and_not_before(tmp_path: Path, case: Case) -> None:
    labels = case.labels | {"severity": alerts()[case.alert].labels["severity"]}
    tests = [expect(case.alert, case.fires, labels | {"alertstate": "firing"})]
    if case.pending:
        tests.append(expect(case.alert, case.pending, labels | {"alertstate": "pending"}))
    else:
        assert alerts()[case.alert].hold == "0m"
    run(tmp_path, [scenario(case.series, case.step, tests)], case.step)


@pytest.mark.parametrize(
    ("case", "number"), [pytest.param(case, number, id=f"{case.alert}-{quiet.why}")
                         for case in CASES for number, quiet in enumerate(case.quiet)],
)  # fmt: skip
def test_an_alert_is_silent_without_its_cause(tmp_path: Path, case: Case, number: int) -> None:
    quiet = case.quiet[number]
    # Pending is no alarm: what is over before the `for` is, was none.
    test = expect(case.alert, quiet.at, None)
    test["expr"] = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    run(tmp_path, [scenario(quiet.series, case.step, [test])], case.step)


def test_every_text_can_be_filled_in(tmp_path: Path) -> None:
    # promtool shows the alerts that it has where it is told to expect none.
    scenarios = []
    for case in CASES:
        each = scenario(case.series, case.step, [])
        each["alert_rule_test"] = [{"eval_time": case.fires, "alertname": case.alert, "exp_alerts": []}]
        scenarios.append(each)
    with pytest.raises(AssertionError) as told:
        run(tmp_path, scenarios)
    text = str(told.value)
    assert text.count("Annotations:{description=") == len(CASES)
    assert "error expanding" not in text
    assert "<no value>" not in text
    assert "20.0 times the rate" in text
    assert "95% of the memory of its container" in text
    assert "13d 0h" in text or "12d 23h" in text


def value(expr: str, at: str, labels: dict[str, str], number: float) -> dict[str, Any]:
    return {"expr": expr, "eval_time": at, "exp_samples": [{"labels": expr + as_labels(labels), "value": number}]}


def test_recordings_say_what_their_names_do(tmp_path: Path) -> None:
    of_model = {"namespace": "ml", "job": "erg", "model": "minilm"}
    of_job = {"namespace": "ml", "job": "erg"}
    # 600 requests a minute, of which 30 are late, and 60 more are refused: 90 of 660 are missed.
    series = traffic(good="0+600x70", late="0+30x70", refused="0+60x70", canceled="0+500x70")
    series |= {
        f"nv_inference_count{{{MODEL}}}": "0+6000x70",
        f'erg_cost_usd_total{{{MODEL},device="cpu0",account="inference",component="device_time",source=""}}': "0+3x70",
        f'erg_cost_usd_total{{{MODEL},device="cpu0",account="late",component="energy",source="modelled"}}': "0+1x70",
        'erg_cost_usd_total{namespace="ml",job="erg",pod="erg-0",instance="10.0.0.1:8002",model="",version="",'
        'device="cpu0",account="idle",component="device_time",source=""}': "0+4x70",
        f'erg_energy_joules_total{{{MODEL},device="cpu0",account="inference",source="modelled"}}': "0+30x70",
        f'erg_device_busy_seconds_total{{{MODEL},device="cpu0",account="inference"}}': "0+30x70",
        f'erg_device_busy_seconds_total{{{MODEL},device="cpu0",account="padding"}}': "0+10x70",
    }
    tests = [
        value("model:erg_requests:rate5m", "65m", of_model, 11),
        value("model:erg_requests_missed:rate1h", "65m", of_model, 1.5),
        value("round(model:erg_objective_burn:ratio_rate5m, 0.001)", "65m", of_model, 13.636),
        value("round(model:erg_requests_refused:ratio_rate5m, 0.0001)", "65m", of_model, 0.0909),
        value("model:erg_inferences:rate1h", "65m", of_model, 100),
        value("round(model:erg_cost_usd_per_1000_inferences:rate1h, 0.0001)", "65m", of_model, 0.6667),
        value("model:erg_joules_per_1000_inferences:rate1h", "65m", of_model, 5),
        value("model:erg_wasted_busy_time:ratio_rate1h", "65m", of_model, 0.25),
        value("job:erg_idle_cost:ratio_rate1h", "65m", of_job, 0.5),
    ]
    for test in tests:
        if test["expr"].startswith("round("):  # A function's result has no name.
            test["exp_samples"][0]["labels"] = test["exp_samples"][0]["labels"].removeprefix(test["expr"])
    run(tmp_path, [scenario(series, "1m", tests)])
