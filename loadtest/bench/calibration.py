"""What a row takes, what all workers can do, and so the objectives, from a server that was told none."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
import numpy as np
from bench.paced_client import Stream, closed_loop
from bench.paced_run import Bench, answered_per_s
from bench.server_counts import read_statistics
from bench.serving import Served, read_signature
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.server_statistics import difference
from erg_loadtest.tensors import Array, Signature, numpy_dtype

_DISTINCT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What was measured first, and what follows from it."""

    single_ms: Mapping[str, float]
    capacity_per_s: Mapping[str, float]
    objective_ms: Mapping[str, float]
    payloads: Mapping[str, Sequence[Payload]]


def calibrate(bench: Bench, server: Served, models: Sequence[str], *, length: int, times: float, callers: int) -> Loads:
    """Measure each model alone; an objective is `times` what a row takes, in whole milliseconds."""
    single_ms, capacity, payloads = {}, {}, {}
    for model in models:
        payloads[model] = payloads_of(asyncio.run(read_signature(server, model)), length)
        alone, many = (closed_loop(model, payloads[model], count) for count in (1, callers))
        bench.run(f"{model}: warm-up", server, [many], 1.0)
        # The least disturbed of three: what others take of the machine is not the model's.
        single_ms[model] = min(_row_ms(bench, server, alone) for _ in range(3))
        capacity[model] = max(
            answered_per_s(bench.run(f"{model}: {callers} callers", server, [many], 1.5), model) for _ in range(3)
        )
    return Loads(
        single_ms=single_ms,
        capacity_per_s=capacity,
        objective_ms={model: float(math.ceil(times * single)) for model, single in single_ms.items()},
        payloads=payloads,
    )


def payloads_of(signature: Signature, length: int) -> list[Payload]:
    """Requests of one row: random tokens of that length with their mask, or random floats."""
    payloads = []
    for seed in range(_DISTINCT):
        generator = np.random.default_rng(seed)
        tensors: dict[str, Array] = {}
        for spec in signature.inputs:
            shape = [1, *(size if size > 0 else length for size in spec.shape[1:])]
            dtype = numpy_dtype(spec.datatype)
            if "mask" in spec.name:
                tensors[spec.name] = np.ones(shape, dtype)
            elif np.issubdtype(dtype, np.integer):
                tensors[spec.name] = generator.integers(1000, 29_000, size=shape).astype(dtype)
            else:
                tensors[spec.name] = generator.standard_normal(shape).astype(dtype)
        payloads.append(build_payload(signature, tensors, rows=1))
    return payloads


def _row_ms(bench: Bench, server: Served, alone: Stream) -> float:
    """What a row takes on its worker while one caller asks for one at a time, by the server's own count."""
    before = asyncio.run(read_statistics(server, alone.model))
    bench.run(f"{alone.model}: a row alone", server, [alone], 1.0)
    phases = difference(before, asyncio.run(read_statistics(server, alone.model)))
    if isinstance(phases, str):
        raise click.ClickException(phases)
    return (phases.input_us + phases.infer_us + phases.output_us) / 1e3
