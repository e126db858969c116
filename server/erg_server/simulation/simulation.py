"""Runs the real scheduler over simulated devices, and counts who was answered in time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np

from erg_server.clock import ManualClock
from erg_server.datatype import DataType
from erg_server.errors import ErgError
from erg_server.repository.spec import BatchingPolicy, ModelSpec, TensorSpec
from erg_server.request import InferenceRequest, InferenceResponse, Phases
from erg_server.scheduling.admission import QueueLimits
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.scheduling.scheduler import Scheduler
from erg_server.simulation.arrivals import merge
from erg_server.simulation.cost import Cost, sampler
from erg_server.simulation.device import SimulatedWorker
from erg_server.simulation.virtual_time import VirtualTimers
from erg_server.telemetry.meter import ModelMeter
from erg_server.tensor import Tensor

_TENSOR = Tensor.from_numpy("x", np.zeros((1, 1), dtype=np.int32))
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batch sizes that are known before the first request, as after a measurement at load."""


def simulated_spec(
    name: str, *, max_rows: int, objective_ns: int = 0, batching: BatchingPolicy | None = None
) -> ModelSpec:
    """A model of one number in and out, which batches up to `max_rows` requests of one row each."""
    tensor = TensorSpec(name="x", datatype=DataType.INT32, dims=(1,))
    return ModelSpec(
        name=name,
        backend="identity",
        max_batch_size=max_rows,
        inputs=(tensor,),
        outputs=(replace(tensor, name="y"),),
        batching=batching or BatchingPolicy(),
        objective_ns=objective_ns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel:
    """A model, what its batches cost, and when its requests come.

    `promise_ns` is what its answers are judged by, whatever the scheduler was told in `spec`; 0 counts every answer as
    in time. `devices` are the numbers of those that have it, None for all. `rows` are those of each request in turn,
    None for one each.
    """

    spec: ModelSpec
    cost: Cost
    arrivals: Iterator[int]
    promise_ns: int = 0
    devices: Collection[int] | None = None
    rows: Iterator[int] | None = None


@dataclass(slots=True)
class Outcome:
    """What became of one model's requests. `latencies_ns` are those of the answers, in time or not."""

    offered: int = 0
    in_time: int = 0
    late: int = 0
    refused: int = 0
    dropped: int = 0
    latencies_ns: list[int] = field(default_factory=list)

    @property
    def attainment(self) -> float:
        """Share of all requests that were answered in time; 1 where none came."""
        return self.in_time / self.offered if self.offered else 1.0

    def quantile_ns(self, share: float) -> int:
        """The latency that `share` of the answers do not exceed; 0 without any."""
        ordered = sorted(self.latencies_ns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


class Simulation:
    """Models, devices and a scheduler on one virtual clock. Equal arguments give equal outcomes."""

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        *,
        devices: int,
        seed: int = 0,
        limits: QueueLimits | None = None,
        warm_up_ns: int = 0,
    ) -> None:
        self.clock = ManualClock(1)
        self.timers = VirtualTimers(self.clock)
        self.models = models
        self.outcomes = [Outcome() for _ in models]
        self.scheduler = Scheduler(clock=self.clock, timers=self.timers, limits=limits)
        self._warm_up_ns = warm_up_ns
        rng = Random(seed)  # noqa: S311 (a simulation)
        samplers = [sampler(model.cost, max(1, model.spec.max_batch_size), rng) for model in models]
        self.workers = [
            SimulatedWorker(
                f"device{number}",
                self.timers,
                lambda handle, rows: samplers[handle - 1](rows),
                models={at + 1 for at, model in enumerate(models) if model.devices is None or number in model.devices},
            )
            for number in range(devices)
        ]
        for worker in self.workers:
            worker.records = False
            worker.available = self.scheduler.worker_available
            self.scheduler.add_worker(worker)
        self.queues = [self._open(handle, model) for handle, model in enumerate(models, 1)]

    def run(self, duration_s: float) -> list[Outcome]:
        """Send what arrives within `duration_s` and wait until everything is answered."""
        end_ns = round(duration_s * 1e9)
        for at_ns, number in merge([model.arrivals for model in self.models], end_ns):
            self.timers.run(at_ns)
            self.send(number)
        self.timers.run()
        return self.outcomes

    def _open(self, handle: int, model: SimulatedModel) -> ModelQueue:
        sizes = [rows for rows in _SIZES if rows <= max(1, model.spec.max_batch_size)]
        known = CurveSnapshot(means_ns={rows: model.cost.mean_ns(rows) for rows in sizes})
        return self.scheduler.open(
            handle=handle, spec=model.spec, version="1", meter=ModelMeter(model.spec.name, "1"), curves={None: known}
        )

    def send(self, number: int) -> None:
        """Send a request of the model of this number now."""
        model, outcome, queue = self.models[number], self.outcomes[number], self.queues[number]
        counted = self.clock.now_ns() >= self._warm_up_ns
        rows, tensor = 1, _TENSOR
        if model.rows is not None and (rows := next(model.rows)) > 1:
            tensor = Tensor.from_numpy("x", np.zeros((rows, 1), dtype=np.int32))
        request = InferenceRequest(model_name=model.spec.name, inputs=[tensor], arrival_ns=self.clock.now_ns())

        def on_done(answer: InferenceResponse | ErgError) -> None:
            if not counted:
                return
            if isinstance(answer, ErgError):
                outcome.dropped += 1
                return
            latency_ns = self.clock.now_ns() - request.arrival_ns
            outcome.latencies_ns.append(latency_ns)
            if not model.promise_ns or latency_ns <= model.promise_ns:
                outcome.in_time += 1
            else:
                outcome.late += 1

        entry = QueuedRequest(
            request=request,
            rows=rows,
            key=None,
            nbytes=4 * rows,
            on_done=on_done,
            phases=Phases(arrival_ns=request.arrival_ns),
        )
        outcome.offered += counted
        try:
            self.scheduler.enqueue(queue, entry)
        except ErgError:
            outcome.refused += counted
