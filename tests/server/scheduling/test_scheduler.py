from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from erg_server.clock import ManualClock
from erg_server.errors import (
    CancelledError,
    DeadlineExceededError,
    ErgError,
    ResourceExhaustedError,
    UnavailableError,
)
from erg_server.request import InferenceRequest, InferenceResponse, Phases
from erg_server.scheduling.admission import QueueLimits
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.scheduling.scheduler import Scheduler
from erg_server.simulation.device import SimulatedWorker
from erg_server.simulation.virtual_time import VirtualTimers
from erg_server.telemetry.meter import Meter
from erg_server.tensor import Tensor

from tests.server.scheduling.builders import ECHO, model_spec

MS = 1_000_000


@dataclass
class Sent:
    entry: QueuedRequest
    value: int
    answers: list[InferenceResponse | ErgError] = field(default_factory=list)

    @property
    def answer(self) -> InferenceResponse | ErgError:
        assert len(self.answers) == 1, f"{len(self.answers)} answers"
        return self.answers[0]


class Bench:
    """One model on simulated workers."""

    def __init__(
        self,
        config: str = ECHO + "dynamic_batching { }",
        workers: int = 1,
        duration_ns: Callable[[int], int] = lambda rows: rows * 10 * MS,
        limits: QueueLimits | None = None,
    ) -> None:
        self.clock = ManualClock(1000)
        self.timers = VirtualTimers(self.clock)
        self.scheduler = Scheduler(clock=self.clock, timers=self.timers, limits=limits)
        self.workers = [
            SimulatedWorker(f"w{n}", self.timers, lambda _, rows: duration_ns(rows)) for n in range(workers)
        ]
        for worker in self.workers:
            worker.available = self.scheduler.worker_available
            self.scheduler.add_worker(worker)
        self.meter = Meter().model("echo", "1")
        self.queue: ModelQueue = self.scheduler.open(handle=1, spec=model_spec(config), version="1", meter=self.meter)
        self.sent: list[Sent] = []

    def send(
        self, *, deadline_ns: int | None = None, on_answer: Callable[[InferenceResponse | ErgError], None] | None = None
    ) -> Sent:
        value = len(self.sent)
        array = np.full((1, 1), value, dtype=np.int32)
        name = self.queue.spec.inputs[0].name
        request = InferenceRequest(
            model_name="echo",
            inputs=[Tensor.from_numpy(name, array)],
            arrival_ns=self.clock.now_ns(),
            id=str(value),
            deadline_ns=deadline_ns,
        )
        key, span = self.queue.layout.describe(request.inputs)
        answers: list[InferenceResponse | ErgError] = []

        def on_done(answer: InferenceResponse | ErgError) -> None:
            answers.append(answer)
            if on_answer is not None:
                on_answer(answer)

        entry = QueuedRequest(
            request=request,
            rows=1,
            key=key,
            length=span,
            nbytes=array.nbytes,
            on_done=on_done,
            phases=Phases(arrival_ns=request.arrival_ns),
        )
        sent = Sent(entry, value, answers)
        self.sent.append(sent)
        self.scheduler.enqueue(self.queue, entry)
        return sent


def check_value(sent: Sent) -> None:
    assert isinstance(sent.answer, InferenceResponse), sent.answer
    assert sent.answer.id == str(sent.value)
    assert sent.answer.outputs[0].numpy().ravel()[0] == sent.value


def test_requests_of_one_moment_share_a_batch_and_each_gets_its_own_answer() -> None:
    bench = Bench()
    for _ in range(5):
        bench.send()
    bench.timers.run()
    assert [rows for _, rows in bench.workers[0].batches] == [5]
    for sent in bench.sent:
        check_value(sent)


def test_eight_requests_are_shared_by_two_idle_workers() -> None:
    bench = Bench(workers=2)
    for _ in range(8):
        bench.send()
    bench.timers.run()
    assert [worker.batches[0][1] for worker in bench.workers] == [4, 4]


def test_a_worker_always_has_its_next_batch_before_it_would_wait() -> None:
    bench = Bench()
    bench.send()
    bench.timers.run(bench.clock.now_ns() + 5 * MS)  # running, ends at 10 ms
    bench.send()
    bench.timers.run()
    (first, _), (second, _) = bench.workers[0].batches
    assert second - first == 10 * MS


def test_a_busy_workers_next_batch_still_grows_until_shortly_before_it_is_due() -> None:
    bench = Bench()
    bench.send()
    bench.timers.run()  # a row is known to take 10 ms from here on
    bench.send()
    bench.timers.run(bench.clock.now_ns() + 1)
    for _ in range(3):
        bench.send()
        bench.timers.run(bench.clock.now_ns() + 1 * MS)
    bench.timers.run()
    assert [rows for _, rows in bench.workers[0].batches] == [1, 1, 3]


US = 1000


def short_bench() -> Bench:
    """Two workers and a model whose batches take 20 µs, less than handing one over, which is known already."""
    bench = Bench(workers=2, duration_ns=lambda rows: 20 * US)
    bench.send()
    bench.timers.run()
    return bench


def test_requests_of_a_short_model_go_to_one_worker_together() -> None:
    bench = short_bench()
    for _ in range(4):
        bench.send()
    bench.timers.run()
    assert [[rows for _, rows in worker.batches] for worker in bench.workers] == [[1, 4], []]


def test_fewer_requests_than_run_wait_for_the_short_batch_under_way() -> None:
    bench = short_bench()
    for _ in range(4):
        bench.send()
    bench.timers.settle()
    start_ns = bench.clock.now_ns()
    for _ in range(3):
        bench.send()
        bench.timers.run(bench.clock.now_ns() + 5 * US)
    bench.timers.run()
    assert [[rows for _, rows in worker.batches] for worker in bench.workers] == [[1, 4, 3], []]
    assert bench.workers[0].batches[2][0] == start_ns + 20 * US, "they go the moment it ends"


def test_as_many_requests_as_run_take_a_free_worker_at_once() -> None:
    bench = short_bench()
    for _ in range(4):
        bench.send()
    bench.timers.settle()
    for _ in range(4):
        bench.send()
    bench.timers.settle()
    assert [[rows for _, rows in worker.batches] for worker in bench.workers] == [[1, 4], [4]]


def test_a_short_batch_that_is_late_holds_nobody_up() -> None:
    bench = short_bench()
    bench.workers[0].duration_ns = lambda _, rows: 50 * MS
    for _ in range(4):
        bench.send()
    bench.timers.settle()
    start_ns = bench.clock.now_ns()
    bench.send()
    bench.timers.run(start_ns + 10 * MS)
    ((waited_ns, rows),) = bench.workers[1].batches
    assert (waited_ns - start_ns, rows) == (300 * US, 1)


def test_an_expired_request_never_reaches_a_worker_and_is_told_in_time() -> None:
    bench = Bench()
    bench.workers[0].ready = False
    late = bench.send(deadline_ns=bench.clock.now_ns() + 2 * MS)
    bench.timers.run(bench.clock.now_ns() + 3 * MS)
    assert isinstance(late.answer, DeadlineExceededError)
    bench.workers[0].revive()
    bench.timers.run()
    assert bench.workers[0].batches == []
    assert bench.meter.dropped == 1


def test_a_request_whose_deadline_is_over_is_refused() -> None:
    bench = Bench()
    with pytest.raises(DeadlineExceededError):
        bench.send(deadline_ns=bench.clock.now_ns())


def test_a_cancelled_request_never_reaches_a_worker() -> None:
    bench = Bench()
    first = bench.send()
    second = bench.send()
    bench.scheduler.cancel(bench.queue, first.entry)
    bench.timers.run()
    assert isinstance(first.answer, CancelledError)
    check_value(second)
    assert [rows for _, rows in bench.workers[0].batches] == [1]


def test_a_full_queue_refuses_and_says_how_long_it_is() -> None:
    bench = Bench(limits=QueueLimits(max_requests=3))
    for _ in range(3):
        bench.send()
    with pytest.raises(ResourceExhaustedError, match="3 requests waiting"):
        bench.send()
    bench.timers.run()
    for sent in bench.sent[:3]:
        check_value(sent)


def test_a_models_own_queue_size_refuses_too() -> None:
    policy = "dynamic_batching { default_queue_policy { max_queue_size: 2 } }"
    bench = Bench(ECHO + policy)
    bench.send()
    bench.send()
    with pytest.raises(ResourceExhaustedError, match="max_queue_size"):
        bench.send()


def test_a_killed_worker_fails_only_its_own_batches() -> None:
    bench = Bench(workers=2)
    for _ in range(8):
        bench.send()
    bench.timers.run(bench.clock.now_ns() + 1)
    bench.workers[0].kill()
    waiting = bench.send()
    bench.timers.run()
    failed = [sent for sent in bench.sent if isinstance(sent.answer, UnavailableError)]
    assert len(failed) == 4
    for sent in bench.sent:
        if sent not in failed:
            check_value(sent)
    check_value(waiting)


def test_requests_wait_for_a_worker_that_comes_back() -> None:
    bench = Bench()
    bench.workers[0].ready = False
    sent = bench.send()
    bench.timers.run(bench.clock.now_ns() + 100 * MS)
    assert sent.answers == []
    bench.workers[0].revive()
    bench.timers.run()
    check_value(sent)


def test_preserved_order_holds_answers_back_until_older_ones_left() -> None:
    durations = iter([30 * MS, 1 * MS, 1 * MS, 1 * MS])
    config = ECHO.replace("max_batch_size: 8", "max_batch_size: 1") + "dynamic_batching { preserve_ordering: true }"
    bench = Bench(config, workers=2, duration_ns=lambda _: next(durations, MS))
    order: list[str] = []
    for _ in range(4):
        bench.send(on_answer=lambda answer: order.append(answer.id if isinstance(answer, InferenceResponse) else ""))
    bench.timers.run()
    assert order == ["0", "1", "2", "3"]


def test_a_closed_version_answers_what_waits_and_refuses_what_comes() -> None:
    bench = Bench()
    bench.workers[0].ready = False
    sent = bench.send()
    bench.scheduler.close(bench.queue)
    assert isinstance(sent.answer, UnavailableError)
    with pytest.raises(UnavailableError):
        bench.send()


@pytest.mark.parametrize("seed", range(32))
def test_under_random_load_nothing_is_lost_mixed_up_or_answered_twice(seed: int) -> None:
    rng = random.Random(seed)
    bench = Bench(
        ECHO + "dynamic_batching { max_queue_delay_microseconds: 500 }",
        workers=3,
        duration_ns=lambda rows: rng.randrange(100_000, 2_000_000) + rows * 10_000,
    )
    refused = 0
    for _ in range(400):
        action = rng.random()
        if action < 0.7:
            deadline = bench.clock.now_ns() + rng.randrange(1, 4 * MS) if rng.random() < 0.3 else None
            try:
                bench.send(deadline_ns=deadline)
            except (DeadlineExceededError, ResourceExhaustedError):
                refused += 1
                assert not bench.sent.pop().answers
        elif action < 0.8 and bench.sent:
            bench.scheduler.cancel(bench.queue, rng.choice(bench.sent).entry)
        elif action < 0.83:
            worker = rng.choice(bench.workers)
            if worker.ready:
                worker.kill()
                bench.timers.call_later(0.003, worker.revive)
        bench.timers.run(bench.clock.now_ns() + rng.randrange(0, 300_000))
    bench.timers.run()
    for sent in bench.sent:
        if isinstance(sent.answer, InferenceResponse):
            check_value(sent)
    assert bench.meter.pending == 0
    assert bench.meter.refusals.total() == refused
    assert bench.queue.work_ns == pytest.approx(0, abs=1)
    assert sum(isinstance(sent.answer, InferenceResponse) for sent in bench.sent) > 150
