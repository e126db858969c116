from __future__ import annotations

import dataclasses

import pytest
from erg_server.devices.device import Device
from erg_server.devices.memory_budget import MemoryBudget
from erg_server.planning.advice import MOST_FURTHER, KindAdvice, advise
from erg_server.planning.catalogue import PlannedModel
from erg_server.planning.forecast import Forecast, ModelForecast, Status
from erg_server.planning.report import advice_lines
from erg_server.planning.scenario import Scenario
from erg_server.planning.simulate import forecast
from erg_server.repository.spec import InstanceGroup, InstanceKind

from tests.server.planning.builders import planned, scenario


def simulate(each: Scenario, _: str) -> Forecast:
    return forecast(each)


def advice_for(each: Scenario) -> KindAdvice:
    (advice,) = advise(each, forecast(each), simulate)
    return advice


def test_where_all_is_met_nothing_is_advised() -> None:
    each = scenario(planned(rate_per_s=20))
    assert advise(each, forecast(each), simulate) == ()


def test_the_devices_advised_are_enough_and_one_less_is_not() -> None:
    each = scenario(planned(rate_per_s=1500), seconds=3.0)
    further = advice_for(each).further
    assert further is not None
    assert further >= 1
    assert forecast(each.with_devices("cpu", further)).met
    assert not forecast(each.with_devices("cpu", further - 1) if further > 1 else each).met


@pytest.mark.parametrize("needed", [*range(1, 12), 31, 32, 33, 63, MOST_FURTHER, MOST_FURTHER + 1])
def test_the_fewest_devices_are_found_however_many_are_needed(needed: int) -> None:
    def enough_from(each: Scenario, _: str) -> Forecast:
        status: Status = "met" if len(each.devices) > needed else "missed"
        models = tuple(ModelForecast(model=model, devices=(), status=status) for model in each.models)
        return Forecast(models=models, devices=(), memory=())

    each = scenario(planned(rate_per_s=1))
    (advice,) = advise(each, enough_from(each, ""), enough_from)
    assert advice.further == (needed if needed <= MOST_FURTHER else None)


def test_the_only_model_is_not_advised_to_be_dropped() -> None:
    advice = advice_for(scenario(planned(rate_per_s=1500), seconds=1.0))
    assert advice.removals is None
    assert not any("drop" in line for line in advice_lines(advice))


def test_every_model_that_is_enough_to_drop_is_named() -> None:
    each = scenario(planned("a", 400), planned("b", 400), planned("c", 5), seconds=3.0)
    removals = advice_for(each).removals
    assert removals is not None
    assert sorted(removals) == [("a",), ("b",)]
    assert all(forecast(each.without(names)).met for names in removals)


def test_a_model_that_helps_some_of_the_others_only_is_not_named() -> None:
    each = scenario(planned("flood", 3000), planned("small", 5), seconds=2.0)
    assert forecast(each.without(["small"])).unmet == ("flood",)
    assert advice_for(each).removals == (("flood",),)


def test_where_no_single_model_is_enough_a_set_is_found() -> None:
    each = scenario(planned("a", 500), planned("b", 500), planned("c", 500), planned("d", 5), seconds=2.0)
    (names,) = advice_for(each).removals or ()
    assert len(names) == 2
    assert forecast(each.without(names)).met
    assert "d" not in names


def test_an_objective_below_what_a_request_takes_alone_is_told_apart() -> None:
    each = scenario(planned("slow", 10, row_ms=80, objective_ms=50), planned("quick", 20))
    advice = advice_for(each)
    assert (advice.hopeless, advice.further, advice.removals) == (("slow",), 0, (("slow",),))
    assert any("only a cheaper model or more time helps" in line for line in advice_lines(advice))


def test_where_the_machine_lacks_memory_no_further_worker_is_advised() -> None:
    models = planned("a", 20, memory_bytes=60), planned("b", 10, memory_bytes=60)
    each = scenario(*models, budget=MemoryBudget(cpu_bytes=100))
    tried: list[str] = []

    def watched(other: Scenario, what: str) -> Forecast:
        tried.append(what)
        return forecast(other)

    (advice,) = advise(each, forecast(each), watched)
    assert not any("more of kind" in what for what in tried), "it was known without trying"
    assert (advice.further, advice.budget_bytes) == (None, 120)
    assert advice.removals is not None
    assert sorted(advice.removals) == [("a",), ("b",)]
    assert forecast(dataclasses.replace(each, budget=MemoryBudget(cpu_bytes=120))).met


def test_a_further_gpu_brings_its_own_memory() -> None:
    models = planned("a", 20, memory_bytes=60), planned("b", 10, memory_bytes=60)
    gpus = (Device(kind="gpu", id=0),)
    each = dataclasses.replace(scenario(*models), devices=gpus, budget=MemoryBudget(gpu_bytes=100))
    assert advice_for(each).further == 1


def test_a_count_that_keeps_a_model_off_further_devices_is_told() -> None:
    model = planned(rate_per_s=3000)
    counted = dataclasses.replace(model.spec, instance_groups=(InstanceGroup(kind="CPU", count=1),))
    advice = advice_for(scenario(dataclasses.replace(model, spec=counted), seconds=0.2))
    assert (advice.further, advice.counted) == (None, ("m",))
    assert any("instance_group states a count for m" in line for line in advice_lines(advice))


def test_kinds_of_devices_are_advised_apart() -> None:
    def on(kind: InstanceKind, name: str) -> PlannedModel:
        model, group = planned(name, 2000), InstanceGroup(kind=kind)
        return dataclasses.replace(model, spec=dataclasses.replace(model.spec, instance_groups=(group,)))

    base = scenario(on("CPU", "c"), on("GPU", "g"), seconds=0.5)
    each = dataclasses.replace(base, devices=(*base.devices, Device(kind="gpu", id=0)))
    advice = advise(each, forecast(each), simulate)
    assert [(one.kind, one.unmet) for one in advice] == [("cpu", ("c",)), ("gpu", ("g",))]
    assert all(one.further for one in advice)
