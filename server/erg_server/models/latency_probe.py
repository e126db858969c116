"""What a version's batches take before its first caller: remembered, published with it, or measured in a moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Sequence

from erg_server.clock import MonotonicClock
from erg_server.devices.device import Device
from erg_server.errors import ErgError
from erg_server.models.served_model import ServedModel
from erg_server.models.warmup import zeros
from erg_server.repository.manifest import Measurement
from erg_server.repository.spec import ModelSpec
from erg_server.request import InferenceRequest
from erg_server.scheduling.batch import BatchLayout
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.latency_curve import FIRST_SPREAD, CurveSnapshot
from erg_server.tensor import Tensor

log = logging.getLogger(__name__)

PROBE_NS = 1_500_000_000
"""How long measuring may take; sizes that are left then are learnt from callers' batches."""
_RUNS = 3


async def learn_latencies(
    served: ServedModel,
    *,
    device: Device,
    cache: LatencyCache | None,
    measurements: Sequence[Measurement] = (),
    variant: str = "",
) -> None:
    """Tell a warm version's scheduler what its batches take, where it has an objective to keep.

    What an earlier run learnt is best, then what the version was published with, and else a few sizes are measured.
    """
    queue = served.queue
    # What warming up took is no batch's time.
    queue.latency.clear()
    if cache is not None:
        queue.latency.restore(cache.get(served.fingerprint, device_label(device)))
    queue.latency.restore(published_curves(served.spec, device, measurements, variant))
    if served.spec.objective_ns and not queue.latency.snapshot():
        await _measure(served)
        if cache is not None:
            keep_latencies(served, device, cache)
            await asyncio.to_thread(cache.save)


def keep_latencies(served: ServedModel, device: Device, cache: LatencyCache) -> None:
    """Remember what was learnt until now; `cache.save` writes it."""
    cache.put(served.fingerprint, device_label(device), served.queue.latency.snapshot())


def device_label(device: Device) -> str:
    """Devices of one label take equally long."""
    label = f"{device.kind}/{device.threads}"
    if device.mps_percent:
        return f"{label}/mps{device.mps_percent}"
    # MIG instances of one size have equally much memory.
    return f"{label}/mig{device.memory_bytes}" if device.partition else label


def published_curves(
    spec: ModelSpec, device: Device, measurements: Sequence[Measurement], variant: str
) -> dict[Hashable, CurveSnapshot]:
    """The curves of the manifest's measurements of this variant on devices such as this."""
    means: dict[Hashable, dict[int, float]] = {}
    spreads: dict[Hashable, float] = {}
    for each in measurements:
        if each.variant != variant or each.device != device.kind or each.threads != device.threads:
            continue
        if each.batch_size < 1 or each.latency_ms_p50 <= 0:
            continue
        key = shape_key(spec, each.length)
        means.setdefault(key, {})[each.batch_size] = each.latency_ms_p50 * 1e6
        if each.latency_ms_p99 is not None and each.latency_ms_p99 >= each.latency_ms_p50:
            spreads[key] = max(spreads.get(key, 1.0), each.latency_ms_p99 / each.latency_ms_p50)
    return {key: CurveSnapshot(means_ns=sizes, spread=spreads.get(key, FIRST_SPREAD)) for key, sizes in means.items()}


def shape_key(spec: ModelSpec, length: int | None = None) -> Hashable:
    """What a request shares batches with whose open axes are of `length`, or of a short one where none is given."""
    key, _ = BatchLayout(spec).describe(_inputs(spec, 1, length))
    return key


async def _measure(served: ServedModel) -> None:
    """Run batches of zeros of 1, 2, 4, … rows; a model that fails on zeros is learnt from its callers' batches."""
    began_ns = MonotonicClock.now_ns()
    rows = 1
    try:
        while rows <= max(1, served.queue.batcher.limits.max_rows):
            for _ in range(_RUNS):
                request = InferenceRequest(
                    model_name=served.name,
                    inputs=_inputs(served.spec, rows),
                    arrival_ns=MonotonicClock.now_ns(),
                    warmup=True,
                )
                await served.infer(request)
                if MonotonicClock.now_ns() - began_ns > PROBE_NS:
                    return
            rows *= 2
    except ErgError as error:
        log.info("model %s cannot be measured on zeros: %s", served.name, error.message)


def _inputs(spec: ModelSpec, rows: int, length: int | None = None) -> list[Tensor]:
    """Zeros of so many rows, open axes of `length` where one is given."""
    return [zeros(spec, tensor, rows, length) for tensor in spec.inputs if not tensor.optional]
