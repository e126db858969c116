"""That money is neither made nor lost between the price of a device and its accounts."""

from __future__ import annotations

from fractions import Fraction

from erg_server.energy.account import ACCOUNT_KINDS, Account, AccountTotal
from erg_server.money.costs import Tariff
from erg_server.money.price_file import Carbon, Prices
from hypothesis import given
from hypothesis import strategies as st

DEVICES = ("cpu0", "cpu1", "gpu0")
HOUR_NS = 3600 * 10**9

accounts = st.builds(
    Account,
    domain=st.sampled_from(["cpu", "gpu0"]),
    kind=st.sampled_from(ACCOUNT_KINDS),
    device=st.sampled_from((*DEVICES, "")),
    model=st.sampled_from(["", "m", "n"]),
    version=st.sampled_from(["1", "2"]),
    tenant=st.sampled_from(["", "t"]),
)
totals_of = st.dictionaries(
    accounts,
    st.builds(
        AccountTotal,
        energy_uj=st.integers(0, 10**15),
        busy_ns=st.integers(0, 10**12),
        rows=st.integers(0, 10**6),
    ),
    max_size=40,
)
hours = st.decimals(0, 1000, places=6).map(Fraction)


@given(totals_of, st.fixed_dictionaries(dict.fromkeys(DEVICES, hours)), st.integers(0, 10**15))
def test_a_devices_accounts_cost_its_price_for_its_up_time_exactly(
    totals: dict[Account, AccountTotal], rates: dict[str, Fraction], more_ns: int
) -> None:
    up_ns = more_ns + max(
        (sum(total.busy_ns for account, total in totals.items() if account.device == device) for device in DEVICES),
        default=0,
    )
    tariff = Tariff(Prices(), rates)
    costs = list(tariff.price(totals, up_ns))
    for device in DEVICES:
        paid = sum(cost.device_parts for cost in costs if cost.account.device == device)
        assert Fraction(paid, tariff.parts_per_usd) == rates[device] * Fraction(up_ns, HOUR_NS)
    assert all(cost.device_parts >= 0 for cost in costs)


@given(totals_of, hours, st.decimals(1, 3, places=2).map(Fraction), hours)
def test_accounts_energy_and_carbon_cost_what_all_joules_do(
    totals: dict[Account, AccountTotal], usd_per_kwh: Fraction, pue: Fraction, grams: Fraction
) -> None:
    tariff = Tariff(Prices(usd_per_kwh=usd_per_kwh, pue=pue, carbon=Carbon(grams, "test")), {})
    costs = list(tariff.price(totals, 0))
    kwh = Fraction(sum(total.energy_uj for total in totals.values()), 10**6 * 3_600_000)
    assert Fraction(sum(cost.energy_parts for cost in costs), tariff.parts_per_usd) == kwh * pue * usd_per_kwh
    assert Fraction(sum(cost.gram_parts for cost in costs), tariff.parts_per_gram) == kwh * pue * grams


def test_an_hour_half_busy_is_half_the_models_and_half_idle() -> None:
    served = Account("cpu", "inference", device="cpu0", model="m", version="1")
    tariff = Tariff(Prices(usd_per_kwh=Fraction(1, 5)), {"cpu0": Fraction(4, 100)})
    costs = {
        cost.account: cost
        for cost in tariff.price({served: AccountTotal(energy_uj=36 * 10**11, busy_ns=HOUR_NS // 2, rows=9)}, HOUR_NS)
    }
    usd = tariff.parts_per_usd
    assert (costs[served].device_parts * 50, costs[served].energy_parts * 5) == (usd, usd)
    assert costs[Account("", "idle", device="cpu0")].device_parts * 50 == usd


def test_more_booked_time_than_there_was_makes_no_negative_idle_time() -> None:
    served = Account("cpu", "inference", device="cpu0", model="m", version="1")
    tariff = Tariff(Prices(), {"cpu0": Fraction(1)})
    costs = list(tariff.price({served: AccountTotal(busy_ns=10)}, 9))
    assert [Fraction(cost.device_parts, tariff.parts_per_usd) for cost in costs] == [Fraction(10, HOUR_NS), 0]
