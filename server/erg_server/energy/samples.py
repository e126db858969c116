"""The books as /metrics shows them."""

from __future__ import annotations

from erg_server.energy.sampler import EnergyMeter
from erg_server.telemetry.energy_families import AccountSample, DomainSample

_UJ = 1e-6


def sample_domains(meter: EnergyMeter) -> list[DomainSample]:
    """Every domain now."""
    return [
        DomainSample(
            domain=domain.domain,
            source=domain.label,
            counter_joules=domain.counter_uj * _UJ,
            pending_joules=domain.ledger.pending_uj * _UJ,
            drift_joules=domain.drift_uj * _UJ,
            watts=domain.watts,
            idle_watts=domain.idle.watts,
            missing=domain.missing,
        )
        for domain in meter.domains
    ]


def sample_accounts(meter: EnergyMeter) -> list[AccountSample]:
    """Every account now. Tenants are no label: there may be any number of them."""
    sums: dict[tuple[str, str, str, str, str], tuple[int, int]] = {}
    for account, total in meter.totals().items():
        key = account.domain, account.device, account.model, account.version, account.kind
        energy_uj, busy_ns = sums.get(key, (0, 0))
        sums[key] = energy_uj + total.energy_uj, busy_ns + total.busy_ns
    sources = {domain.domain: domain.label for domain in meter.domains}
    return [
        AccountSample(
            domain=domain,
            source=sources[domain],
            device=device,
            model=model,
            version=version,
            account=kind,
            joules=energy_uj * _UJ,
            busy_seconds=busy_ns * 1e-9,
        )
        for (domain, device, model, version, kind), (energy_uj, busy_ns) in sorted(sums.items())
    ]
