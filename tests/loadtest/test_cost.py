import pytest
from erg_loadtest.cost import CpuPrice, cost_of
from erg_loadtest.errors import PlanError


def test_the_cost_of_1000_is_cpu_time_times_price():
    cost = cost_of(
        cpu_seconds=7.2, inferences=2000, price=CpuPrice(per_cpu_hour=0.05, currency="EUR"), source="measured"
    )
    assert cost is not None
    assert cost.cpu_seconds_per_1000 == pytest.approx(3.6)
    assert cost.per_1000 == pytest.approx(0.00005)
    assert (cost.currency, cost.source) == ("EUR", "measured")


def test_without_an_inference_there_is_no_cost():
    assert cost_of(cpu_seconds=1.0, inferences=0, price=CpuPrice(per_cpu_hour=1.0), source="measured") is None


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_an_impossible_price_is_refused(price):
    with pytest.raises(PlanError):
        CpuPrice(per_cpu_hour=price)
