"""What /metrics shows of GPUs, by the names and units of Triton's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """One GPU at the moment of a scrape; None is what the card does not tell. Utilisation is 0 to 1."""

    uuid: str
    power_watts: float | None
    power_limit_watts: float | None
    energy_joules: float | None
    utilization: float | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None


_GAUGES: Final[tuple[tuple[str, str, Callable[[GpuSample], float | None]], ...]] = (
    ("nv_gpu_power_usage", "Power of the GPU in watts.", lambda sample: sample.power_watts),
    ("nv_gpu_power_limit", "Its limit in watts.", lambda sample: sample.power_limit_watts),
    ("nv_energy_consumption", "Its energy in joules since the server started.", lambda sample: sample.energy_joules),
    ("nv_gpu_utilization", "Share of time in which it ran anything, 0 to 1.", lambda sample: sample.utilization),
    ("nv_gpu_memory_total_bytes", "Memory of the GPU.", lambda sample: sample.memory_total_bytes),
    ("nv_gpu_memory_used_bytes", "Memory of the GPU in use.", lambda sample: sample.memory_used_bytes),
)


def gpu_families(samples: Sequence[GpuSample]) -> Iterator[Metric]:
    """Every family of which some GPU has a figure; none without a GPU."""
    for name, text, of in _GAUGES:
        figures = [(sample.uuid, figure) for sample in samples if (figure := of(sample)) is not None]
        if not figures:
            continue
        # Triton calls energy a counter; the client library would append `_total` to its name.
        family = GaugeMetricFamily(name, text, labels=("gpu_uuid",))
        if name == "nv_energy_consumption":
            family.type = "unknown"
        for uuid, figure in figures:
            family.add_metric((uuid,), figure)
        yield family
