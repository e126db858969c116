from __future__ import annotations

import dataclasses

import pytest
from erg_server.repository.spec import BatchingPolicy
from erg_server.request import InferenceRequest, Phases
from erg_server.scheduling.batcher import BatchLimits, DynamicBatcher
from erg_server.scheduling.poll_outcome import Idle, Ready, Release, WaitUntil
from erg_server.scheduling.request_queue import QueuedRequest, RequestQueue
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.server.scheduling.builders import ECHO, batching_policy, model_spec

MS = 1_000_000


def batcher(policy: BatchingPolicy | None, max_rows: int = 8, **limits: int) -> DynamicBatcher:
    return DynamicBatcher(policy, BatchLimits(max_rows=max_rows, max_bytes=1 << 20, **limits))


def entry(
    now_ns: int = 0,
    *,
    rows: int = 1,
    key: object = None,
    level: int = 1,
    length: int = 0,
    nbytes: int = 4,
    expires_ns: int | None = None,
    delayable: bool = False,
    name: str = "",
) -> QueuedRequest:
    request = InferenceRequest(model_name="m", inputs=[], arrival_ns=now_ns, id=name)
    return QueuedRequest(
        request=request,
        rows=rows,
        key=key,
        length=length,
        level=level,
        nbytes=nbytes,
        expires_ns=expires_ns,
        delayable=delayable,
        on_done=lambda _: None,
        phases=Phases(arrival_ns=now_ns, queued_ns=now_ns),
    )


def ready(outcome: object) -> Ready:
    assert isinstance(outcome, Ready), outcome
    return outcome


def test_an_empty_queue_is_idle() -> None:
    assert isinstance(batcher(batching_policy()).poll(0), Idle)


def test_without_a_delay_whatever_waits_may_go_at_once() -> None:
    subject = batcher(batching_policy())
    for _ in range(3):
        subject.offer(entry())
    outcome = ready(subject.poll(0))
    assert (outcome.waiting_rows, outcome.limit_rows, outcome.reason) == (3, 8, Release.IDLE)
    assert len(subject.take(outcome, 8)) == 3
    assert isinstance(subject.poll(0), Idle)


def test_a_model_without_dynamic_batching_takes_one_request_at_a_time() -> None:
    subject = batcher(None, max_rows=1)
    subject.offer(entry())
    subject.offer(entry())
    outcome = ready(subject.poll(0))
    assert outcome.reason is Release.SINGLE
    assert len(subject.take(outcome, outcome.limit_rows)) == 1


def test_a_partial_batch_waits_for_the_delay_of_its_oldest_request() -> None:
    subject = batcher(batching_policy(max_queue_delay_us=2000))
    subject.offer(entry(1 * MS))
    subject.offer(entry(2 * MS))
    assert subject.poll(2 * MS) == WaitUntil(3 * MS)
    assert ready(subject.poll(3 * MS)).reason is Release.DELAY


def test_a_full_batch_goes_before_its_delay_and_before_an_older_partial_one() -> None:
    subject = batcher(batching_policy(max_queue_delay_us=2000), max_rows=2)
    subject.offer(entry(0, key="old"))
    subject.offer(entry(1, key="full"))
    subject.offer(entry(2, key="full"))
    outcome = ready(subject.poll(3))
    assert (outcome.key, outcome.reason) == ("full", Release.FULL)
    subject.take(outcome, 2)
    assert subject.poll(3) == WaitUntil(2 * MS)


def test_a_preferred_size_goes_before_the_delay() -> None:
    subject = batcher(batching_policy(preferred_batch_sizes=(4,), max_queue_delay_us=2000))
    for _ in range(5):
        subject.offer(entry())
    outcome = ready(subject.poll(0))
    assert (outcome.limit_rows, outcome.reason) == (4, Release.PREFERRED)
    assert len(subject.take(outcome, outcome.limit_rows)) == 4
    assert subject.poll(0) == WaitUntil(2 * MS)


def test_a_draining_version_does_not_wait_for_its_delay() -> None:
    subject = batcher(batching_policy(max_queue_delay_us=2000))
    subject.offer(entry())
    subject.flushing = True
    assert ready(subject.poll(0)).reason is Release.FLUSH


def test_different_shapes_never_share_a_batch() -> None:
    subject = batcher(batching_policy())
    subject.offer(entry(0, key="a", name="1"))
    subject.offer(entry(1, key="b", name="2"))
    subject.offer(entry(2, key="a", name="3"))
    taken = subject.take(ready(subject.poll(2)), 8)
    assert [item.request.id for item in taken] == ["1", "3"]
    assert [item.request.id for item in subject.take(ready(subject.poll(2)), 8)] == ["2"]


def test_urgent_levels_go_first_and_are_filled_up_from_the_others() -> None:
    subject = batcher(batching_policy(priority_levels=2, default_priority=2))
    subject.offer(entry(0, level=2, name="late"))
    subject.offer(entry(1, level=1, name="urgent"))
    taken = subject.take(ready(subject.poll(1)), 8)
    assert [item.request.id for item in taken] == ["urgent", "late"]


def test_a_cancelled_request_never_leaves_in_a_batch() -> None:
    subject = batcher(batching_policy())
    first, second = entry(0, name="1"), entry(1, name="2")
    subject.offer(first)
    subject.offer(second)
    assert subject.cancel(first)
    assert not subject.cancel(first)
    assert subject.take(ready(subject.poll(1)), 8) == [second]
    assert not subject.cancel(second)


def test_an_expired_request_is_taken_out_and_told() -> None:
    subject = batcher(batching_policy(max_queue_delay_us=10_000))
    lost = entry(0, expires_ns=5 * MS)
    subject.offer(lost)
    subject.offer(entry(0))
    assert subject.expire(4 * MS) == []
    assert subject.expire(5 * MS) == [lost]
    assert len(subject.queue) == 1


def test_a_delayable_request_falls_behind_every_level_when_its_timeout_is_over() -> None:
    subject = batcher(batching_policy(priority_levels=2, default_priority=2))
    subject.offer(entry(0, level=1, expires_ns=5, delayable=True, name="slow", key="a"))
    assert subject.expire(5) == []
    subject.offer(entry(6, level=2, name="fresh", key="b"))
    assert subject.take(ready(subject.poll(6)), 8)[0].request.id == "fresh"
    assert subject.take(ready(subject.poll(6)), 8)[0].request.id == "slow"


def test_a_token_budget_limits_rows_by_the_longest_of_them() -> None:
    subject = batcher(batching_policy(), max_rows=32, max_padded_elements=64, bucket_step=16)
    for _ in range(8):
        subject.offer(entry(length=16, key=1))
    outcome = ready(subject.poll(0))
    assert outcome.limit_rows == 4
    assert outcome.reason is Release.FULL
    assert len(subject.take(outcome, outcome.limit_rows)) == 4


def test_a_batch_fits_the_slab_slot() -> None:
    subject = DynamicBatcher(batching_policy(), BatchLimits(max_rows=8, max_bytes=100))
    for _ in range(3):
        subject.offer(entry(nbytes=60))
    assert len(subject.take(ready(subject.poll(0)), 8)) == 1


def test_a_request_of_several_rows_is_never_split() -> None:
    subject = batcher(batching_policy())
    subject.offer(entry(rows=5))
    subject.offer(entry(rows=5))
    assert [item.rows for item in subject.take(ready(subject.poll(0)), 8)] == [5]


def test_a_measured_batch_limit_caps_what_is_joined_and_no_request() -> None:
    spec = dataclasses.replace(model_spec(ECHO + "dynamic_batching { }"), batch_limit=2)
    limits = BatchLimits.of(spec, 1 << 20)
    assert limits.max_rows == 2
    capped = DynamicBatcher(spec.batching, limits)
    for rows in (5, 1, 1, 1):
        capped.offer(entry(rows=rows))
    sizes = []
    while isinstance(batch := capped.poll(0), Ready):
        sizes.append(sum(taken.rows for taken in capped.take(batch, batch.limit_rows)))
    assert sizes == [5, 2, 1]
    generous = BatchLimits.of(dataclasses.replace(spec, batch_limit=100), 1 << 20)
    assert generous.max_rows == spec.max_batch_size


def test_heads_of_cancelled_requests_do_not_pile_up_while_another_waits() -> None:
    subject = batcher(batching_policy(max_queue_delay_us=1_000_000))
    subject.offer(entry(0, key="stays"))
    for number in range(5000):
        passing = entry(number, key="passes", expires_ns=10**12)
        subject.offer(passing)
        subject.cancel(passing)
    assert len(subject._heads._heads[1]) < 200
    assert len(subject.queue._expiries) < 200


@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc"), st.integers(1, 3)), max_size=60), st.integers(1, 8)
)
def test_every_request_leaves_once_in_order_of_its_key_and_level(
    offers: list[tuple[int, str, int]], max_rows: int
) -> None:
    subject = batcher(batching_policy(priority_levels=3, default_priority=1), max_rows=max(max_rows, 4))
    offered = []
    for now_ns, (rows, key, level) in enumerate(offers):
        item = entry(now_ns, rows=rows, key=key, level=level)
        offered.append(item)
        subject.offer(item)
    left: list[QueuedRequest] = []
    while isinstance(outcome := subject.poll(len(offers)), Ready):
        batch = subject.take(outcome, outcome.limit_rows)
        assert batch
        assert len({item.key for item in batch}) == 1
        assert sum(item.rows for item in batch) <= max(max_rows, 4)
        left += batch
    assert sorted(map(id, left)) == sorted(map(id, offered))
    for key in "abc":
        for level in (1, 2, 3):
            ages = [item.phases.queued_ns for item in left if item.key == key and item.level == level]
            assert ages == sorted(ages)


class BatcherMachine(RuleBasedStateMachine):
    """Any order of offers, cancellations, expiries and batches keeps the counts true."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.subject = batcher(batching_policy(max_queue_delay_us=1, preferred_batch_sizes=(2, 4)), max_rows=4)
        self.waiting: list[QueuedRequest] = []

    @rule(
        rows=st.integers(1, 4),
        key=st.sampled_from("ab"),
        ttl=st.one_of(st.none(), st.integers(1, 5000)),
        late=st.booleans(),
    )
    def offer(self, rows: int, key: str, ttl: int | None, late: bool) -> None:
        item = entry(
            self.now_ns, rows=rows, key=key, expires_ns=None if ttl is None else self.now_ns + ttl, delayable=late
        )
        self.subject.offer(item)
        self.waiting.append(item)

    @rule(index=st.integers(0, 50))
    def cancel(self, index: int) -> None:
        if index < len(self.waiting):
            assert self.subject.cancel(self.waiting.pop(index))

    @rule(delta=st.integers(0, 3000))
    def advance(self, delta: int) -> None:
        self.now_ns += delta
        for item in self.subject.expire(self.now_ns):
            self.waiting.remove(item)

    @rule()
    def take(self) -> None:
        outcome = self.subject.poll(self.now_ns)
        if isinstance(outcome, Ready):
            for item in self.subject.take(outcome, outcome.limit_rows):
                self.waiting.remove(item)
        else:
            assert isinstance(outcome, WaitUntil if self.waiting else Idle)

    @invariant()
    def counts_are_true(self) -> None:
        assert len(self.subject.queue) == len(self.waiting)
        assert self.subject.queue.rows == sum(item.rows for item in self.waiting)
        assert self.subject.queue.nbytes == sum(item.nbytes for item in self.waiting)


TestBatcherMachine = BatcherMachine.TestCase


def test_levels_beyond_the_models_are_refused_by_name() -> None:
    from erg_server.errors import InvalidArgumentError
    from erg_server.scheduling.admission import QueueLimits, admit
    from erg_server.scheduling.request_queue import RequestQueue

    request = InferenceRequest(model_name="m", inputs=[], arrival_ns=0, priority=3)
    policy = batching_policy(priority_levels=2, default_priority=1)
    with pytest.raises(InvalidArgumentError, match=r"priority 3 .* 1 \(most urgent\) to 2"):
        admit(request, nbytes=0, queue=RequestQueue(), policy=policy, limits=QueueLimits(), now_ns=0)


def test_what_left_the_queue_is_not_kept_until_its_deadline() -> None:
    queue = RequestQueue()
    cancelled, taken, waiting = (entry(expires_ns=expires_ns) for expires_ns in (5, 6, 7))
    for each in (cancelled, taken, waiting):
        bucket = queue.push(each)
    queue.remove(cancelled)
    queue.remove_oldest(bucket, 1)
    assert [each in queue._expiring.values() for each in (cancelled, taken, waiting)] == [False, False, True]
    assert queue.next_expiry_ns() == 7
