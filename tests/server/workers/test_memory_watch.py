"""Live figures and peaks over several looks, and how often it is looked."""

from __future__ import annotations

import threading

import pytest
from erg_server.devices.device import Device
from erg_server.devices.process_memory import ProcessMemory
from erg_server.workers.memory_families import memory_families
from erg_server.workers.memory_reading import KnownMemory, MemoryReading
from erg_server.workers.memory_watch import MAX_SHARE, MIN_PAUSE_S, MemoryWatch, pause_s

CPU = Device(kind="cpu", id=0)
A, B = ("a", "1"), ("b", "1")


class Host:
    """A worker that holds what the test says."""

    def __init__(self) -> None:
        self.own_bytes = 0
        self.peak_rss_bytes = 0
        self.models: dict[tuple[str, str], int] = {}
        self.up = True
        self.threads: set[int] = set()
        self.watch = MemoryWatch(self.known, self.read)

    def known(self) -> list[KnownMemory]:
        known = KnownMemory(worker="cpu0", device=CPU, pid=7, slab_bytes=0, base_bytes=100, models=dict(self.models))
        return [known] if self.up else []

    def read(self, device: Device, pid: int) -> MemoryReading:
        assert (device, pid) == (CPU, 7)
        self.threads.add(threading.get_ident())
        rss = self.own_bytes
        return MemoryReading(
            ProcessMemory(rss_bytes=rss, peak_rss_bytes=self.peak_rss_bytes, pss_bytes=rss, own_bytes=rss)
        )


async def test_peaks_stay_when_memory_goes_and_when_the_worker_does() -> None:
    host = Host()
    for own, models in ((150, {A: 30}), (210, {A: 30, B: 60}), (130, {A: 30})):
        host.own_bytes, host.models = own, models
        await host.watch.look()
    watch = host.watch
    assert watch.workers["cpu0", "pss"] == 130
    assert watch.worker_peaks["cpu0", "pss"] == 210
    assert watch.models == {(A, "cpu0"): 30}
    assert watch.model_peaks == {(A, "cpu0"): 50, (B, "cpu0"): 60}
    host.up = False
    await watch.look()
    assert (watch.workers, watch.models) == ({}, {})
    assert watch.model_peaks == {(A, "cpu0"): 50, (B, "cpu0"): 60}


async def test_the_kernel_remembers_a_peak_between_two_looks() -> None:
    host = Host()
    host.own_bytes, host.peak_rss_bytes = 150, 900
    await host.watch.look()
    assert (host.watch.workers["cpu0", "rss"], host.watch.worker_peaks["cpu0", "rss"]) == (150, 900)
    host.peak_rss_bytes = 200  # another process of the worker
    await host.watch.look()
    assert host.watch.worker_peaks["cpu0", "rss"] == 900


async def test_looking_is_not_the_event_loops_work() -> None:
    host = Host()
    assert await host.watch.look() == pytest.approx(MIN_PAUSE_S, abs=1)
    assert host.threads
    assert threading.get_ident() not in host.threads


@pytest.mark.parametrize(("took_s", "pause"), [(0.0, 1.0), (0.004, 1.0), (0.02, 4.0), (1.0, 200.0)])
def test_a_look_takes_a_bounded_part_of_a_core(took_s: float, pause: float) -> None:
    assert pause_s(took_s) == pytest.approx(pause)
    assert took_s / (pause_s(took_s)) <= MAX_SHARE * 1.0001


async def test_what_was_seen_is_shown() -> None:
    host = Host()
    host.own_bytes, host.peak_rss_bytes, host.models = 150, 160, {A: 30}
    await host.watch.look()
    shown = {
        (sample.name, *sample.labels.values()): sample.value
        for family in memory_families(host.watch)
        for sample in family.samples
    }
    assert shown["erg_worker_memory_bytes", "cpu0", "rest"] == 20
    assert shown["erg_worker_memory_peak_bytes", "cpu0", "rss"] == 160
    assert shown["erg_model_memory_bytes", "a", "1", "cpu0"] == 50
    assert shown["erg_model_memory_peak_bytes", "a", "1", "cpu0"] == 50
