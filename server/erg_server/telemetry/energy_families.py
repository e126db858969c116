"""What /metrics shows of energy and device time: the accounts, the counters they must sum to, and the difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSample:
    """What one counter tells: a GPU, or the CPU with its memory. `source` is measured, modelled or none."""

    domain: str
    source: str
    counter_joules: float
    pending_joules: float
    drift_joules: float
    watts: float
    idle_watts: float
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSample:
    """One account, tenants together."""

    domain: str
    source: str
    device: str
    model: str
    version: str
    account: str
    joules: float
    busy_seconds: float


def energy_families(domains: Iterable[DomainSample], accounts: Iterable[AccountSample]) -> Iterator[Metric]:
    """Families of joules for domains that have a source, and device time for all."""
    yield from _domain_families([sample for sample in domains if sample.source != "none"])
    energy = CounterMetricFamily(
        "erg_energy_joules",
        "Energy by account. Their sum and what is pending are the domain's counter.",
        labels=("domain", "device", "model", "version", "account", "source"),
    )
    busy = CounterMetricFamily(
        "erg_device_busy_seconds",
        "Time that devices ran batches, by what for.",
        labels=("device", "model", "version", "account"),
    )
    for each in accounts:
        if each.source != "none":
            labels = (each.domain, each.device, each.model, each.version, each.account, each.source)
            energy.add_metric(labels, each.joules)
        if each.busy_seconds:
            busy.add_metric((each.device, each.model, each.version, each.account), each.busy_seconds)
    yield energy
    yield busy


def _domain_families(domains: list[DomainSample]) -> Iterator[Metric]:
    labels = ("domain", "source")
    counter = CounterMetricFamily(
        "erg_energy_counter_joules", "Energy since the server started, as the source tells it.", labels=labels
    )
    missing = CounterMetricFamily(
        "erg_energy_missing_samples",
        "Times the source did not answer; the next reading makes up for it.",
        labels=labels,
    )
    drift = GaugeMetricFamily(
        "erg_energy_drift_joules", "The counter less all accounts and what is pending: 0, or a fault.", labels=labels
    )
    pending = GaugeMetricFamily(
        "erg_energy_pending_joules", "Counted, and not booked before the batches that ran are back.", labels=labels
    )
    watts = GaugeMetricFamily("erg_power_watts", "Mean power over the last second.", labels=labels)
    idle = GaugeMetricFamily("erg_idle_watts", "What the domain takes without work, stated or learnt.", labels=labels)
    for each in domains:
        key = each.domain, each.source
        counter.add_metric(key, each.counter_joules)
        missing.add_metric(key, each.missing)
        drift.add_metric(key, each.drift_joules)
        pending.add_metric(key, each.pending_joules)
        watts.add_metric(key, each.watts)
        idle.add_metric(key, each.idle_watts)
    yield from (counter, missing, drift, pending, watts, idle)
