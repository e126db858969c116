from __future__ import annotations

import dataclasses

import pytest
from erg_server.devices.device import Device
from erg_server.devices.memory_budget import MemoryBudget
from erg_server.errors import InvalidArgumentError
from erg_server.planning.batch_times import BatchTimes
from erg_server.planning.simulate import forecast
from erg_server.planning.traffic import ModelTraffic, RecordedArrivals
from erg_server.repository.spec import InstanceGroup
from erg_server.simulation.cost import LinearCost

from tests.server.planning.builders import MS, planned, scenario


def test_a_light_load_is_met() -> None:
    found = forecast(scenario(planned(rate_per_s=50)))
    (model,) = found.models
    assert found.met
    assert model.status == "met"
    assert model.p99_ns is not None
    assert 5 * MS <= model.p99_ns <= 50 * MS
    assert model.goodput_per_s == pytest.approx(model.offered_per_s, rel=0.01)
    assert found.devices[0].utilization == pytest.approx(model.load, abs=0.01)


def test_an_overload_is_missed_and_what_is_not_answered_is_accounted_for() -> None:
    (model,) = forecast(scenario(planned(rate_per_s=5000), seconds=2.0)).models
    assert model.status == "missed"
    assert model.refused_share > 0.5
    shares = model.in_time_share, model.refused_share, model.dropped_share, model.late_share
    assert sum(shares) == pytest.approx(1)
    assert model.goodput_per_s < 8 / 0.012, "never above what the device can do"


def test_equal_seeds_make_equal_plans_and_others_do_not() -> None:
    first, again, other = (forecast(scenario(planned(), seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_recording_is_played_with_its_rows() -> None:
    recorded = RecordedArrivals(times_s=tuple(number / 10 for number in range(20)), rows=(8,) * 20)
    model = dataclasses.replace(planned(), traffic=ModelTraffic(name="m", arrivals=recorded))
    (found,) = forecast(scenario(model, seconds=2.0)).models
    assert found.requests == 20
    assert found.p50_ns == 12 * MS, "4 ms for the batch and 1 ms for each of 8 rows"


def test_the_seed_decides_durations_as_well() -> None:
    recorded = RecordedArrivals(times_s=tuple(number / 10 for number in range(20)), rows=(1,) * 20)
    times = BatchTimes(cost=LinearCost(5.0 * MS, 0.0, jitter=0.2), source="")
    model = dataclasses.replace(planned(), traffic=ModelTraffic(name="m", arrivals=recorded), times=times)
    first, other = (forecast(scenario(model, seed=seed, seconds=2.0)).models[0].p99_ns for seed in (1, 2))
    assert first != other


def test_a_model_that_does_not_batch_is_answered_one_by_one() -> None:
    model = planned(rate_per_s=20)
    single = dataclasses.replace(model, spec=dataclasses.replace(model.spec, max_batch_size=0, batching=None))
    (found,) = forecast(scenario(single)).models
    assert found.status == "met"
    assert found.p50_ns is not None
    assert found.p50_ns >= 5 * MS


def test_without_an_objective_what_falls_behind_is_told() -> None:
    steady, flood = planned(rate_per_s=50, objective_ms=0), planned(rate_per_s=2000, objective_ms=0)
    assert forecast(scenario(steady)).models[0].status == "no objective"
    assert forecast(scenario(flood, seconds=2.0)).models[0].status == "falls behind"


def test_memory_goes_to_the_pinned_and_then_to_the_busy() -> None:
    pinned = planned("pinned", rate_per_s=0, memory_bytes=60)
    pinned = dataclasses.replace(pinned, spec=dataclasses.replace(pinned.spec, pinned=True))
    models = [planned("quiet", 1, memory_bytes=40), planned("busy", 50, memory_bytes=40), pinned]
    found = forecast(scenario(*models, budget=MemoryBudget(cpu_bytes=100)))
    assert [model.status for model in found.models] == ["no memory", "met", "no traffic"]
    (memory,) = found.memory
    assert (memory.used_bytes, memory.budget_bytes) == (100, 100)
    assert found.unmet == ("quiet",)


def test_models_that_a_gpu_has_no_memory_for_fail_the_plan() -> None:
    gpu = Device(kind="gpu", id=0, memory_bytes=100)
    each = dataclasses.replace(scenario(planned(rate_per_s=10, memory_bytes=101)), devices=(gpu,))
    found = forecast(each)
    assert not found.met
    assert not found.unmet, "its objective is met, if only it could be loaded"
    assert found.memory[0].exceeded
    assert forecast(dataclasses.replace(each, devices=(dataclasses.replace(gpu, memory_bytes=101),))).met


def test_a_hot_model_has_more_instances_within_memory() -> None:
    models = [planned("hot", 900, memory_bytes=10), planned("cold", 1, memory_bytes=10)]
    found = forecast(scenario(*models, devices=4, budget=MemoryBudget(cpu_bytes=1000)))
    hot, cold = found.models
    assert len(hot.devices) > len(cold.devices) == 1


def test_batches_are_no_larger_than_the_artifact_takes() -> None:
    model = planned(rate_per_s=300)
    limited = dataclasses.replace(model, spec=dataclasses.replace(model.spec, batch_limit=1))
    assert forecast(scenario(model)).met
    assert forecast(scenario(limited)).models[0].status == "missed", "one row in 5 ms is 200 a second"


def test_the_weights_of_models_count() -> None:
    heavy = planned("heavy", 1500)
    heavy = dataclasses.replace(heavy, spec=dataclasses.replace(heavy.spec, weight=4.0))
    more, less = forecast(scenario(heavy, planned("light", 1500), seconds=2.0)).models
    assert more.goodput_per_s > 1.5 * less.goodput_per_s


def test_what_small_batches_really_take_decides_where_models_are() -> None:
    # In full batches the model would need a sixth of a device; its objective leaves time for one request a batch.
    dear = planned("dear", 60, fixed_ms=20.0, row_ms=0.1, objective_ms=30.0, memory_bytes=10)
    each = scenario(dear, planned("cold", 1, memory_bytes=10), devices=4, budget=MemoryBudget(cpu_bytes=1000))
    assert len(forecast(each).models[0].devices) > 1


def test_an_instance_group_keeps_to_its_count() -> None:
    model = planned(rate_per_s=10)
    counted = dataclasses.replace(model.spec, instance_groups=(InstanceGroup(kind="CPU", count=1),))
    found = forecast(scenario(dataclasses.replace(model, spec=counted), devices=3))
    assert [bool(device.models) for device in found.devices].count(True) == 1


def test_a_load_without_end_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"too many to simulate.*lower --seconds"):
        forecast(scenario(planned(rate_per_s=1e6), seconds=1e3))


def test_progress_is_told_from_start_to_end() -> None:
    told: list[float] = []
    forecast(scenario(planned(rate_per_s=200)), told.append)
    assert told == sorted(told)
    assert told[-1] > 0.95
