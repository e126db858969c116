"""Batches and intervals that the energy tests vary, and what their books say."""

from __future__ import annotations

from collections.abc import Mapping

from erg_server.energy.account import Account, AccountTotal
from erg_server.energy.batch_log import BatchRecord, Share
from erg_server.energy.domain_ledger import DomainLedger
from erg_server.energy.interval import Interval

MS = 1_000_000
S = 1_000_000_000


def batch(
    start_ns: int, end_ns: int, shares: list[Share] | None = None, *, device: str = "cpu0", model: str = "m"
) -> BatchRecord:
    return BatchRecord(device, model, "1", start_ns=start_ns, end_ns=end_ns, shares=shares or [("inference", "", 1, 1)])


def interval(
    start_ns: int,
    end_ns: int,
    energy_uj: int,
    *,
    idle_uj: int = 0,
    cpu_ns: Mapping[str, int] | None = None,
    front_ns: int = 0,
    other_ns: int = 0,
) -> Interval:
    return Interval(
        start_ns=start_ns,
        end_ns=end_ns,
        energy_uj=energy_uj,
        idle_uj=idle_uj,
        cpu_ns=cpu_ns or {},
        front_ns=front_ns,
        other_ns=other_ns,
    )


def booked(totals: Mapping[Account, AccountTotal]) -> dict[tuple[str, str, str], int]:
    """Microjoules by kind, device and model, tenants together; only what is not 0."""
    sums: dict[tuple[str, str, str], int] = {}
    for account, total in totals.items():
        key = account.kind, account.device, account.model
        sums[key] = sums.get(key, 0) + total.energy_uj
    return {key: energy_uj for key, energy_uj in sums.items() if energy_uj}


def settle(ledger: DomainLedger, until_ns: int = 1 << 62) -> None:
    ledger.settle(until_ns, held_since_ns={})
