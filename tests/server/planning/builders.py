"""Small repositories, loads and scenarios for the tests of planning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erg_server.devices.device import Device
from erg_server.devices.memory_budget import MemoryBudget
from erg_server.planning.batch_times import BatchTimes
from erg_server.planning.catalogue import PlannedModel
from erg_server.planning.forecast import ModelForecast
from erg_server.planning.scenario import Scenario
from erg_server.planning.traffic import GeneratedArrivals, ModelTraffic
from erg_server.repository.manifest import Manifest, Measurement, dump_manifest
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import simulated_spec

MS = 1_000_000
CONFIG = """
backend: "identity"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
dynamic_batching { }
"""


def write_model(root: Path, name: str, measurements: Sequence[Measurement] = (), config: str = CONFIG) -> Path:
    folder = root / name / "1"
    folder.mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(config)
    if measurements:
        (folder / "manifest.json").write_text(dump_manifest(Manifest(model=name, measurements=tuple(measurements))))
    return folder


def measured(rows: int, milliseconds: float, **changes: Any) -> Measurement:
    values: dict[str, Any] = {"device": "cpu", "backend": "identity", "throughput_per_s": 1.0}
    return Measurement(batch_size=rows, latency_ms_p50=milliseconds, **values | changes)


def cpus(count: int) -> tuple[Device, ...]:
    return tuple(Device(kind="cpu", id=number, cores=(number,)) for number in range(count))


def traffic(name: str = "m", rate_per_s: float = 100.0, **changes: Any) -> ModelTraffic:
    return ModelTraffic(name=name, arrivals=GeneratedArrivals(rate_per_s=rate_per_s, **changes))


def planned(
    name: str = "m",
    rate_per_s: float = 100.0,
    *,
    row_ms: float = 1.0,
    fixed_ms: float = 4.0,
    objective_ms: float = 50.0,
    memory_bytes: int = 0,
) -> PlannedModel:
    """A model that batches up to 8 rows, with traffic unless its rate is 0."""
    return PlannedModel(
        name=name,
        version=1,
        spec=simulated_spec(name, max_rows=8, objective_ns=round(objective_ms * MS)),
        memory_bytes=memory_bytes,
        times=BatchTimes(cost=LinearCost(fixed_ms * MS, row_ms * MS), source="assumed"),
        traffic=traffic(name, rate_per_s) if rate_per_s else None,
    )


def scenario(*models: PlannedModel, devices: int = 1, seconds: float = 5.0, **changes: Any) -> Scenario:
    values: dict[str, Any] = {"budget": MemoryBudget(), "seed": 0}
    return Scenario(models=models, devices=cpus(devices), seconds=seconds, **values | changes)


def model_forecast(name: str = "m", *, version: int = 1, requests: int = 100) -> ModelForecast:
    """A model that misses its objective; no two of its figures are equal."""
    return ModelForecast(
        model=dataclasses.replace(planned(name, memory_bytes=7), version=version, memory_source="manifest"),
        devices=("cpu0",),
        status="missed",
        requests=requests,
        offered_per_s=20.0,
        goodput_per_s=16.0,
        in_time_share=0.8,
        refused_share=0.1,
        dropped_share=0.06,
        late_share=0.04,
        p50_ns=4 * MS,
        p99_ns=40 * MS,
        load=0.5,
    )
