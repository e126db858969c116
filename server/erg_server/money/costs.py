"""Booked time and energy in dollars and grams. Exact: fractions, so that the parts are the whole to the last digit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from erg_server.energy.account import Account, AccountTotal
from erg_server.money.device_rates import NS_PER_HOUR
from erg_server.money.price_file import Prices

UJ_PER_KWH: Final = 3_600_000 * 10**6

_ZERO: Final = Fraction()


@dataclass(frozen=True, slots=True)
class AccountCost:
    """What one account costs: dollars of device time and of energy, and grams of CO2."""

    account: Account
    device_usd: Fraction
    energy_usd: Fraction
    grams: Fraction


class Tariff:
    """Prices applied to the devices of this machine. `rates` are dollars for an hour of each device."""

    def __init__(self, prices: Prices, rates: Mapping[str, Fraction]) -> None:
        self.carbon_source = prices.carbon.source if prices.carbon is not None else ""
        self.grams_per_kwh = prices.carbon.grams_per_kwh if prices.carbon is not None else _ZERO
        self.devices = tuple(rates)
        self._usd_per_ns = {device: hour / NS_PER_HOUR for device, hour in rates.items()}
        self._usd_per_uj = (prices.usd_per_kwh or _ZERO) * prices.pue / UJ_PER_KWH
        self._grams_per_uj = self.grams_per_kwh * prices.pue / UJ_PER_KWH

    def device_usd(self, device: str, busy_ns: int) -> Fraction:
        """Dollars for so much of a device's time; 0 for one without a price."""
        return self._usd_per_ns.get(device, _ZERO) * busy_ns

    def energy_usd(self, energy_uj: int) -> Fraction:
        """Dollars for microjoules, with what the building takes beside them."""
        return self._usd_per_uj * energy_uj

    def grams(self, energy_uj: int) -> Fraction:
        """Grams of CO2 for microjoules, with what the building takes beside them."""
        return self._grams_per_uj * energy_uj

    def price(self, totals: Mapping[Account, AccountTotal], up_ns: int) -> Iterator[AccountCost]:
        """The cost of every account, and of the time of each device that is on none: it is an idle account's.

        Device dollars of all accounts of a device sum up to its price for `up_ns`, unless more time is booked on it.
        """
        idle_ns = dict.fromkeys(self.devices, up_ns)
        for account, total in totals.items():
            if account.device in idle_ns:
                idle_ns[account.device] -= total.busy_ns
            yield AccountCost(
                account,
                self.device_usd(account.device, total.busy_ns),
                self.energy_usd(total.energy_uj),
                self.grams(total.energy_uj),
            )
        for device, left_ns in idle_ns.items():
            idle = Account(domain="", kind="idle", device=device)
            yield AccountCost(idle, self.device_usd(device, max(0, left_ns)), _ZERO, _ZERO)
