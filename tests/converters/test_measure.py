"""How variants are timed: in turns, by a clock that tests move, the least counting; memory in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from erg_converters.measure import MAX_REPEATS, measure, memory_bytes
from erg_converters.runner import Runner
from erg_converters.settings import MeasureSettings
from erg_converters.sources.base import Array, Feed

from tests.converters import builders


@dataclass
class Clocks:
    """CPU and wall time that only running moves."""

    cpu: int = 0
    wall: int = 0

    def cpu_ns(self) -> int:
        return self.cpu

    def wall_ns(self) -> int:
        return self.wall


@dataclass
class Fake:
    """Takes `cpu_ms` a row, and twice that in the runs named in `disturbed`."""

    name: str
    cpu_ms: float
    clocks: Clocks
    log: list[str]
    disturbed: frozenset[int] = frozenset()
    path: Path = Path("model.onnx")
    backend: str = "openvino"
    precision: str = "bf16"
    threads: int = 1
    runs: int = field(default=0)

    def run(self, feed: Feed) -> Sequence[Array]:
        self.log.append(self.name)
        taken = int(self.cpu_ms * 1e6) * len(feed["x"]) * (2 if self.runs in self.disturbed else 1)
        self.runs += 1
        self.clocks.cpu += taken
        self.clocks.wall += taken + 1_000_000
        return []


def feeds(*batches: int) -> dict[tuple[int, int | None], Feed]:
    return {(batch, None): {"x": np.zeros((batch, 2), np.float32)} for batch in batches}


def test_ratios_are_the_sources_least_cpu_time_over_each_variants():
    clocks, log = Clocks(), list[str]()
    # Runs 0 and 1 find the number of repeats; of the three rounds the second is disturbed.
    runners = {
        "source": Fake("source", 30, clocks, log),
        "int8": Fake("int8", 10, clocks, log, disturbed=frozenset({4, 5})),
    }
    found = measure(runners, feeds(8), MeasureSettings(rounds=3), clocks=clocks, memory_of=lambda *_: 5)
    by_name = {each.variant: each for each in found}
    assert by_name["int8"].cpu_ratio == pytest.approx(3.0)
    assert by_name["source"].cpu_ratio == 1.0
    assert by_name["int8"].cpu_ms_per_row == pytest.approx(10.0)
    assert by_name["int8"].latency_ms_p50 == pytest.approx(81.0)
    assert (by_name["int8"].backend, by_name["int8"].precision, by_name["int8"].memory_bytes) == ("openvino", "bf16", 5)


def test_variants_take_turns_within_every_round():
    clocks, log = Clocks(), list[str]()
    runners = {name: Fake(name, 50, clocks, log) for name in ("source", "a", "b")}
    measure(runners, feeds(1), MeasureSettings(rounds=2), clocks=clocks, memory_of=lambda *_: None)
    assert log[6:] == ["source", "a", "b", "source", "a", "b"]


def test_short_runs_are_repeated_within_a_turn_until_the_clock_can_tell_and_no_longer():
    clocks, log = Clocks(), list[str]()
    quick = {"source": Fake("source", 4, clocks, log)}
    measure(quick, feeds(1), MeasureSettings(rounds=1), clocks=clocks, memory_of=lambda *_: None)
    # 20 ms of turns, 5 ms of wall time a run.
    assert len(log) == 2 + 4
    nothing = {"source": Fake("source", 0, Clocks(), log)}
    log.clear()
    measure(nothing, feeds(1), MeasureSettings(rounds=1), clocks=Clocks(), memory_of=lambda *_: None)
    assert len(log) == 2 + MAX_REPEATS


def test_every_turn_and_every_memory_figure_is_told_as_progress():
    clocks, told = Clocks(), list[tuple[int, int]]()
    runners = {name: Fake(name, 50, clocks, []) for name in ("source", "a")}
    measure(
        runners, feeds(1, 8), MeasureSettings(rounds=3), clocks=clocks, memory_of=lambda *_: None,
        advance=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(done, 14) for done in range(1, 15)]


def test_memory_is_that_of_a_process_that_loads_the_variant_alone(tiny_cnn_onnx):
    runner = Runner.open(tiny_cnn_onnx, "onnxruntime", "f32", 1)
    try:
        found = memory_bytes(runner, builders.images(1))
        assert found is not None
        assert 0 < found < 500_000_000
        runner.path = tiny_cnn_onnx.with_name("missing.onnx")
        assert memory_bytes(runner, builders.images(1)) is None
    finally:
        runner.close()
