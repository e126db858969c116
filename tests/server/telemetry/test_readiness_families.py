from __future__ import annotations

from erg_server.telemetry.limit_families import LimitSample, limit_families
from erg_server.telemetry.readiness_families import ModelState, readiness_families


def test_readiness_is_told_of_the_server_of_models_and_of_versions_that_did_not_load() -> None:
    models = [
        ModelState(model="good", ready=True, failed={"2": False}),
        ModelState(model="bad", ready=False, failed={"10": True, "": True}),
    ]
    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in readiness_families(False, models)
        for sample in family.samples
    }
    assert told == {
        ("erg_server_ready",): 0,
        ("erg_model_ready", "good"): 1,
        ("erg_model_ready", "bad"): 0,
        ("erg_model_load_failed", "good", "2"): 0,
        ("erg_model_load_failed", "bad", ""): 1,
        ("erg_model_load_failed", "bad", "10"): 1,
    }


def test_a_limit_and_what_is_used_of_it_have_the_same_labels() -> None:
    limit, used = limit_families(LimitSample(scope="container", limit_bytes=10, used_bytes=4))
    assert [(each.name, each.labels, each.value) for each in (*limit.samples, *used.samples)] == [
        ("erg_memory_limit_bytes", {"scope": "container"}, 10),
        ("erg_memory_used_bytes", {"scope": "container"}, 4),
    ]
