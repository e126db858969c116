from __future__ import annotations

import json

from erg_server.planning.advice import KindAdvice
from erg_server.planning.document import plan_document
from erg_server.planning.forecast import DeviceForecast, Forecast, MemoryForecast

from tests.server.planning.builders import model_forecast, planned, scenario

FOUND = Forecast(
    models=(model_forecast(),),
    devices=(DeviceForecast(name="cpu0", kind="cpu", utilization=0.625, models=("m",)),),
    memory=(MemoryForecast(pool="cpu", used_bytes=3, budget_bytes=5, capacity_bytes=None),),
)


def test_every_figure_has_its_own_key() -> None:
    document = plan_document(scenario(planned()), FOUND, None, {"draft": "has no version"})
    assert json.loads(json.dumps(document)) == document
    assert document["models"] == [
        {
            "name": "m",
            "version": 1,
            "status": "missed",
            "devices": ["cpu0"],
            "memory_bytes": 7,
            "memory_source": "manifest",
            "batch_times": {
                "source": "assumed",
                "mean_ms_by_rows": {"1": 5.0, "2": 6.0, "4": 8.0, "8": 12.0},
                "p99_over_mean": 1.0,
            },
            "objective_ms": 50.0,
            "requests": 100,
            "offered_per_s": 20.0,
            "goodput_per_s": 16.0,
            "in_time_share": 0.8,
            "refused_share": 0.1,
            "dropped_share": 0.06,
            "late_share": 0.04,
            "p50_ms": 4.0,
            "p99_ms": 40.0,
            "load_device_seconds_per_s": 0.5,
        }
    ]
    assert document["devices"] == [{"name": "cpu0", "kind": "cpu", "utilization": 0.625, "models": ["m"]}]
    assert document["memory"] == [{"pool": "cpu", "used_bytes": 3, "budget_bytes": 5, "capacity_bytes": None}]
    assert (document["met"], document["unmet"], document["advice"]) == (False, ["m"], None)
    assert document["passed_over"] == {"draft": "has no version"}


def test_advice_is_told_with_what_is_not_known_as_null() -> None:
    advice = KindAdvice(kind="cpu", unmet=("m", "n"), hopeless=("n",), further=None, removals=(("m", "n"),))
    assert plan_document(scenario(planned()), FOUND, [advice], {})["advice"] == [
        {
            "kind": "cpu",
            "unmet": ["m", "n"],
            "hopeless": ["n"],
            "further_devices": None,
            "removals": [["m", "n"]],
            "budget_bytes": None,
            "counted": [],
        }
    ]
