"""What is known of a version's batches before its first caller."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from erg_server.devices.device import Device
from erg_server.models.latency_probe import device_label, learn_latencies
from erg_server.repository.manifest import Measurement
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.latency_curve import CurveSnapshot

from tests.server.models.harness import CONFIG, Harness

SLO = CONFIG + "dynamic_batching { } erg { slo { p99_ms: 50 } }"


def measured(rows: int, milliseconds: float, **changes: Any) -> Measurement:
    values: dict[str, Any] = {"device": "cpu", "backend": "identity", "throughput_per_s": 1.0}
    return Measurement(batch_size=rows, latency_ms_p50=milliseconds, **values | changes)


async def loaded(root: Path, config: str = SLO, cache: LatencyCache | None = None) -> Harness:
    harness = Harness(root=root, latencies=cache)
    harness.write(config=config)
    await harness.load()
    return harness


async def test_a_model_with_an_objective_is_measured_at_load(tmp_path: Path) -> None:
    harness = await loaded(tmp_path / "repo")
    served = harness.registry.resolve("m", "")
    assert sorted(served.queue.latency.snapshot()[None].means_ns) == [1, 2, 4]
    assert served.meter.success_count == 0, "what was measured is nobody's request"


async def test_a_model_without_one_is_learnt_from_its_callers(tmp_path: Path) -> None:
    harness = await loaded(tmp_path / "repo", CONFIG)
    assert not harness.registry.resolve("m", "").queue.latency.snapshot()
    assert not harness.worker.batches or max(rows for _, rows in harness.worker.batches) == 1


async def test_what_an_earlier_run_learnt_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    first = await loaded(tmp_path / "repo", cache=LatencyCache(path))
    await first.registry.drain()
    again = await loaded(tmp_path / "repo", cache=LatencyCache(path))
    assert max(rows for _, rows in first.worker.batches) == 4
    assert max(rows for _, rows in again.worker.batches) == 1
    assert sorted(again.registry.resolve("m", "").queue.latency.snapshot()[None].means_ns) == [1, 2, 4]


@pytest.mark.parametrize("ending", ["drain", "unload"])
async def test_what_callers_taught_is_there_after_a_restart(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "latency.json"
    harness = await loaded(tmp_path / "repo", CONFIG, LatencyCache(path))
    await harness.infer(rows=2)
    if ending == "unload":
        await harness.registry.unload("m")
    await harness.settle()
    again = await loaded(tmp_path / "repo", CONFIG, LatencyCache(path))
    assert sorted(again.registry.resolve("m", "").queue.latency.snapshot()[None].means_ns) == [2]


async def test_what_was_published_is_taken_for_this_variant_and_device_only(tmp_path: Path) -> None:
    harness = await loaded(tmp_path / "repo")
    served, device = harness.registry.resolve("m", ""), harness.worker.device
    measurements = [
        measured(1, 5.0, latency_ms_p99=7.5),
        measured(4, 9.0),
        measured(8, 1.0, variant="other"),
        measured(16, 1.0, device="gpu"),
        measured(32, 1.0, threads=7),
        measured(2, 0.0),
    ]
    await learn_latencies(served, device=device, cache=None, measurements=measurements)
    assert served.queue.latency.snapshot() == {None: CurveSnapshot(means_ns={1: 5e6, 4: 9e6}, spread=1.5)}


async def test_the_cache_is_believed_before_the_publication(tmp_path: Path) -> None:
    harness = await loaded(tmp_path / "repo")
    served, device = harness.registry.resolve("m", ""), harness.worker.device
    cache = LatencyCache(tmp_path / "latency.json")
    cache.put(served.fingerprint, device_label(device), {None: CurveSnapshot(means_ns={1: 3e6}, spread=1.0)})
    await learn_latencies(served, device=device, cache=cache, measurements=[measured(1, 5.0)])
    assert served.queue.latency.predict_ns(None, 1) == 3e6


def test_a_part_of_a_gpu_is_told_from_the_whole_and_not_from_its_like() -> None:
    whole = Device(kind="gpu", id=0, gpu_uuid="GPU-a", memory_bytes=80)
    shares = [replace(whole, partition=f"mps{at}", mps_percent=percent) for at, percent in enumerate((30, 70))]
    instances = [replace(whole, partition=f"mig{at}", memory_bytes=size) for at, size in enumerate((10, 20, 20))]
    labels = [device_label(device) for device in (whole, *shares, *instances)]
    assert len(set(labels)) == 5
    assert labels[-1] == labels[-2]
    assert device_label(replace(whole, id=3, gpu_uuid="GPU-b")) == labels[0]


async def test_an_objective_is_promised_only_once_the_version_is_warm(tmp_path: Path) -> None:
    harness = Harness(root=tmp_path / "repo")
    harness.write(config=CONFIG + "dynamic_batching { } erg { slo { p99_ms: 0.1 } }")
    harness.worker.may_run = False
    task = asyncio.create_task(harness.load())
    while not harness.worker._waiting:  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0)
    harness.worker.run()
    await task
    served = harness.registry.resolve("m", "")
    assert served.queue.promises
    assert served.queue.objective_ns == 100_000
