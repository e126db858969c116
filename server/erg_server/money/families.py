"""What /metrics shows of dollars and grams: by model, device and account, by tenant, and for 1,000 inferences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from erg_server.energy.account import Account, AccountTotal, Source
from erg_server.money.books import Books
from erg_server.money.costs import AccountCost, Tariff

_Sums = dict[tuple[str, ...], int]


class CostFamilies:
    """Prices the accounts whenever Prometheus asks. Owns how much idle time it has told of.

    A batch's time is booked when it ends, so what looked idle while it ran is less a moment later. A counter must not
    go back: it waits until idle time has caught up.
    """

    def __init__(self, tariff: Tariff, books: Books, *, up_ns: Callable[[], int]) -> None:
        self._tariff = tariff
        self._books = books
        self._up_ns = up_ns
        self._told_idle_parts: dict[str, int] = {}

    def __call__(self) -> Iterable[Metric]:
        """Every family, once."""
        totals = self._books.totals()
        costs = [self._never_less_idle(cost) for cost in self._tariff.price(totals, self._up_ns())]
        yield from self._dollar_families(costs)
        yield self._per_1000(costs, totals)
        if self._tariff.carbon_source:
            yield from self._carbon_families(costs)

    def _never_less_idle(self, cost: AccountCost) -> AccountCost:
        if cost.account.kind != "idle" or cost.account.domain:
            return cost
        device = cost.account.device
        told = self._told_idle_parts[device] = max(cost.device_parts, self._told_idle_parts.get(device, 0))
        return AccountCost(cost.account, told, 0, 0)

    def _dollar_families(self, costs: Iterable[AccountCost]) -> Iterator[Metric]:
        by_account: _Sums = defaultdict(int)
        by_tenant: _Sums = defaultdict(int)
        for cost in costs:
            account = cost.account
            for component, source, parts in self._components(cost):
                by_account[account.model, account.version, _place(account), account.kind, component, source] += parts
                if account.model:
                    by_tenant[account.tenant, account.model, component, source] += parts
        yield _counter(
            "erg_cost_usd",
            "Dollars by the price file: a device's time at its price, and energy at that of a kWh.",
            ("model", "version", "device", "account", "component", "source"),
            by_account,
            self._tariff.parts_per_usd,
        )
        yield _counter(
            "erg_tenant_cost_usd",
            "The same of each tenant's requests; of no tenant is what belongs to the model alone.",
            ("tenant", "model", "component", "source"),
            by_tenant,
            self._tariff.parts_per_usd,
        )

    def _components(self, cost: AccountCost) -> Iterator[tuple[str, str, int]]:
        account = cost.account
        if account.device in self._tariff.devices:
            # Time is told by a clock, whatever the device's energy comes from.
            yield "device_time", "", cost.device_parts
        if self._tariff.prices_energy and (source := self._source(account)) != "none":
            yield "energy", source, cost.energy_parts

    def _source(self, account: Account) -> Source:
        """Where an account's energy comes from; idle time of a device has none."""
        return self._books.source_of(account.domain) if account.domain else "none"

    def _per_1000(self, costs: Iterable[AccountCost], totals: Mapping[Account, AccountTotal]) -> Metric:
        parts: dict[tuple[str, str], int] = defaultdict(int)
        sources: dict[tuple[str, str], set[Source]] = defaultdict(set)
        rows: dict[tuple[str, str], int] = defaultdict(int)
        for cost in costs:
            account = cost.account
            if not account.model:
                continue
            key = account.model, account.version
            parts[key] += cost.device_parts + cost.energy_parts
            sources[key].add(self._source(account))
            if account.kind == "inference":
                rows[key] += totals[account].rows
        family = GaugeMetricFamily(
            "erg_cost_usd_per_1000_inferences",
            "Since the start: all that is on a model's accounts, waste too, over the rows whose answer was of use.",
            labels=("model", "version", "source"),
        )
        for key, count in sorted(rows.items()):
            if count:
                family.add_metric(
                    (*key, source_of_sum(sources[key])), 1000 * parts[key] / (self._tariff.parts_per_usd * count)
                )
        return family

    def _carbon_families(self, costs: Iterable[AccountCost]) -> Iterator[Metric]:
        grams: _Sums = defaultdict(int)
        for cost in costs:
            account = cost.account
            if (source := self._source(account)) != "none":
                grams[account.model, account.version, account.kind, source] += cost.gram_parts
        yield _counter(
            "erg_carbon_grams",
            "Grams of CO2 equivalent: energy at the intensity that erg_carbon_intensity_info states.",
            ("model", "version", "account", "source"),
            grams,
            self._tariff.parts_per_gram,
        )
        info = InfoMetricFamily(
            "erg_carbon_intensity", "The stated grams of CO2 equivalent for a kWh, and who says so."
        )
        intensity = {"grams_per_kwh": f"{float(self._tariff.grams_per_kwh):g}", "stated_by": self._tariff.carbon_source}
        info.add_metric((), intensity)
        yield info


def source_of_sum(sources: Collection[Source]) -> Source:
    """What a sum of energy is: modelled if a part of it is. A part that nobody tells is not in it."""
    return "modelled" if "modelled" in sources else "measured" if "measured" in sources else "none"


def _place(account: Account) -> str:
    return account.device or account.domain


def _counter(name: str, text: str, labels: tuple[str, ...], sums: _Sums, parts: int) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(sums.items()):
        family.add_metric(key, value / parts)
    return family
