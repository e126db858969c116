"""What each device of this machine costs, from the price file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError
from erg_server.money.price_file import Prices

NS_PER_HOUR: Final = 3600 * 10**9


def device_rates(prices: Prices, devices: Sequence[Device], products: Mapping[str, str]) -> Mapping[str, Fraction]:
    """Dollars for an hour of each device, by its name; {} where the file prices no devices.

    A CPU device costs a core's price for each of its cores, and its part of those that it shares with other workers. A
    share of a GPU by MPS costs its part of the GPU. `products` are GPUs' product names, by device name.

    Raises:
        InvalidArgumentError: a device has no price. A MIG instance has none but by name: how much of a GPU's price it
            is, is its owner's to say.
    """
    if not prices.device_hour_usd:
        return {}
    sharers = Counter(core for device in devices for core in device.cores)
    rates: dict[str, Fraction] = {}
    for device in devices:
        product = products.get(device.name, "")
        hour = prices.device_hour_usd.get(product) if product else None
        if hour is None and not device.partition.startswith("mig"):
            hour = prices.device_hour_usd.get(device.kind)
        if hour is None:
            named = f"'{product}'" if product else device.kind
            whole = "" if device.partition.startswith("mig") or device.kind == "cpu" else f", or {device.kind} for all"
            raise InvalidArgumentError(
                f"--price-file has no device_hour_usd for {device.name}: give one for {named}{whole}"
                f" (it has {', '.join(prices.device_hour_usd)}); 0 for one that costs nothing"
            )
        if device.kind == "cpu":
            hour *= sum((Fraction(1, sharers[core]) for core in device.cores), Fraction()) or 1
        elif device.mps_percent:
            hour *= Fraction(device.mps_percent, 100)
        rates[device.name] = hour
    return rates
