"""What the scheduler does for models with an objective and for requests with a deadline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from erg_server.clock import ManualClock
from erg_server.errors import DeadlineExceededError, ErgError, ResourceExhaustedError
from erg_server.request import InferenceRequest, InferenceResponse, Phases
from erg_server.scheduling.admission import Caution
from erg_server.scheduling.deadlines import REMEASURE_NS
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.latency_model import Curves
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.scheduling.scheduler import Scheduler
from erg_server.scheduling.slack import SLACK_MARGIN_NS
from erg_server.simulation.device import SimulatedWorker
from erg_server.simulation.virtual_time import VirtualTimers
from erg_server.telemetry.meter import Meter
from erg_server.tensor import Tensor

from tests.server.scheduling.builders import model_spec

MS = 1_000_000
ONE = np.zeros((1, 1), dtype=np.int32)
MODEL = """
backend: "identity" max_batch_size: 8
input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }
"""


class Bench:
    """Models with the same latencies on simulated workers: 10 ms a batch and 1 ms a row, which is known."""

    def __init__(self, *configs: str, workers: int = 1, known: bool = True) -> None:
        self.clock = ManualClock(1)
        self.timers = VirtualTimers(self.clock)
        self.scheduler = Scheduler(clock=self.clock, timers=self.timers)
        self.workers = [SimulatedWorker(f"w{n}", self.timers, self.duration_ns) for n in range(workers)]
        for worker in self.workers:
            worker.available = self.scheduler.worker_available
            self.scheduler.add_worker(worker)
        self.meter = Meter()
        self.queues = [self._open(number, config, known) for number, config in enumerate(configs)]
        self.answers: list[tuple[int, str, InferenceResponse | ErgError]] = []

    @staticmethod
    def duration_ns(handle: int, rows: int) -> int:
        return (10 + rows) * MS

    def _open(self, number: int, config: str, known: bool) -> ModelQueue:
        means = {rows: float(self.duration_ns(0, rows)) for rows in range(1, 9)} if known else {}
        curves: Curves = {None: CurveSnapshot(means_ns=means, spread=1.0)}
        spec = model_spec(f'name: "m{number}" {MODEL} {config}')
        meter = self.meter.model(f"m{number}", "1")
        return self.scheduler.open(handle=number + 1, spec=spec, version="1", meter=meter, curves=curves)

    def send(
        self,
        model: int = 0,
        name: str = "",
        *,
        within_ms: float | None = None,
        priority: int = 0,
        timeout_us: int = 0,
    ) -> QueuedRequest:
        now_ns = self.clock.now_ns()
        request = InferenceRequest(
            model_name=f"m{model}",
            inputs=[Tensor.from_numpy("x", ONE)],
            arrival_ns=now_ns,
            id=name,
            priority=priority,
            timeout_us=timeout_us,
            deadline_ns=None if within_ms is None else now_ns + round(within_ms * MS),
        )
        entry = QueuedRequest(
            request=request,
            rows=1,
            key=None,
            nbytes=4,
            on_done=self._answered(name),
            phases=Phases(arrival_ns=now_ns),
        )
        self.scheduler.enqueue(self.queues[model], entry)
        return entry

    def _answered(self, name: str) -> Callable[[InferenceResponse | ErgError], None]:
        return lambda answer: self.answers.append((self.clock.now_ns(), name, answer))

    def run_ms(self, milliseconds: float) -> None:
        self.timers.run(self.clock.now_ns() + round(milliseconds * MS), max_timers=100_000)

    def starts(self, worker: int = 0) -> list[tuple[float, int]]:
        """When batches began, in milliseconds, and their rows."""
        return [(round(at_ns / MS, 1), rows) for at_ns, rows in self.workers[worker].batches]

    def occupy(self) -> None:
        """Keep the model's load high, so that there is no time to spare, and its arrivals dense."""
        for fleet in {queue.fleet for queue in self.queues}:
            fleet.charge(self.clock.now_ns(), 10 * fleet.size * 1_000 * MS)
        self.expect_requests()

    def expect_requests(self) -> None:
        """Have the next request expected so soon that waiting for it pays."""
        for queue in self.queues:
            assert queue.batcher._slack is not None
            queue.batcher._slack._gap_ns = 1.0 * MS


BATCHED = "dynamic_batching { }"
SLO_50 = BATCHED + " erg { slo { p99_ms: 50 } }"


def test_with_time_to_spare_a_request_goes_at_once() -> None:
    bench = Bench(SLO_50)
    bench.expect_requests()
    bench.send()
    bench.run_ms(100)
    assert bench.starts() == [(0.0, 1)]


def test_without_time_to_spare_a_batch_grows_until_its_first_deadline_is_due() -> None:
    bench = Bench(SLO_50)
    bench.occupy()
    for _ in range(4):
        bench.send()
        bench.run_ms(2)
    bench.run_ms(100)
    due_ms = 50 - (10 + 5) - SLACK_MARGIN_NS / MS
    assert bench.starts() == [(due_ms, 4)]
    assert bench.meter.model("m0", "1").met_deadlines == 4


def test_a_batch_goes_early_to_an_idle_device_that_others_will_want() -> None:
    bench = Bench(SLO_50, SLO_50)
    bench.occupy()
    bench.send(0)
    for _ in range(6):
        bench.send(1)
    bench.run_ms(100)
    # Whose own work is all that waits has nothing to make way for.
    due_ms = 50 - (10 + 7) - SLACK_MARGIN_NS / MS
    assert bench.starts() == [(0.0, 1), (due_ms, 6)]


def bench_of_eight_that_are_free_in_5_ms() -> Bench:
    bench = Bench(BATCHED + " erg { slo { p99_ms: 22 } }", workers=8)
    for _ in range(8):
        bench.send()
        bench.run_ms(0)
    bench.run_ms(6)
    return bench


def test_what_a_large_batch_would_make_late_is_admitted_to_a_smaller_one() -> None:
    bench = bench_of_eight_that_are_free_in_5_ms()
    for _ in range(6):
        bench.send()
    bench.run_ms(100)
    assert bench.meter.model("m0", "1").met_deadlines == 8 + 6


def test_when_devices_are_full_nothing_is_admitted_to_a_smaller_batch() -> None:
    bench = bench_of_eight_that_are_free_in_5_ms()
    bench.occupy()
    for _ in range(5):
        bench.send()
    with pytest.raises(ResourceExhaustedError):
        bench.send()


def test_correction_keeps_within_its_bounds_however_many_misses_come_at_once() -> None:
    caution = Caution()
    for _ in range(10):
        caution.missed(100_000)
    assert caution.factor == 16


def test_what_one_forecast_does_to_many_devices_corrects_it_once() -> None:
    one, many = Caution(), Caution()
    many.devices = 8
    one.missed(10)
    many.missed(80)
    assert many.factor == pytest.approx(one.factor)
    one.met(10)
    many.met(80)
    assert many.factor == pytest.approx(one.factor)


def test_a_full_batch_waits_for_nothing() -> None:
    bench = Bench(SLO_50)
    bench.occupy()
    for _ in range(8):
        bench.send()
    bench.run_ms(1)
    assert bench.starts() == [(0.0, 8)]


def test_a_batch_does_not_wait_for_requests_that_are_not_expected() -> None:
    bench = Bench(SLO_50)
    bench.occupy()
    assert bench.queues[0].batcher._slack is not None
    bench.queues[0].batcher._slack._gap_ns = 60.0 * MS
    bench.send()
    bench.run_ms(100)
    assert bench.starts() == [(0.0, 1)]


def test_the_stated_delay_still_bounds_the_wait() -> None:
    bench = Bench("dynamic_batching { max_queue_delay_microseconds: 3000 } erg { slo { p99_ms: 50 } }")
    bench.occupy()
    bench.send()
    bench.run_ms(100)
    assert bench.starts() == [(3.0, 1)]


def test_the_earliest_deadline_goes_first_whatever_came_first() -> None:
    bench = Bench("dynamic_batching { preferred_batch_size: 1 }")
    bench.workers[0].ready = False
    bench.send(name="none")
    bench.send(name="late", within_ms=150)
    bench.send(name="soon", within_ms=60)
    bench.workers[0].revive()
    bench.run_ms(500)
    assert [name for _, name, _ in bench.answers] == ["soon", "late", "none"]


def test_the_more_urgent_models_batch_takes_the_worker() -> None:
    bench = Bench(BATCHED + " erg { slo { p99_ms: 200 } }", SLO_50)
    bench.workers[0].ready = False
    bench.send(0, "patient")
    bench.run_ms(1)
    bench.send(1, "urgent")
    bench.run_ms(1)
    bench.workers[0].revive()
    bench.run_ms(500)
    assert [name for _, name, _ in bench.answers] == ["urgent", "patient"]


def test_a_request_that_comes_to_a_batch_that_waits_may_make_it_the_most_urgent_one() -> None:
    timed = "dynamic_batching { preferred_batch_size: 1 default_queue_policy { allow_timeout_override: true } }"
    bench = Bench(timed, BATCHED)
    bench.workers[0].ready = False
    bench.send(0, "patient", within_ms=200, timeout_us=45_000)
    bench.send(1, "between", within_ms=100)
    bench.run_ms(1)
    bench.send(0, "later", within_ms=300)
    bench.send(0, "urgent", within_ms=60)
    bench.run_ms(1)
    bench.workers[0].revive()
    bench.run_ms(500)
    assert [name for _, name, _ in bench.answers] == ["urgent", "between", "patient", "later"]


def test_a_request_that_comes_to_a_batch_that_waits_is_told_when_its_own_time_is_over() -> None:
    timed = "dynamic_batching { default_queue_policy { allow_timeout_override: true } }"
    bench = Bench(timed, BATCHED)
    bench.workers[0].ready = False
    bench.send(0, "first")
    bench.run_ms(1)
    bench.send(0, "brief", timeout_us=5_000)
    bench.send(0, "briefer", timeout_us=3_000)
    bench.run_ms(100)
    assert [(at_ns // MS, name) for at_ns, name, _ in bench.answers] == [(4, "briefer"), (6, "brief")]


def test_a_model_without_deadlines_is_not_starved_by_one_with() -> None:
    bench = Bench(SLO_50, BATCHED)
    bench.send(1, "plain")
    for _ in range(200):
        for _ in range(3):
            with contextlib.suppress(ResourceExhaustedError):
                bench.send(0)
        bench.run_ms(5)
    answered_ns = {name: at_ns for at_ns, name, _ in bench.answers}
    assert "plain" in answered_ns
    assert answered_ns["plain"] < 400 * MS


def test_what_cannot_be_in_time_alone_is_told_before_any_compute() -> None:
    bench = Bench(BATCHED)
    bench.send()
    bench.run_ms(1)
    with pytest.raises(DeadlineExceededError, match=r"takes about 11\.0 ms for this request, which has 5\.0 ms left"):
        bench.send(within_ms=5)
    bench.run_ms(100)
    assert len(bench.starts()) == 1
    assert bench.meter.model("m0", "1").refusals == {"deadline": 1}


def test_a_waiting_request_is_dropped_the_moment_it_cannot_be_in_time() -> None:
    bench = Bench(BATCHED)
    bench.workers[0].ready = False
    bench.send(name="late", within_ms=50)
    bench.run_ms(60)
    ((at_ns, name, answer),) = bench.answers
    assert (name, round(at_ns / MS)) == ("late", 50 - 11)
    assert isinstance(answer, DeadlineExceededError)
    assert bench.meter.model("m0", "1").dropped == 1


def test_what_the_queue_makes_late_is_refused_with_when_to_come_back() -> None:
    bench = Bench(SLO_50)
    for _ in range(40):
        try:
            bench.send()
        except ResourceExhaustedError:
            break
    with pytest.raises(ResourceExhaustedError, match=r"would start this request in about \d+\.\d ms") as raised:
        bench.send()
    ((key, retry_ms),) = raised.value.trailers
    assert key == "grpc-retry-pushback-ms"
    assert 1 <= int(retry_ms) <= 50
    assert bench.meter.model("m0", "1").refusals["predicted_late"] == 2
    bench.run_ms(1000)
    assert all(isinstance(answer, InferenceResponse) for *_, answer in bench.answers), "who was admitted is served"


def test_a_model_that_was_slow_once_is_measured_again() -> None:
    bench = Bench(BATCHED, known=False)
    bench.queues[0].latency.observe(None, 1, 10_000 * MS)
    bench.run_ms(REMEASURE_NS / MS)
    bench.send(within_ms=50)
    with pytest.raises(DeadlineExceededError):
        bench.send(within_ms=50)
    bench.run_ms(100)
    assert len(bench.starts()) == 1


def test_an_unknown_model_refuses_nothing() -> None:
    bench = Bench(SLO_50, known=False)
    for _ in range(30):
        bench.send()
    assert not bench.meter.model("m0", "1").refusals


def test_no_batch_grows_past_the_size_that_pays() -> None:
    bench = Bench("dynamic_batching { } erg { slo { p99_ms: 500 } }", known=False)
    means = {1: 10.0 * MS, 4: 20.0 * MS, 8: 80.0 * MS}
    bench.queues[0].latency.restore({None: CurveSnapshot(means_ns=means, spread=1.0)})
    for _ in range(8):
        bench.send()
    bench.run_ms(1000)
    assert [rows for _, rows in bench.starts()] == [4, 4]


def test_a_batch_is_cut_so_that_its_first_request_is_in_time() -> None:
    bench = Bench(BATCHED)
    bench.workers[0].ready = False
    for _ in range(8):
        bench.send(within_ms=30)
    bench.run_ms(14)
    bench.workers[0].revive()
    bench.run_ms(100)
    assert bench.starts()[0] == (14.0, 4), "ten milliseconds and one for each row, in sixteen less the margin"


def test_a_worker_that_comes_later_takes_its_share() -> None:
    bench = Bench(BATCHED)
    second = SimulatedWorker("late", bench.timers, bench.duration_ns)
    second.available = bench.scheduler.worker_available
    bench.workers.append(second)
    bench.scheduler.add_worker(second)
    for _ in range(8):
        bench.send()
    bench.run_ms(1)
    assert [len(bench.starts(number)) for number in (0, 1)] == [1, 1]


def test_a_model_runs_only_where_it_is_loaded() -> None:
    bench = Bench(BATCHED, BATCHED, workers=2)
    bench.workers[0].models, bench.workers[1].models = {2}, {1}
    for worker in bench.workers:
        worker.changed()
    for _ in range(3):
        bench.send(0)
        bench.send(1)
    bench.run_ms(500)
    assert len(bench.answers) == 6
    assert all(isinstance(answer, InferenceResponse) for *_, answer in bench.answers)
