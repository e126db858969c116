"""A real Prometheus scrapes a real server under load, and evaluates the rules that the chart installs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from erg_server.energy.account import ACCOUNT_KINDS
from erg_server.telemetry.gpu_families import GpuSample, gpu_families
from erg_server.telemetry.meter import FAILURE_REASONS, REFUSAL_REASONS
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.server_process import ServerProcess
from tests.monitoring.boards import shown
from tests.monitoring.load import Load, miss, start
from tests.monitoring.prometheus_process import TARGET, Prometheus
from tests.monitoring.promql import filled, groupings, selectors
from tests.monitoring.rules import rules

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GPU = GpuSample(
    uuid="GPU-1", power_watts=1, power_limit_watts=1, energy_joules=1, utilization=1, memory_total_bytes=1,
    memory_used_bytes=1,
)  # fmt: skip
SCRAPED = {"namespace", "job", "pod", "instance"}
"""Labels of the target, which Prometheus adds to whatever it scrapes."""
OWN = {"up": SCRAPED, "ALERTS": SCRAPED | {"alertname", "alertstate"}}
"""What Prometheus itself makes."""
LEVELS = {"model": {"namespace", "job", "model"}, "job": {"namespace", "job"}, "instance": SCRAPED | {"scope"}}
"""Labels that a recording keeps, by the first part of its name."""
VALUES: dict[str, set[str]] = {
    "account": set(ACCOUNT_KINDS),
    "reason": {*FAILURE_REASONS, *REFUSAL_REASONS},
    "outcome": {"met", "late", "dropped"},
}
"""Values that labels may have though a short run has not shown them."""
QUIET = {
    "GPUs", "Alerts that fire", "Alerts", "Workers away and restarted", "Refused, by reason", "Failed, by reason",
}  # fmt: skip
"""Panels that may show nothing: this machine may have no GPU, and nothing has failed yet."""


@dataclass
class Watched:
    server: ServerProcess
    prometheus: Prometheus
    roots: Path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    server, roots = start(folder)
    with server, Prometheus(folder, server.metrics_address) as prometheus:
        yield Watched(server, prometheus, roots)


def exported(server: ServerProcess) -> dict[str, dict[str, set[str]]]:
    """What the server exports: by metric its labels, and by label its values. GPUs' as the same code makes them."""
    found: dict[str, dict[str, set[str]]] = {}
    families = [*text_string_to_metric_families(server.http("/metrics")[1]), *gpu_families([GPU])]
    for family in families:
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def test_under_load_every_rule_and_panel_reads_what_the_server_exports(watched: Watched) -> None:
    server, prometheus = watched.server, watched.prometheus
    recorded = [rule.record for rule in rules() if rule.record]
    with Load(server, watched.roots) as load:
        for name in recorded:
            prometheus.until_value(name, name)
        wanted = [each for each in shown() if each.panel not in QUIET]
        assert len(wanted) > 50
        for each in wanted:
            prometheus.until_value(filled(each.expr, SHORT), f"{each.board} {each.panel}")
        for each in shown():
            prometheus.query(filled(each.expr, SHORT))
        metrics = exported(server)
    assert load.calls > 50
    check_names(metrics)
    # Every rule was evaluated, and none in vain.
    states = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in states} == {rule.record or rule.alert for rule in rules()}
    assert {rule["health"] for rule in states} == {"ok"}, [rule.get("lastError") for rule in states]
    # What it records is what the server counted: all of it was answered in time.
    (burn,) = prometheus.query('model:erg_objective_burn:ratio_rate1h{model="mlp"}')
    assert burn["metric"] | {"__name__": ""} == {"__name__": "", "namespace": "test", "job": "erg", "model": "mlp"}
    assert float(burn["value"][1]) == 0
    # The host's memory may be short for what else runs on it.
    assert prometheus.firing().keys() <= {"ErgMemoryHeadroomLow"}


SHORT = {
    "$__rate_interval": "30s", "$__range": "1m", "$namespace": "test", "$job": "erg", "$pod": "erg-.*", "$model": ".*",
}  # fmt: skip


def check_names(metrics: dict[str, dict[str, set[str]]]) -> None:
    """Every metric, label and value that rules and dashboards name is one that is exported or recorded."""
    recorded = {rule.record: LEVELS[rule.record.partition(":")[0]] for rule in rules() if rule.record}
    known: dict[str, set[str]] = {name: {*labels, *SCRAPED} for name, labels in metrics.items()} | OWN | recorded
    for expr in [rule.expr for rule in rules()] + [filled(each.expr, SHORT) for each in shown()]:
        for selector in selectors(expr):
            assert selector.name in known, f"{selector.name} in {expr}"
            for label, values in selector.values.items():
                assert label in known[selector.name], f"{label} of {selector.name} in {expr}"
                if label not in SCRAPED and selector.name in metrics:
                    there: set[str] = metrics[selector.name][label] | VALUES.get(label, set())
                    assert set(values) <= there, f"{values} of {label} of {selector.name} in {expr}"
        for grouping in groupings(expr):
            for name in grouping.names:
                assert set(grouping.labels) <= known[name], f"{grouping.labels} of {name} in {expr}"


def test_a_worker_that_is_killed_and_an_objective_that_is_missed_fire_their_alerts(watched: Watched) -> None:
    server, prometheus = watched.server, watched.prometheus
    os.kill(server.workers()[0], signal.SIGKILL)
    asyncio.run(miss(server, watched.roots, 20))
    prometheus.until(
        lambda: {"ErgWorkerRestarted", "ErgObjectiveBurnFast"} <= prometheus.firing().keys(), "an alarm", 120.0
    )
    firing = prometheus.firing()
    died, missed = firing["ErgWorkerRestarted"], firing["ErgObjectiveBurnFast"]
    assert died["labels"].items() >= (TARGET | {"severity": "warning", "worker": "cpu0"}).items()
    assert "Worker cpu0 of test/erg-0" in died["annotations"]["description"]
    assert missed["labels"] == {
        "alertname": "ErgObjectiveBurnFast", "namespace": "test", "job": "erg", "model": "hasty",
        "severity": "critical",
    }  # fmt: skip
    assert float(missed["value"]) == pytest.approx(100), "all were missed, of 1 in 100 that may be"
    assert "100.0 times the rate" in missed["annotations"]["description"]
    # With seconds for minutes, a restart may look like a worker that stays away. It is back: that alert ends.
    server.wait_for(r"worker cpu0 is back")
    prometheus.until(lambda: "ErgWorkerMissing" not in prometheus.firing(), "the end of an alarm")
    # What was not provoked is silent.
    provoked = {"ErgWorkerRestarted", "ErgObjectiveBurnFast", "ErgObjectiveBurnSlow", "ErgRequestsRefused"}
    assert prometheus.firing().keys() <= provoked | {"ErgMemoryHeadroomLow"}
