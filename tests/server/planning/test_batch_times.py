from __future__ import annotations

from pathlib import Path

import pytest
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError
from erg_server.models.latency_probe import shape_key
from erg_server.planning.batch_times import BatchTimes, measured_times, parse_assumptions
from erg_server.repository.manifest import Measurement
from erg_server.repository.spec import ModelSpec, TensorSpec
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.simulation.cost import LinearCost, MeasuredCost
from erg_server.simulation.simulation import simulated_spec

from tests.server.planning.builders import MS, measured

CPU = Device(kind="cpu", id=0, cores=(0,))
FIXED = simulated_spec("m", max_rows=8)
OPEN = ModelSpec(
    name="m", backend="identity", max_batch_size=8, inputs=(TensorSpec(name="x", datatype=DataType.FP32, dims=(-1,)),)
)


def known(
    spec: ModelSpec, measurements: list[Measurement], cache: LatencyCache | None = None, length: int | None = None
) -> BatchTimes | None:
    return measured_times(spec, CPU, identity="id", measurements=measurements, variant="", cache=cache, length=length)


def test_the_manifest_tells_mean_and_spread() -> None:
    times = known(FIXED, [measured(1, 5.0, latency_ms_p99=7.5), measured(4, 8.0)])
    assert times is not None
    assert (times.mean_ns(1), times.mean_ns(2), times.high_ns(1)) == (5 * MS, 6 * MS, 7.5 * MS)
    assert times.source == "manifest"
    assert isinstance(times.cost, MeasuredCost)
    assert 0.1 < times.cost.jitter < 0.5


def test_measurements_on_other_devices_say_nothing() -> None:
    assert known(FIXED, [measured(1, 5.0, device="gpu"), measured(1, 5.0, threads=2)]) is None
    assert known(FIXED, []) is None


def test_what_a_server_learnt_is_believed_before_the_manifest(tmp_path: Path) -> None:
    cache = LatencyCache(tmp_path / "cache.json")
    cache.put("id", "cpu/1", {None: CurveSnapshot(means_ns={1: 2.0 * MS})})
    times = known(FIXED, [measured(1, 5.0)], cache)
    assert times is not None
    assert (times.mean_ns(1), times.source) == (2 * MS, "latency cache")


def test_a_length_that_was_measured_is_planned_with() -> None:
    times = known(OPEN, [measured(1, 5.0, length=32), measured(1, 20.0, length=128)], length=32)
    assert times is not None
    assert (times.mean_ns(1), times.source) == (5 * MS, "manifest, length 32")


@pytest.mark.parametrize("length", [None, 77])
def test_requests_of_unknown_length_are_as_slow_as_the_slowest(length: int | None) -> None:
    times = known(OPEN, [measured(1, 20.0, length=128), measured(1, 5.0, length=32)], length=length)
    assert times is not None
    assert (times.mean_ns(1), times.source) == (20 * MS, "manifest, slowest shape known")


def test_lengths_are_apart_in_the_key() -> None:
    assert shape_key(OPEN, 32) != shape_key(OPEN, 128)
    assert shape_key(FIXED, 32) == shape_key(FIXED, 128) is None


def test_the_cheapest_row_is_that_of_the_best_batch() -> None:
    assert BatchTimes(cost=LinearCost(4.0 * MS, 1.0 * MS), source="").row_ns(8) == 1.5 * MS
    assert BatchTimes(cost=MeasuredCost({1: 4.0, 2: 6.0, 8: 80.0}), source="").row_ns(8) == 3


def test_an_assumption_is_for_a_row_or_for_a_batch_and_its_rows() -> None:
    assumed = parse_assumptions(["a=5", "b=4+0.5"])
    assert assumed["a"].mean_ns(3) == 15 * MS
    assert assumed["b"].mean_ns(2) == 5 * MS
    assert (assumed["a"].source, assumed["b"].source) == ("assumed: 5 ms a row", "assumed: 4 ms + 0.5 ms a row")


@pytest.mark.parametrize(
    "text", ["a", "a=", "=5", "a=0", "a=-1", "a=x", "a=1+", "a=1+0", "a=1.2.3", "a=1e9", "a=99999999"]
)
def test_what_is_no_assumption_is_told(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="write NAME=5 for 5 ms a row"):
        parse_assumptions([text])


def test_a_model_has_one_assumption() -> None:
    with pytest.raises(InvalidArgumentError, match="model 'a' is given twice"):
        parse_assumptions(["a=1", "a=2"])
