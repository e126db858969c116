"""A plan as programs read it, in plain JSON values. Its keys have their units; times and figures not known are null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from erg_server.planning.advice import KindAdvice
from erg_server.planning.batch_times import BatchTimes, sizes_to
from erg_server.planning.forecast import Forecast, ModelForecast
from erg_server.planning.scenario import Scenario

FORMAT_VERSION = 1


def plan_document(
    scenario: Scenario, found: Forecast, advice: Sequence[KindAdvice] | None, passed_over: Mapping[str, str]
) -> dict[str, object]:
    """The whole plan; `advice` is null where it was not asked for."""
    return {
        "format_version": FORMAT_VERSION,
        "met": found.met,
        "unmet": list(found.unmet),
        "seconds": scenario.seconds,
        "seed": scenario.seed,
        "models": [_model(each) for each in found.models],
        "devices": [
            {"name": each.name, "kind": each.kind, "utilization": each.utilization, "models": list(each.models)}
            for each in found.devices
        ],
        "memory": [
            {
                "pool": each.pool,
                "used_bytes": each.used_bytes,
                "budget_bytes": each.budget_bytes,
                "capacity_bytes": each.capacity_bytes,
            }
            for each in found.memory
        ],
        "advice": None if advice is None else [_advice(each) for each in advice],
        "passed_over": dict(passed_over),
    }


def _model(each: ModelForecast) -> dict[str, object]:
    model = each.model
    return {
        "name": model.name,
        "version": model.version,
        "status": each.status,
        "devices": list(each.devices),
        "memory_bytes": model.memory_bytes,
        "memory_source": model.memory_source,
        "batch_times": None if model.times is None else _times(model.times, model.most_batch_rows),
        "objective_ms": model.spec.objective_ns / 1e6 or None,
        "requests": each.requests,
        "offered_per_s": each.offered_per_s,
        "goodput_per_s": each.goodput_per_s,
        "in_time_share": each.in_time_share,
        "refused_share": each.refused_share,
        "dropped_share": each.dropped_share,
        "late_share": each.late_share,
        "p50_ms": None if each.p50_ns is None else each.p50_ns / 1e6,
        "p99_ms": None if each.p99_ns is None else each.p99_ns / 1e6,
        "load_device_seconds_per_s": each.load,
    }


def _times(times: BatchTimes, most_rows: int) -> dict[str, object]:
    return {
        "source": times.source,
        "mean_ms_by_rows": {str(rows): times.mean_ns(rows) / 1e6 for rows in sizes_to(most_rows)},
        "p99_over_mean": times.spread,
    }


def _advice(each: KindAdvice) -> dict[str, object]:
    return {
        "kind": each.kind,
        "unmet": list(each.unmet),
        "hopeless": list(each.hopeless),
        "further_devices": each.further,
        "removals": None if each.removals is None else [list(names) for names in each.removals],
        "budget_bytes": each.budget_bytes,
        "counted": list(each.counted),
    }
