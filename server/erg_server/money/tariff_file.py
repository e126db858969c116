"""From a price file to the tariff of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erg_server.devices.device import Device
from erg_server.devices.nvml import product_names
from erg_server.money.costs import Tariff
from erg_server.money.device_rates import device_rates
from erg_server.money.price_file import read_price_file


def read_tariff(path: Path, devices: Sequence[Device]) -> Tariff:
    """What a price file says of these devices; GPUs are asked for their products.

    Raises:
        InvalidArgumentError: it is no price file, or a device has no price in it.
    """
    prices = read_price_file(path)
    return Tariff(prices, device_rates(prices, devices, product_names(devices)))
