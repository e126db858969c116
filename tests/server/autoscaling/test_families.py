from __future__ import annotations

from erg_server.autoscaling.families import scaling_families
from erg_server.autoscaling.replicas import Need


def test_the_gauges_have_the_names_and_labels_that_charts_rely_on() -> None:
    need = Need(replicas=1.7, queue_seconds={"b": 0.5, "a": 0.0}, slack_seconds={"b": -0.01})
    samples = [
        (sample.name, sample.labels, sample.value) for family in scaling_families(need) for sample in family.samples
    ]
    assert samples == [
        ("erg_replicas_needed", {}, 1.7),
        ("erg_queue_seconds", {"model": "a"}, 0.0),
        ("erg_queue_seconds", {"model": "b"}, 0.5),
        ("erg_slack_seconds", {"model": "b"}, -0.01),
    ]
