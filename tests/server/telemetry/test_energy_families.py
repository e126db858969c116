"""What a scrape shows of energy and GPUs, read back with Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Iterable

from erg_server.telemetry.energy_families import AccountSample, DomainSample, energy_families
from erg_server.telemetry.gpu_families import GpuSample, gpu_families
from erg_server.telemetry.meter import Meter
from erg_server.telemetry.prometheus import ErgCollector, render_metrics
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.server.telemetry.test_prometheus import NO_MEMORY, Samples


def scrape(families: Iterable[Metric]) -> Samples:
    collector = ErgCollector(Meter(), list, lambda: NO_MEMORY, further=(lambda: families,))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(render_metrics(collector).decode())
        for sample in family.samples
    }


def domain(source: str = "modelled") -> DomainSample:
    return DomainSample(
        domain="cpu",
        source=source,
        counter_joules=10.0,
        pending_joules=1.0,
        drift_joules=0.0,
        watts=30.0,
        idle_watts=20.0,
        missing=2,
    )


def account(source: str = "modelled", **changes: float) -> AccountSample:
    values = {"joules": 9.0, "busy_seconds": 3.0} | changes
    return AccountSample(
        domain="cpu", source=source, device="cpu0", model="m", version="1", account="inference", **values
    )


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))


def test_every_figure_of_energy_says_where_it_comes_from() -> None:
    samples = scrape(energy_families([domain()], [account()]))
    told = labels(domain="cpu", source="modelled")
    assert samples["erg_energy_counter_joules_total", told] == 10
    assert samples["erg_energy_pending_joules", told] == 1
    assert samples["erg_energy_drift_joules", told] == 0
    assert samples["erg_energy_missing_samples_total", told] == 2
    assert samples["erg_power_watts", told] == 30
    assert samples["erg_idle_watts", told] == 20
    whose = {"device": "cpu0", "model": "m", "version": "1", "account": "inference"}
    assert samples["erg_energy_joules_total", labels(domain="cpu", source="modelled", **whose)] == 9
    assert samples["erg_device_busy_seconds_total", labels(**whose)] == 3


def test_without_a_source_there_is_device_time_and_no_energy_that_would_pose_as_nothing() -> None:
    samples = scrape(energy_families([domain("none")], [account("none", joules=0.0)]))
    names = {name for name, _ in samples}
    assert "erg_device_busy_seconds_total" in names
    assert not {name for name in names if "joules" in name or "watts" in name}


def test_gpus_have_tritons_names_and_only_figures_that_the_card_has() -> None:
    sample = GpuSample(
        uuid="GPU-1",
        power_watts=70.5,
        power_limit_watts=700.0,
        energy_joules=12.5,
        utilization=None,
        memory_total_bytes=80,
        memory_used_bytes=8,
    )
    gpu = labels(gpu_uuid="GPU-1")
    samples = {key: value for key, value in scrape(gpu_families([sample])).items() if "gpu" in str(key)}
    assert samples == {
        ("nv_gpu_power_usage", gpu): 70.5,
        ("nv_gpu_power_limit", gpu): 700,
        ("nv_energy_consumption", gpu): 12.5,
        ("nv_gpu_memory_total_bytes", gpu): 80,
        ("nv_gpu_memory_used_bytes", gpu): 8,
    }


def test_without_a_gpu_there_are_none_of_its_gauges() -> None:
    assert list(gpu_families([])) == []
