"""Booked time and energy in dollars and grams. Exact: whole parts of a dollar, so that the parts are the whole.

Prices are fractions. All of them have a common denominator, and what is priced is counted in whole nanoseconds and
microjoules: in parts of that size every cost is a whole number, and adding them up loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Final

from erg_server.energy.account import Account, AccountTotal
from erg_server.money.device_rates import NS_PER_HOUR
from erg_server.money.price_file import Prices

UJ_PER_KWH: Final = 3_600_000 * 10**6


@dataclass(frozen=True, slots=True)
class AccountCost:
    """What one account costs, in parts of a dollar for device time and energy, and in parts of a gram of CO2."""

    account: Account
    device_parts: int
    energy_parts: int
    gram_parts: int


class Tariff:
    """Prices applied to the devices of this machine. `rates` are dollars for an hour of each device.

    A dollar has `parts_per_usd` parts, a gram `parts_per_gram`.
    """

    def __init__(self, prices: Prices, rates: Mapping[str, Fraction]) -> None:
        self.carbon_source = prices.carbon.source if prices.carbon is not None else ""
        self.grams_per_kwh = prices.carbon.grams_per_kwh if prices.carbon is not None else Fraction()
        self.devices = tuple(rates)
        self.prices_energy = prices.usd_per_kwh is not None
        usd_per_ns = {device: hour / NS_PER_HOUR for device, hour in rates.items()}
        usd_per_uj = (prices.usd_per_kwh or Fraction()) * prices.pue / UJ_PER_KWH
        grams_per_uj = self.grams_per_kwh * prices.pue / UJ_PER_KWH
        self.parts_per_usd = lcm(usd_per_uj.denominator, *(rate.denominator for rate in usd_per_ns.values()))
        self.parts_per_gram = grams_per_uj.denominator
        self._parts_per_ns = {device: int(rate * self.parts_per_usd) for device, rate in usd_per_ns.items()}
        self._parts_per_uj = int(usd_per_uj * self.parts_per_usd)
        self._gram_parts_per_uj = grams_per_uj.numerator

    def device_parts(self, device: str, busy_ns: int) -> int:
        """Parts of a dollar for so much of a device's time; 0 for one without a price."""
        return self._parts_per_ns.get(device, 0) * busy_ns

    def energy_parts(self, energy_uj: int) -> int:
        """Parts of a dollar for microjoules, with what the building takes beside them."""
        return self._parts_per_uj * energy_uj

    def gram_parts(self, energy_uj: int) -> int:
        """Parts of a gram of CO2 for microjoules, with what the building takes beside them."""
        return self._gram_parts_per_uj * energy_uj

    def price(self, totals: Mapping[Account, AccountTotal], up_ns: int) -> Iterator[AccountCost]:
        """The cost of every account, and of the time of each device that is on none: it is an idle account's.

        Device costs of all accounts of a device sum up to its price for `up_ns`, unless more time is booked on it.
        """
        idle_ns = dict.fromkeys(self.devices, up_ns)
        for account, total in totals.items():
            if account.device in idle_ns:
                idle_ns[account.device] -= total.busy_ns
            yield AccountCost(
                account,
                self.device_parts(account.device, total.busy_ns),
                self.energy_parts(total.energy_uj),
                self.gram_parts(total.energy_uj),
            )
        for device, left_ns in idle_ns.items():
            idle = Account(domain="", kind="idle", device=device)
            yield AccountCost(idle, self.device_parts(device, max(0, left_ns)), 0, 0)
