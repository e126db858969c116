"""What holds for every load: random models, workers that die, callers that leave, on the real scheduler."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from random import Random

import numpy as np
from erg_server.clock import ManualClock
from erg_server.errors import CancelledError, DeadlineExceededError, ErgError, ResourceExhaustedError, UnavailableError
from erg_server.repository.spec import BatchingPolicy
from erg_server.request import InferenceRequest, InferenceResponse, Phases
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.scheduling.scheduler import Scheduler
from erg_server.simulation.device import SimulatedWorker
from erg_server.simulation.simulation import simulated_spec
from erg_server.simulation.virtual_time import VirtualTimers
from erg_server.telemetry.meter import ModelMeter
from erg_server.tensor import Tensor
from hypothesis import given, settings
from hypothesis import strategies as st

MS = 1_000_000
EXPECTED = (CancelledError, DeadlineExceededError, ResourceExhaustedError, UnavailableError)


@dataclass
class Sent:
    queue: ModelQueue
    entry: QueuedRequest
    value: int
    refused: bool = False
    answers: list[InferenceResponse | ErgError] = field(default_factory=list)


class CheckedWorker(SimulatedWorker):
    """Notes the largest batch of each model."""

    def __init__(self, name: str, timers: VirtualTimers, rng: Random) -> None:
        super().__init__(name, timers, lambda _, rows: 200_000 + rows * 50_000 + rng.randrange(500_000))
        self.largest: dict[int, int] = {}

    def submit(self, handle, inputs, on_done, rows) -> None:
        assert sum(item.shape[0] for item in inputs) == rows
        self.largest[handle] = max(self.largest.get(handle, 0), rows)
        super().submit(handle, inputs, on_done, rows)


class World:
    def __init__(self, models: list[tuple[int, int, int, bool]], workers: int, seed: int) -> None:
        self.rng = Random(seed)
        self.clock = ManualClock(1)
        self.timers = VirtualTimers(self.clock)
        self.scheduler = Scheduler(clock=self.clock, timers=self.timers)
        self.workers = [CheckedWorker(f"w{n}", self.timers, self.rng) for n in range(workers)]
        for worker in self.workers:
            worker.available = self.scheduler.worker_available
            self.scheduler.add_worker(worker)
        self.queues = []
        for handle, (max_rows, objective_ms, delay_us, ordered) in enumerate(models, 1):
            policy = BatchingPolicy(max_queue_delay_us=delay_us, preserve_ordering=ordered)
            spec = simulated_spec(f"m{handle}", max_rows=max_rows, objective_ns=objective_ms * MS, batching=policy)
            meter = ModelMeter(spec.name, "1")
            self.queues.append(self.scheduler.open(handle=handle, spec=spec, version="1", meter=meter))
        self.sent: list[Sent] = []
        self.order: dict[int, list[int]] = {}

    def step(self) -> None:
        action = self.rng.random()
        if action < 0.75:
            for _ in range(self.rng.choice((1, 1, 1, 2, 8))):
                self.send(self.rng.choice(self.queues))
        elif action < 0.8 and self.sent:
            sent = self.rng.choice(self.sent)
            if not sent.refused:
                self.scheduler.cancel(sent.queue, sent.entry)
        elif action < 0.83:
            worker = self.rng.choice(self.workers)
            if worker.ready:
                worker.kill()
                self.timers.call_later(0.004, worker.revive)
        self.timers.run(self.clock.now_ns() + self.rng.randrange(600_000), max_timers=10_000)

    def send(self, queue: ModelQueue) -> Sent:
        value, now_ns = len(self.sent), self.clock.now_ns()
        deadline_ns = now_ns + self.rng.randrange(20 * MS) if self.rng.random() < 0.3 else None
        request = InferenceRequest(
            model_name=queue.spec.name,
            inputs=[Tensor.from_numpy("x", np.full((1, 1), value, dtype=np.int32))],
            arrival_ns=now_ns,
            id=str(value),
            deadline_ns=deadline_ns,
        )

        def on_done(answer: InferenceResponse | ErgError) -> None:
            sent.answers.append(answer)
            self.order.setdefault(queue.handle, []).append(value)

        entry = QueuedRequest(
            request=request, rows=1, key=None, nbytes=4, on_done=on_done, phases=Phases(arrival_ns=now_ns)
        )
        sent = Sent(queue, entry, value)
        self.sent.append(sent)
        try:
            self.scheduler.enqueue(queue, entry)
        except EXPECTED:
            sent.refused = True
        return sent


MODEL = st.tuples(st.integers(1, 8), st.sampled_from([0, 0, 3, 10, 40]), st.sampled_from([0, 0, 500]), st.booleans())


@settings(max_examples=60, deadline=None)
@given(models=st.lists(MODEL, min_size=1, max_size=4), workers=st.integers(1, 10), seed=st.integers(0, 1 << 30))
def test_every_request_gets_its_own_answer_once(
    models: list[tuple[int, int, int, bool]], workers: int, seed: int
) -> None:
    world = World(models, workers, seed)
    for _ in range(120):
        world.step()
    world.timers.run(max_timers=20_000)
    for sent in world.sent:
        assert len(sent.answers) == (0 if sent.refused else 1)
        for answer in sent.answers:
            if isinstance(answer, InferenceResponse):
                assert answer.id == str(sent.value)
                assert answer.outputs[0].numpy().ravel()[0] == sent.value
            else:
                assert isinstance(answer, EXPECTED), answer
    for handle, (max_rows, _, _, ordered) in enumerate(models, 1):
        assert all(worker.largest.get(handle, 0) <= max_rows for worker in world.workers)
        queue = world.queues[handle - 1]
        assert queue.idle
        assert queue.meter.pending == 0
        assert abs(queue.work_ns) < 1, "the account of waiting work is empty again"
        if ordered:
            assert world.order.get(handle, []) == sorted(world.order.get(handle, []))


@settings(max_examples=40, deadline=None)
@given(models=st.lists(MODEL, min_size=1, max_size=4), workers=st.integers(1, 10), seed=st.integers(0, 1 << 30))
def test_no_worker_idles_while_a_request_waits_that_gains_nothing_by_it(
    models: list[tuple[int, int, int, bool]], workers: int, seed: int
) -> None:
    """Models with neither objective nor delay have nothing to wait for but a batch of their own that is under way."""
    world = World([(rows, 0, 0, ordered) for rows, _, _, ordered in models], workers, seed)
    for _ in range(120):
        world.step()
        if any(worker.free_slots == worker.slots and worker.ready for worker in world.workers):
            for queue in world.queues:
                assert not queue.batcher.queue or queue.gather_until_ns > world.clock.now_ns()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_nobody_starves_beside_a_model_that_takes_all_it_gets(seed: int) -> None:
    world = World([(8, 10, 0, False), (8, 0, 0, False)], 1, seed)
    for _ in range(20):
        world.send(world.queues[0])
    patient = world.send(world.queues[1])
    patient.entry.request.deadline_ns = None
    if patient.refused:
        return
    for _ in range(800):
        for _ in range(10):
            world.send(world.queues[0])
        world.timers.run(world.clock.now_ns() + MS, max_timers=10_000)
        if patient.answers:
            break
    assert patient.answers, "neither answered nor dropped in 800 ms"


def test_cancelled_callers_hold_no_ones_place() -> None:
    world = World([(4, 40, 0, False)], 1, 1)
    world.workers[0].kill()
    first = [world.send(world.queues[0]) for _ in range(6)]
    for sent in first[:5]:
        with contextlib.suppress(ErgError):
            world.scheduler.cancel(sent.queue, sent.entry)
    world.workers[0].revive()
    world.timers.run(max_timers=1000)
    assert world.workers[0].largest == {1: 1}
