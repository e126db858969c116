"""What each device costs an hour, and who is told to give a price."""

from __future__ import annotations

from fractions import Fraction

import pytest
from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError
from erg_server.money.device_rates import device_rates
from erg_server.money.price_file import Prices

GPU = Device(kind="gpu", id=0, gpu_uuid="GPU-a")
MIG = Device(kind="gpu", id=1, gpu_uuid="MIG-a", partition="mig0")


def prices(**hours: float) -> Prices:
    return Prices(device_hour_usd={name: Fraction(str(hour)) for name, hour in hours.items()})


def test_a_cpu_device_costs_its_cores_and_half_of_one_that_two_workers_share() -> None:
    devices = (
        Device(kind="cpu", id=0, cores=(0, 1)),
        Device(kind="cpu", id=1, cores=(2, 3)),
        Device(kind="cpu", id=2, cores=(2, 3)),
        Device(kind="cpu", id=3),
    )
    rates = device_rates(prices(cpu=0.5), devices, {})
    assert rates == {"cpu0": 1, "cpu1": Fraction(1, 2), "cpu2": Fraction(1, 2), "cpu3": Fraction(1, 2)}


def test_a_products_price_wins_over_its_kinds() -> None:
    other = Device(kind="gpu", id=1, gpu_uuid="GPU-b")
    rates = device_rates(prices(gpu=2, H100=3), (GPU, other), {"gpu0": "H100", "gpu1": "L4"})
    assert rates == {"gpu0": 3, "gpu1": 2}


def test_shares_by_mps_cost_their_part() -> None:
    shares = [Device(kind="gpu", id=0, partition=f"mps{n}", mps_percent=part) for n, part in enumerate((30, 70))]
    assert device_rates(prices(gpu=2), shares, {}) == {"gpu0.mps0": Fraction(6, 10), "gpu0.mps1": Fraction(14, 10)}


def test_without_the_table_no_device_has_a_price() -> None:
    assert device_rates(Prices(usd_per_kwh=Fraction(1)), (GPU, MIG), {}) == {}


@pytest.mark.parametrize(
    ("device", "products", "told"),
    [
        (GPU, {}, "for gpu0: give one for gpu, or gpu for all"),
        (GPU, {"gpu0": "NVIDIA L4"}, "for gpu0: give one for 'NVIDIA L4', or gpu for all"),
        (Device(kind="cpu", id=0), {}, "for cpu0: give one for cpu (it has tpu)"),
    ],
)
def test_a_device_without_a_price_is_named_with_what_to_write(
    device: Device, products: dict[str, str], told: str
) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        device_rates(prices(tpu=1), (device,), products)
    assert told in raised.value.message


def test_a_mig_instance_never_costs_a_whole_gpu() -> None:
    with pytest.raises(InvalidArgumentError, match=r"gpu1.mig0: give one for 'A100 MIG 1g.5gb' \(it has gpu\)"):
        device_rates(prices(gpu=4), (MIG,), {"gpu1.mig0": "A100 MIG 1g.5gb"})
    assert device_rates(prices(**{"A100 MIG 1g.5gb": 0.6}), (MIG,), {"gpu1.mig0": "A100 MIG 1g.5gb"}) == {
        "gpu1.mig0": Fraction(6, 10)
    }
