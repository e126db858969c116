"""What a batch was for, and that the scheduler tells the log of every batch, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from erg_server.clock import ManualClock
from erg_server.energy.batch_log import BatchLog, BatchRecord
from erg_server.errors import ErgError
from erg_server.request import InferenceRequest, InferenceResponse, Phases
from erg_server.scheduling.batch_shares import shares_of
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.request_queue import Deadline, QueuedRequest
from erg_server.scheduling.scheduler import Scheduler
from erg_server.simulation.device import SimulatedWorker
from erg_server.simulation.virtual_time import VirtualTimers
from erg_server.telemetry.meter import Meter
from erg_server.tensor import Tensor

from tests.server.scheduling.builders import ECHO, model_spec

MS = 1_000_000


def entry(
    rows: int = 1,
    *,
    tenant: str = "",
    length: int = 0,
    completed_ns: int = 100,
    deadline_ns: int | None = None,
    cancelled: bool = False,
    warmup: bool = False,
) -> QueuedRequest:
    request = InferenceRequest(model_name="m", inputs=[], arrival_ns=0, tenant=tenant, warmup=warmup)
    made = QueuedRequest(
        request=request,
        rows=rows,
        key=None,
        length=length,
        on_done=lambda _: None,
        phases=Phases(completed_ns=completed_ns),
    )
    made.deadline = None if deadline_ns is None else Deadline(deadline_ns, deadline_ns)
    made.cancelled = cancelled
    return made


def test_rows_of_one_kind_and_tenant_are_one_share() -> None:
    assert shares_of([entry(2), entry(3)], 0) == [("inference", "", 5, 5)]


def test_tenants_and_kinds_are_apart_whatever_their_order() -> None:
    entries = [entry(2), entry(1, tenant="acme"), entry(4), entry(3, tenant="acme", deadline_ns=99)]
    assert shares_of(entries, 0) == [("inference", "", 6, 6), ("inference", "acme", 1, 1), ("late", "acme", 3, 3)]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "inference"),
        ({"deadline_ns": 100}, "inference"),
        ({"deadline_ns": 99}, "late"),
        ({"deadline_ns": 99, "cancelled": True}, "cancelled"),
        ({"cancelled": True, "completed_ns": 0}, "failed"),
        ({"warmup": True, "completed_ns": 0}, "warmup"),
        ({"warmup": True}, "warmup"),
    ],
)
def test_each_request_is_of_the_kind_that_it_turned_out_to_be(changes: dict[str, Any], kind: str) -> None:
    assert shares_of([entry(1, **changes)], 0) == [(kind, "", 1, 1)]


def test_where_rows_are_padded_they_weigh_by_their_own_length_and_padding_is_nobodys() -> None:
    entries = [entry(2, length=10, tenant="acme"), entry(1, length=40)]
    assert shares_of(entries, 60) == [("inference", "acme", 20, 2), ("inference", "", 40, 1), ("padding", "", 60, 0)]


def test_the_padding_of_warm_up_and_of_failures_is_wasted_with_them() -> None:
    assert shares_of([entry(1, length=10, warmup=True), entry(1, length=30, warmup=True)], 20) == [
        ("warmup", "", 60, 2)
    ]
    failed = [entry(1, length=10, completed_ns=0), entry(1, length=30, completed_ns=0)]
    assert shares_of(failed, 20) == [("failed", "", 60, 2)]


class Logged:
    """A scheduler with a log, on one simulated worker whose batches take 10 ms."""

    def __init__(self) -> None:
        self.clock = ManualClock(1000)
        self.timers = VirtualTimers(self.clock)
        self.log = BatchLog()
        self.scheduler = Scheduler(clock=self.clock, timers=self.timers, batch_log=self.log)
        self.worker = SimulatedWorker("cpu0", self.timers, lambda *_: 10 * MS)
        self.worker.available = self.scheduler.worker_available
        self.scheduler.add_worker(self.worker)
        self.queue = self.scheduler.open(handle=1, spec=model_spec(ECHO), version="3", meter=Meter().model("echo", "3"))

    def send(
        self, on_done: Callable[[InferenceResponse | ErgError], None] = lambda _: None, **changes: Any
    ) -> QueuedRequest:
        tensor = Tensor.from_numpy("x", np.zeros((1, 1), np.int32))
        request = InferenceRequest(model_name="echo", inputs=[tensor], arrival_ns=self.clock.now_ns(), **changes)
        key, _ = self.queue.layout.describe(request.inputs)
        sent = QueuedRequest(
            request=request, rows=1, key=key, on_done=on_done, phases=Phases(arrival_ns=request.arrival_ns)
        )
        self.scheduler.enqueue(self.queue, sent)
        return sent

    def only(self) -> BatchRecord:
        (record,) = self.log.take(self.clock.now_ns())
        return record


def test_a_batch_is_out_until_it_ends_and_its_times_are_the_workers() -> None:
    logged = Logged()
    logged.send()
    logged.timers.settle()
    assert logged.log.held_since("cpu0") == 1000
    logged.timers.run(1000 + 20 * MS)
    record = logged.only()
    assert (record.device, record.model, record.version) == ("cpu0", "echo", "3")
    assert (record.start_ns, record.end_ns) == (1000, 1000 + 10 * MS)
    assert record.shares == [("inference", "", 1, 1)]
    assert logged.log.held_since("cpu0") is None


def test_a_request_that_is_cancelled_while_it_runs_is_noted_and_one_that_waits_runs_never() -> None:
    logged = Logged()
    running = logged.send()
    logged.timers.settle()
    logged.scheduler.cancel(logged.queue, running)
    waiting = logged.send()
    logged.scheduler.cancel(logged.queue, waiting)
    logged.timers.run(1000 + 50 * MS)
    assert logged.only().shares == [("cancelled", "", 1, 1)]


def test_what_a_dead_worker_held_has_failed_since_it_was_handed_over() -> None:
    logged = Logged()
    logged.send()
    logged.timers.settle()
    logged.clock.advance(4 * MS)
    logged.worker.kill()
    record = logged.only()
    assert record.shares == [("failed", "", 1, 1)]
    assert (record.start_ns, record.end_ns) == (1000, 1000 + 4 * MS)
    assert logged.log.held_since("cpu0") is None


def test_a_caller_whose_answer_raises_does_not_keep_the_batch_from_the_log() -> None:
    logged = Logged()

    def fails(_: InferenceResponse | ErgError) -> None:
        raise RuntimeError

    logged.send(fails)
    with pytest.raises(RuntimeError):
        logged.timers.run(1000 + 20 * MS)
    assert logged.only().shares == [("inference", "", 1, 1)]


@pytest.mark.parametrize(
    ("changes", "share"),
    [({"tenant": "acme"}, ("inference", "acme", 1, 1)), ({"warmup": True}, ("warmup", "", 1, 1))],
)
def test_a_request_that_is_not_like_most_is_told_apart(
    changes: dict[str, Any], share: tuple[str, str, int, int]
) -> None:
    logged = Logged()
    logged.send(**changes)
    logged.timers.run(1000 + 20 * MS)
    assert logged.only().shares == [share]


def test_an_answer_after_its_deadline_was_late() -> None:
    logged = Logged()
    logged.worker.duration_ns = lambda *_: 30 * MS
    logged.send(deadline_ns=1000 + 15 * MS)
    logged.timers.run(1000 + 50 * MS)
    assert logged.only().shares == [("late", "", 1, 1)]


def test_a_workers_first_batch_of_a_size_teaches_nothing() -> None:
    # It is often a compilation, and a size that looks dear is not formed again.
    logged = Logged()
    logged.queue.latency.restore({None: CurveSnapshot(means_ns={1: 10 * MS})})
    for duration_ms, predicted_ms in ((90, 10), (60, 20)):
        logged.worker.duration_ns = lambda *_, ns=duration_ms * MS: ns
        logged.send()
        logged.timers.run(logged.clock.now_ns() + 200 * MS)
        assert logged.queue.latency.predict_ns(None, 1) == predicted_ms * MS
