"""What a model's batches take on a kind of device: learnt by a server, measured at publication, or assumed."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from erg_server.devices.device import Device
from erg_server.errors import FailedPreconditionError, InvalidArgumentError
from erg_server.models.latency_probe import device_label, published_curves, shape_key
from erg_server.repository.manifest import Measurement
from erg_server.repository.spec import ModelSpec
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.latency_model import LatencyModel
from erg_server.simulation.cost import Cost, LinearCost, MeasuredCost

_DEVIATIONS_AT_P99 = 2.326
"""Standard deviations of a normal distribution that its 99th percentile lies above the mean."""
_ASSUMED = re.compile(r"([^=]+)=(?:([0-9.]+)\+)?([0-9.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTimes:
    """Durations by rows, and where they are from: `source` is for people, `spread` the 99 % quantile over the mean."""

    cost: Cost
    source: str
    spread: float = 1.0

    def mean_ns(self, rows: int) -> float:
        """What a batch takes on average."""
        return self.cost.mean_ns(rows)

    def high_ns(self, rows: int) -> float:
        """What 99 % of batches take no longer than."""
        return self.cost.mean_ns(rows) * self.spread

    def row_ns(self, most_rows: int) -> float:
        """What a row takes in the batch where it is cheapest."""
        return min(self.mean_ns(rows) / rows for rows in sizes_to(most_rows))


def sizes_to(most_rows: int) -> list[int]:
    """1, 2, 4, … rows, and the most there may be."""
    return sorted({most_rows} | {1 << power for power in range(most_rows.bit_length())})


class MissingTimesError(FailedPreconditionError):
    """Nothing says what some models' batches take; the message names them and says how they are measured."""

    def __init__(self, missing: Mapping[str, str]) -> None:
        told = "; ".join(f"model '{name}' on {device}" for name, device in missing.items())
        first = next(iter(missing))
        super().__init__(
            f"nothing says what batches take of {told}. Publish with `erg convert`, which measures them for the "
            "manifest; or serve once with `erg serve --latency-cache latency.json`, send it some load, stop it, and "
            f"plan with --latency-cache latency.json; or assume milliseconds a row, --assume-ms {first}=5"
        )


def measured_times(
    spec: ModelSpec,
    device: Device,
    *,
    identity: str,
    measurements: Sequence[Measurement],
    variant: str,
    cache: LatencyCache | None,
    length: int | None,
) -> BatchTimes | None:
    """The times that a server would start with, as it would find them; None where there are none.

    Requests of any other `length` than those measured are as long as the slowest shape, and so they are where none is
    given: a plan that errs should not err on the cheap side.
    """
    learnt = {} if cache is None else cache.get(identity, device_label(device))
    published = published_curves(spec, device, measurements, variant)
    model = LatencyModel()
    model.restore(learnt)
    model.restore(published)
    curves = model.snapshot()
    if not curves:
        return None
    key, exact = _shape(spec, curves, length)
    source = "latency cache" if key in learnt else "manifest"
    if length is not None and exact:
        source += f", length {length}"
    elif len(curves) > 1 or length is not None:
        source += ", slowest shape known"
    curve = curves[key]
    # What the quantile tells of the spread is put on a normal distribution, which draws the simulated durations.
    jitter = max(0.0, curve.spread - 1) / _DEVIATIONS_AT_P99
    cost = MeasuredCost(curve.means_ns, jitter)
    return BatchTimes(cost=cost, source=source, spread=curve.spread)


def _shape(spec: ModelSpec, curves: Mapping[Hashable, CurveSnapshot], length: int | None) -> tuple[Hashable, bool]:
    """The shape to plan with, and whether it is the one asked for."""
    if length is not None and (key := shape_key(spec, length)) in curves:
        return key, True
    return max(curves, key=lambda each: MeasuredCost(curves[each].means_ns).mean_ns(1)), False


def parse_assumptions(stated: Sequence[str]) -> dict[str, BatchTimes]:
    """Read `--assume-ms`: NAME=5 for 5 ms a row, NAME=4+0.5 for 4 ms a batch and 0.5 ms for each of its rows.

    Raises:
        InvalidArgumentError: it is neither, or a model is given twice.
    """
    assumed: dict[str, BatchTimes] = {}
    for text in stated:
        match = _ASSUMED.fullmatch(text)
        fixed_ms, row_ms = (_number(match.group(2) or "0"), _number(match.group(3))) if match else (None, None)
        if match is None or fixed_ms is None or not row_ms:
            raise InvalidArgumentError(
                f"--assume-ms {text}: write NAME=5 for 5 ms a row, or NAME=4+0.5 for 4 ms a batch and 0.5 ms a row"
            )
        name = match.group(1)
        if name in assumed:
            raise InvalidArgumentError(f"--assume-ms {text}: model '{name}' is given twice")
        source = f"assumed: {fixed_ms:g} ms + {row_ms:g} ms a row" if fixed_ms else f"assumed: {row_ms:g} ms a row"
        assumed[name] = BatchTimes(cost=LinearCost(fixed_ms * 1e6, row_ms * 1e6), source=source)
    return assumed


def _number(text: str) -> float | None:
    """A number up to a day's milliseconds, None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value <= 86_400_000 else None
