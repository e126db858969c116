"""Triton's dynamic batcher simulated: a fixed delay, first in first out, no deadlines. It is what Erg is compared with.

A model's requests become a batch when as many wait as it may hold, or the oldest has waited for the delay, and an
instance of the model is free; every device has one instance of every model. Batches on a device run one after the
other. With `serial` a device takes one batch at a time, whichever model's head is the oldest (Triton's rate limiter);
otherwise every instance may queue one on its device, which is Triton's default. Where Triton's choice of an instance is
not documented, the least busy device is taken, which is the best it could do.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from erg_server.simulation.arrivals import merge
from erg_server.simulation.cost import sampler
from erg_server.simulation.simulation import Outcome, SimulatedModel


class TritonPolicy:
    """One run; `delay_ns` is max_queue_delay_microseconds of every model."""

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        *,
        devices: int,
        delay_ns: int,
        serial: bool,
        seed: int = 0,
        warm_up_ns: int = 0,
    ) -> None:
        self.outcomes = [Outcome() for _ in models]
        self._models = models
        self._delay_ns = delay_ns
        self._serial = serial
        self._warm_up_ns = warm_up_ns
        rng = Random(seed)  # noqa: S311 (a simulation)
        self._durations: list[Callable[[int], int]] = [
            sampler(model.cost, max(1, model.spec.max_batch_size), rng) for model in models
        ]
        self._waiting: list[deque[int]] = [deque() for _ in models]
        self._free_at_ns = [0] * devices
        self._outstanding = [0] * devices
        # Which devices' instance of a model is free.
        self._instances = [set(range(devices)) for _ in models]
        self._events: list[tuple[int, int, int, int]] = []  # time, kind (0: batch ended, 1: delay over), model, device

    def run(self, duration_s: float) -> list[Outcome]:
        """Send what arrives within `duration_s` and wait until everything is answered."""
        for at_ns, model in merge([each.arrivals for each in self._models], round(duration_s * 1e9)):
            self._advance(at_ns)
            self._waiting[model].append(at_ns)
            if at_ns >= self._warm_up_ns:
                self.outcomes[model].offered += 1
            if self._delay_ns:
                heapq.heappush(self._events, (at_ns + self._delay_ns, 1, model, 0))
            self._start(at_ns, (model,))
        self._advance(None)
        return self.outcomes

    def _advance(self, until_ns: int | None) -> None:
        while self._events and (until_ns is None or self._events[0][0] <= until_ns):
            at_ns, kind, model, device = heapq.heappop(self._events)
            if kind:
                self._start(at_ns, (model,))
                continue
            self._outstanding[device] -= 1
            self._instances[model].add(device)
            self._start(at_ns, range(len(self._models)) if self._serial else (model,))

    def _start(self, now_ns: int, models: Sequence[int]) -> None:
        """Let every batch of these models go that may, the oldest head first."""
        while True:
            able = [model for model in models if self._may_go(model, now_ns)]
            if not able:
                return
            model = min(able, key=lambda each: self._waiting[each][0])
            devices = self._devices(model)
            device = min(devices, key=lambda each: (self._free_at_ns[each], each))
            self._run(model, device, now_ns)

    def _may_go(self, model: int, now_ns: int) -> bool:
        waiting = self._waiting[model]
        if not waiting or not self._devices(model):
            return False
        return len(waiting) >= self._models[model].spec.max_batch_size or waiting[0] + self._delay_ns <= now_ns

    def _devices(self, model: int) -> list[int]:
        free = self._instances[model]
        return [device for device in free if not self._serial or not self._outstanding[device]]

    def _run(self, model: int, device: int, now_ns: int) -> None:
        spec, promise_ns = self._models[model].spec, self._models[model].promise_ns
        waiting, outcome = self._waiting[model], self.outcomes[model]
        batch = [waiting.popleft() for _ in range(min(len(waiting), spec.max_batch_size))]
        end_ns = max(now_ns, self._free_at_ns[device]) + self._durations[model](len(batch))
        self._free_at_ns[device] = end_ns
        self._outstanding[device] += 1
        self._instances[model].discard(device)
        heapq.heappush(self._events, (end_ns, 0, model, device))
        for arrival_ns in batch:
            if arrival_ns < self._warm_up_ns:
                continue
            latency_ns = end_ns - arrival_ns
            outcome.latencies_ns.append(latency_ns)
            if latency_ns <= promise_ns:
                outcome.in_time += 1
            else:
                outcome.late += 1
