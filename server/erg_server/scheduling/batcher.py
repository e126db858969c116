"""When a batch may go and which requests are in it. Sans-I/O: `poll(now_ns)` answers Ready, WaitUntil or Idle."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from erg_server.repository.spec import BatchingPolicy, ModelSpec, PaddingRule
from erg_server.scheduling.bucket_heads import BucketHeads
from erg_server.scheduling.poll_outcome import IDLE, Idle, Ready, Release, WaitUntil
from erg_server.scheduling.request_queue import AGEING_NS, Bucket, QueuedRequest, RequestQueue, RequestState
from erg_server.scheduling.slack import SlackPolicy

_RUNNING: Final = RequestState.RUNNING


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What bounds a batch besides its rows: input bytes (a slab slot) and padded elements (0 for no bound)."""

    max_rows: int
    max_bytes: int
    max_padded_elements: int = 0
    bucket_step: int = 0

    @classmethod
    def of(cls, spec: ModelSpec, max_bytes: int) -> BatchLimits:
        """The limits that a model's configuration states, and what its version was measured to be best with."""
        rule: PaddingRule | None = spec.padding
        batches = spec.batching is not None and spec.max_batch_size > 1
        return cls(
            max_rows=min(spec.max_batch_size, spec.batch_limit or spec.max_batch_size) if batches else 1,
            max_bytes=max_bytes,
            max_padded_elements=0 if rule is None else rule.max_batch_elements,
            bucket_step=0 if rule is None else rule.bucket_step,
        )


class DynamicBatcher:
    """Forms batches from one model's queue as its policy allows. Owns the queue.

    With a `slack` policy, which a model with an objective has, batches wait for it, and for no longer than `policy`
    says; every request then has a deadline.
    """

    def __init__(self, policy: BatchingPolicy | None, limits: BatchLimits, slack: SlackPolicy | None = None) -> None:
        self.queue = RequestQueue()
        self.limits = limits
        self.flushing = False
        self._slack = slack
        self._batches = policy is not None and limits.max_rows > 1
        self._delay_ns = policy.max_queue_delay_us * 1000 if policy is not None and self._batches else 0
        self._preferred = tuple(sorted(policy.preferred_batch_sizes)) if policy is not None and self._batches else ()
        # What fills a batch, unless padding allows fewer rows. A preferred size lets a batch go at once; with no delay
        # to skip it makes no difference.
        first = self._preferred[0] if self._preferred and self._delay_ns else limits.max_rows
        self._full_rows_at_most = min(first, limits.max_rows)
        # By when they were queued, or with slack by when they are due: a batch that grows is due a little earlier than
        # it says, which shifts the order of shapes only.
        self._heads = BucketHeads(self.queue)
        self._full: dict[int, dict[Hashable, None]] = {}

    def offer(self, entry: QueuedRequest) -> None:
        """Queue a request that was admitted; `entry.phases.queued_ns` is its age's origin."""
        bucket = self.queue.push(entry)
        if self._slack is not None:
            self._slack.arrived(entry.phases.queued_ns)
        if len(bucket.entries) == 1:
            self._push_head(bucket)
        self._track_fullness(bucket)

    def waited(self, wait_ns: int) -> None:
        """A worker took a batch so long after it could go."""
        if self._slack is not None:
            self._slack.waited(wait_ns)

    def cancel(self, entry: QueuedRequest) -> bool:
        """Take a waiting request out; False if it is not waiting any more."""
        if entry.state is not RequestState.QUEUED:
            return False
        self.queue.remove(entry)
        entry.state = RequestState.FINISHED
        self._retrack(entry.level, entry.key)
        return True

    def expire(self, now_ns: int) -> list[QueuedRequest]:
        """Requests whose time is over, taken out; delayable ones now wait behind all others."""
        if (due := self.queue.next_expiry_ns()) is None or due > now_ns:
            return []
        expired = self.queue.pop_expired(now_ns)
        for entry in expired:
            entry.state = RequestState.FINISHED
        self._rebuild()
        return expired

    def poll(self, now_ns: int, *, spare: bool = False, early_ns: int = 0) -> Ready | WaitUntil | Idle:
        """What may happen now. Levels go strictly in order; within one, full batches first, then the oldest head.

        `spare` says that devices have time to spare, so that batches need not be large and none waits for slack;
        `early_ns` how long before it is due a batch goes, because otherwise devices would be short of time then.
        """
        if not self.queue:
            return IDLE
        if self.queue.unsorted:
            self._sort()
        wait_until_ns: int | None = None
        for level in self.queue.level_numbers():
            ready = self._poll_level(level, now_ns, spare, early_ns)
            if isinstance(ready, Ready):
                return ready
            if wait_until_ns is None or ready.at_ns < wait_until_ns:
                wait_until_ns = ready.at_ns
        assert wait_until_ns is not None
        return WaitUntil(wait_until_ns)

    def take(self, ready: Ready, rows: int) -> list[QueuedRequest]:
        """Take the batch: oldest first at the level polled, filled up from less urgent levels of the same key.

        Never empty: one request always goes, whatever `rows` says, for admission refused those that fit no batch.
        """
        taken: list[QueuedRequest] = []
        total_rows = total_bytes = longest = 0
        levels = self.queue.level_numbers()
        for level in levels[levels.index(ready.level) :]:
            bucket = self.queue.bucket(level, ready.key)
            if bucket is None:
                continue
            before, ended = len(taken), False
            for entry in bucket.entries.values():
                length = max(longest, entry.length)
                if taken and not self._fits(total_rows + entry.rows, total_bytes + entry.nbytes, length, rows):
                    ended = True
                    break
                entry.state = _RUNNING
                taken.append(entry)
                total_rows += entry.rows
                total_bytes += entry.nbytes
                longest = length
                if total_rows >= rows:
                    ended = True
                    break
            self.queue.remove_oldest(bucket, len(taken) - before)
            self._retrack(level, ready.key)
            if ended:
                break
        return taken

    def first(self, ready: Ready, count: int) -> list[QueuedRequest]:
        """The first requests of a batch that may go, in the order in which `take` takes them."""
        bucket = self.queue.bucket(ready.level, ready.key)
        return [] if bucket is None else list(islice(bucket.entries.values(), count))

    def drop(self, entries: Sequence[QueuedRequest]) -> None:
        """Take out waiting requests that are given up."""
        for entry in entries:
            self.queue.remove(entry)
            entry.state = RequestState.FINISHED
        if entries:
            self._retrack(entries[0].level, entries[0].key)

    def drain(self) -> list[QueuedRequest]:
        """Take out every waiting request, when the model goes away without serving them."""
        entries = self.queue.drain()
        for entry in entries:
            entry.state = RequestState.FINISHED
        self._heads.clear()
        self._full.clear()
        return entries

    def row_limit(self, bucket_length: int) -> int:
        """Most rows of a batch whose longest row is `bucket_length` long."""
        limits = self.limits
        if limits.max_padded_elements and bucket_length:
            return max(1, min(limits.max_rows, limits.max_padded_elements // bucket_length))
        return limits.max_rows

    def _poll_level(self, level: int, now_ns: int, spare: bool, early_ns: int) -> Ready | WaitUntil:
        full = self._full.get(level)
        if full:
            key = next(iter(full))
            bucket = self.queue.bucket(level, key)
            assert bucket is not None
            return self._ready(bucket, Release.FULL)
        oldest = self._heads.first(level)
        head_ns = oldest.head.phases.queued_ns
        if self.flushing:
            return self._ready(oldest, Release.FLUSH)
        if not self._batches:
            return self._ready(oldest, Release.SINGLE)
        if self._slack is not None:
            return self._poll_slack(oldest, head_ns, now_ns, spare, early_ns)
        return self._poll_delay(oldest, head_ns, now_ns)

    def _poll_delay(self, bucket: Bucket, head_ns: int, now_ns: int) -> Ready | WaitUntil:
        if not self._delay_ns:
            return self._ready(bucket, Release.IDLE)
        if head_ns + self._delay_ns <= now_ns:
            return self._ready(bucket, Release.DELAY)
        return WaitUntil(head_ns + self._delay_ns)

    def _poll_slack(self, bucket: Bucket, head_ns: int, now_ns: int, spare: bool, early_ns: int) -> Ready | WaitUntil:
        assert self._slack is not None
        due_ns = self._due_ns(bucket)
        if self._delay_ns and head_ns + self._delay_ns < due_ns:
            if head_ns + self._delay_ns <= now_ns:
                return self._ready(bucket, Release.DELAY)
            due_ns = head_ns + self._delay_ns
        if due_ns <= now_ns:
            return self._ready(bucket, Release.SLACK)
        if spare or due_ns - early_ns <= now_ns or not self._slack.pays(due_ns, now_ns):
            return self._ready(bucket, Release.IDLE)
        return WaitUntil(due_ns)

    def _due_ns(self, bucket: Bucket) -> int:
        assert self._slack is not None
        deadline = bucket.head.deadline
        assert deadline is not None
        return self._slack.due_ns(deadline.at_ns, bucket.key, bucket.rows, self._most_rows(bucket))

    def _most_rows(self, bucket: Bucket) -> int:
        """Most rows of a batch from this bucket: what fits, and with an objective what pays."""
        limits = self.limits
        limit = limits.max_rows
        if limits.max_padded_elements:
            limit = self.row_limit(self._ceiling(bucket.head.length))
        return limit if self._slack is None else self._slack.limit(bucket.key, limit)

    def _ready(self, bucket: Bucket, reason: Release) -> Ready:
        head = bucket.head
        limit = self._most_rows(bucket)
        if reason in (Release.FULL, Release.IDLE):
            fitting = [size for size in self._preferred if size <= min(bucket.rows, limit)]
            if fitting and bucket.rows < limit:
                limit, reason = fitting[-1], Release.PREFERRED
        urgent_ns, deadline = head.phases.queued_ns + AGEING_NS, head.deadline
        deadline_ns: int | None = None
        if deadline is not None:
            urgent_ns, deadline_ns = min(urgent_ns, deadline.rank_ns), deadline.at_ns
        return Ready(
            bucket.level,
            bucket.key,
            waiting_rows=bucket.rows,
            limit_rows=limit,
            urgent_ns=urgent_ns,
            reason=reason,
            deadline_ns=deadline_ns,
        )

    def _fits(self, rows: int, nbytes: int, longest: int, wanted_rows: int) -> bool:
        limits = self.limits
        if rows > wanted_rows or nbytes > limits.max_bytes:
            return False
        return not limits.max_padded_elements or rows * longest <= limits.max_padded_elements

    def _ceiling(self, length: int) -> int:
        step = self.limits.bucket_step
        return length if step <= 1 else -(-length // step) * step

    def _track_fullness(self, bucket: Bucket) -> None:
        if self._batches and bucket.rows >= self._full_rows(bucket):
            self._full.setdefault(bucket.level, {})[bucket.key] = None

    def _push_head(self, bucket: Bucket) -> None:
        self._heads.push(bucket, bucket.head.phases.queued_ns if self._slack is None else self._due_ns(bucket))

    def _full_rows(self, bucket: Bucket) -> int:
        return min(self._most_rows(bucket), self._full_rows_at_most)

    def _retrack(self, level: int, key: Hashable) -> None:
        """Restate a bucket's head and fullness after requests left it."""
        bucket = self.queue.bucket(level, key)
        full = self._full.get(level)
        if bucket is None:
            if full is not None:
                full.pop(key, None)
                if not full:
                    del self._full[level]
            if self.queue.level_size(level) == 0:
                self._heads.forget(level)
            return
        self._push_head(bucket)
        if full is not None and bucket.rows < self._full_rows(bucket):
            full.pop(key, None)
            if not full:
                del self._full[level]

    def _sort(self) -> None:
        """Put the earliest deadlines first where requests came in another order."""
        for bucket in self.queue.unsorted.values():
            if bucket.entries:
                bucket.sort()
                self._push_head(bucket)
        self.queue.unsorted.clear()

    def _rebuild(self) -> None:
        self._heads.clear()
        self._full.clear()
        for level in self.queue.levels():
            for bucket in level.values():
                self._retrack(bucket.level, bucket.key)
                self._track_fullness(bucket)
