"""What Prometheus reads of dollars and grams, parsed back with its own parser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from erg_server.energy.account import Account, AccountTotal, Source
from erg_server.money.costs import Tariff
from erg_server.money.families import CostFamilies, source_of_sum
from erg_server.money.price_file import Carbon, Prices
from erg_server.telemetry.meter import Meter
from erg_server.telemetry.prometheus import ErgCollector, MemorySample, render_metrics
from prometheus_client.parser import text_string_to_metric_families

KWH_UJ = 36 * 10**11
HOUR_NS = 3600 * 10**9
PRICES = Prices(usd_per_kwh=Fraction(1, 4), pue=Fraction(2), carbon=Carbon(Fraction(100), 'the "grid", 2025'))


@dataclass
class Books:
    """What a ledger would have booked, and the time; the test writes both."""

    booked: dict[Account, AccountTotal] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=lambda: {"cpu": "modelled", "gpu0": "measured"})
    up_ns: int = 0
    prices: Prices = PRICES

    rates: dict[str, Fraction] = field(default_factory=lambda: {"cpu0": Fraction(2), "gpu0": Fraction(10)})

    def __post_init__(self) -> None:
        self.families = CostFamilies(
            Tariff(self.prices, self.rates),
            self,
            up_ns=lambda: self.up_ns,
        )

    def totals(self) -> dict[Account, AccountTotal]:
        return self.booked

    def source_of(self, domain: str) -> Source:
        return self.sources[domain]

    def active_watts(self, device: str) -> tuple[float, Source]:
        raise AssertionError("a scrape asks for no power")

    def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        empty = MemorySample(used_bytes={}, budget_bytes={}, loads={}, evictions={})
        collector = ErgCollector(Meter(), list, lambda: empty, further=[self.families])
        samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for name, labels, value in _samples(render_metrics(collector).decode()):
            assert (name, labels) not in samples
            samples[name, labels] = value
        return samples

    def value(self, name: str, **labels: str) -> float:
        return self.scrape()[name, frozenset(labels.items())]


def _samples(text: str) -> Iterator[tuple[str, frozenset[tuple[str, str]], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, frozenset(sample.labels.items()), sample.value


def served(domain: str = "cpu", device: str = "cpu0", tenant: str = "", kind: str = "inference") -> Account:
    return Account(domain, kind, device=device, model="m", version="1", tenant=tenant)  # type: ignore[arg-type]


def test_time_and_energy_are_components_and_idle_is_nobodys() -> None:
    books = Books({served(): AccountTotal(KWH_UJ, HOUR_NS, 500), Account("cpu", "idle"): AccountTotal(KWH_UJ * 2)})
    books.up_ns = 3 * HOUR_NS
    cost = {"model": "m", "version": "1", "device": "cpu0", "account": "inference"}
    assert books.value("erg_cost_usd_total", **cost, component="device_time", source="") == 2
    assert books.value("erg_cost_usd_total", **cost, component="energy", source="modelled") == 0.5
    idle = {"model": "", "version": "", "account": "idle"}
    assert books.value("erg_cost_usd_total", **idle, device="cpu0", component="device_time", source="") == 4
    assert books.value("erg_cost_usd_total", **idle, device="gpu0", component="device_time", source="") == 30
    assert books.value("erg_cost_usd_total", **idle, device="cpu", component="energy", source="modelled") == 1
    books_usd = [value for (name, _), value in books.scrape().items() if name == "erg_cost_usd_total"]
    assert sum(books_usd) == pytest.approx(3 * 12 + 1.5), "two devices for three hours, and three kWh"


def test_tenants_are_apart_and_accounts_of_one_label_set_add_up() -> None:
    books = Books(
        {
            served(tenant="a"): AccountTotal(0, HOUR_NS, 1),
            served(tenant="b"): AccountTotal(0, 2 * HOUR_NS, 1),
            served(kind="padding"): AccountTotal(0, HOUR_NS),
            served(tenant="b", kind="late"): AccountTotal(0, HOUR_NS, 1),
        },
        up_ns=9 * HOUR_NS,
    )
    time = {"model": "m", "component": "device_time", "source": ""}
    told = {tenant: books.value("erg_tenant_cost_usd_total", **time, tenant=tenant) for tenant in ("", "a", "b")}
    assert told == {"": 2, "a": 2, "b": 6}
    cost = {"version": "1", "device": "cpu0", "account": "inference"}
    assert books.value("erg_cost_usd_total", **time, **cost) == 6


def test_dollars_for_1000_are_all_of_a_models_accounts_over_its_useful_rows() -> None:
    books = Books(
        {
            served(): AccountTotal(0, HOUR_NS, 2000),
            served(kind="padding"): AccountTotal(0, HOUR_NS),
            served(kind="late"): AccountTotal(0, HOUR_NS, 500),
            served("gpu0", "gpu0"): AccountTotal(KWH_UJ, 0, 2000),
        },
        up_ns=9 * HOUR_NS,
    )
    told = books.value("erg_cost_usd_per_1000_inferences", model="m", version="1", source="modelled")
    assert told == pytest.approx((6 + 0.5) * 1000 / 4000)
    books.booked = {served(kind="warmup"): AccountTotal(0, HOUR_NS)}
    assert not [name for name, _ in books.scrape() if name == "erg_cost_usd_per_1000_inferences"]


def test_a_sum_is_modelled_where_a_part_of_it_is() -> None:
    assert source_of_sum({"measured"}) == "measured"
    assert source_of_sum({"modelled", "measured", "none"}) == "modelled"
    assert source_of_sum({"measured", "none"}) == "measured", "the part that nobody tells is not in it"
    assert source_of_sum({"none"}) == "none"


def test_without_a_source_or_a_price_there_is_no_figure_of_energy() -> None:
    unmetered = Books({served(): AccountTotal(0, HOUR_NS, 5)}, sources={"cpu": "none"}, up_ns=HOUR_NS)
    free = Books({served(): AccountTotal(KWH_UJ, HOUR_NS, 5)}, prices=Prices(), up_ns=HOUR_NS)
    for books in (unmetered, free):
        components = {dict(labels).get("component") for name, labels in books.scrape() if name == "erg_cost_usd_total"}
        assert components == {"device_time"}
        assert not [name for name, _ in books.scrape() if name == "erg_carbon_grams_total"]
    assert unmetered.value("erg_cost_usd_per_1000_inferences", model="m", version="1", source="none") == 400


def test_devices_without_a_price_have_no_dollars_of_time() -> None:
    books = Books({served(): AccountTotal(KWH_UJ, HOUR_NS, 1)}, rates={}, up_ns=9 * HOUR_NS)
    told = {dict(labels).get("component") for name, labels in books.scrape() if name == "erg_cost_usd_total"}
    assert told == {"energy"}


def test_carbon_names_who_says_so_and_is_left_out_where_nobody_does() -> None:
    books = Books({served("gpu0", "gpu0"): AccountTotal(KWH_UJ)})
    grams = {"model": "m", "version": "1", "account": "inference"}
    assert books.value("erg_carbon_grams_total", **grams, source="measured") == 200
    assert books.value("erg_carbon_intensity_info", grams_per_kwh="100", stated_by='the "grid", 2025') == 1
    without = Books({served(): AccountTotal(KWH_UJ)}, prices=Prices(usd_per_kwh=Fraction(1)))
    assert not [name for name, _ in without.scrape() if "carbon" in name]


def test_idle_time_never_goes_back_when_a_batch_that_ran_is_booked() -> None:
    books = Books(up_ns=10 * HOUR_NS)
    idle = {
        "model": "", "version": "", "device": "cpu0", "account": "idle", "component": "device_time", "source": "",
    }  # fmt: skip
    assert books.value("erg_cost_usd_total", **idle) == 20
    books.booked = {served(): AccountTotal(0, 4 * HOUR_NS, 1)}
    books.up_ns = 11 * HOUR_NS
    assert books.value("erg_cost_usd_total", **idle) == 20, "7 hours were idle, and 10 are told of"
    books.up_ns = 15 * HOUR_NS
    assert books.value("erg_cost_usd_total", **idle) == 22


def test_before_anything_is_booked_there_are_families_of_idle_time_alone() -> None:
    names = {name for name, _ in Books().scrape() if name.startswith(("erg_cost", "erg_tenant", "erg_carbon"))}
    assert names == {"erg_cost_usd_total", "erg_carbon_intensity_info"}
