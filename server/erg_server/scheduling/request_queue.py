"""The requests of one model that wait for a worker: FIFO by priority level and by the shape they may share."""

from __future__ import annotations

import enum
import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final

from erg_server.errors import ErgError
from erg_server.request import InferenceRequest, InferenceResponse, Phases


class RequestState(enum.Enum):
    """Where a request is; it moves down this list and never back."""

    NEW = enum.auto()
    QUEUED = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


AGEING_NS: Final = 250_000_000
"""How long a request is overtaken by more urgent ones, of its own model or another: after that its age counts more."""


@dataclass(slots=True, init=False, eq=False)
class Deadline:
    """When a request must be answered, `rank_ns` by which it is ordered, and the device time it adds to the queue."""

    at_ns: int
    rank_ns: int
    work_ns: int

    def __init__(self, at_ns: int, rank_ns: int, work_ns: int = 0) -> None:
        self.at_ns = at_ns
        self.rank_ns = rank_ns
        self.work_ns = work_ns


@dataclass(slots=True, init=False, eq=False)
class QueuedRequest:
    """A request on its way through the scheduler, which is the only one to change it.

    `key` says what it may share a batch with; `length` is its size along the padded axis, 0 without a padding rule.
    `expires_ns` is when it is no longer worth running: `delayable` requests then only lose their place. `cancelled`
    says that the caller went away while it ran.
    """

    request: InferenceRequest
    rows: int
    key: Hashable
    on_done: Callable[[InferenceResponse | ErgError], None]
    phases: Phases
    length: int
    level: int
    nbytes: int
    expires_ns: int | None
    delayable: bool
    state: RequestState
    sequence: int
    deadline: Deadline | None
    cancelled: bool

    def __init__(
        self,
        *,
        request: InferenceRequest,
        rows: int,
        key: Hashable,
        on_done: Callable[[InferenceResponse | ErgError], None],
        phases: Phases,
        length: int = 0,
        level: int = 1,
        nbytes: int = 0,
        expires_ns: int | None = None,
        delayable: bool = False,
    ) -> None:
        self.request = request
        self.rows = rows
        self.key = key
        self.on_done = on_done
        self.phases = phases
        self.length = length
        self.level = level
        self.nbytes = nbytes
        self.expires_ns = expires_ns
        self.delayable = delayable
        self.state = RequestState.NEW
        self.sequence = 0
        self.deadline = None
        self.cancelled = False

    @property
    def rank_ns(self) -> int:
        """Earlier goes first within a bucket. Without a deadline it is the age, so ranks come in order of arrival."""
        return self.phases.queued_ns + AGEING_NS if self.deadline is None else self.deadline.rank_ns


DELAYED_LEVEL: Final = 1 << 62
"""Requests that outlived a DELAY policy's timeout wait behind every other level."""


class Bucket:
    """Requests of one level and one key, oldest first; those with a deadline by that, once `sort` was called."""

    __slots__ = ("entries", "key", "level", "rows")

    def __init__(self, level: int, key: Hashable) -> None:
        self.level = level
        self.key = key
        self.rows = 0
        # Ordered, because a cancelled request leaves from the middle and the oldest from the front, both in O(1).
        self.entries: OrderedDict[int, QueuedRequest] = OrderedDict()

    @property
    def head(self) -> QueuedRequest:
        """The oldest request; the bucket must not be empty."""
        return next(iter(self.entries.values()))

    def sort(self) -> None:
        """Put the earliest deadline first."""
        entries = sorted(self.entries.values(), key=lambda entry: (entry.rank_ns, entry.sequence))
        self.entries = OrderedDict((entry.sequence, entry) for entry in entries)


class RequestQueue:
    """Buckets by level and key, and the order in which requests expire. Holds only live requests."""

    def __init__(self) -> None:
        self.rows = 0
        self.nbytes = 0
        # Buckets that a request joined which is due before others of them.
        self.unsorted: dict[tuple[int, Hashable], Bucket] = {}
        self._levels: dict[int, OrderedDict[Hashable, Bucket]] = {}
        # By sequence, beside the order: what stays in the heap after its request left must not keep its tensors.
        self._expiring: dict[int, QueuedRequest] = {}
        self._expiries: list[tuple[int, int]] = []
        self._sizes: dict[int, int] = {}
        self._size = 0
        self._sequence = 0

    def __len__(self) -> int:
        return self._size

    def level_size(self, level: int) -> int:
        """How many requests wait at `level`."""
        return self._sizes.get(level, 0)

    def push(self, entry: QueuedRequest) -> Bucket:
        """Append a request to its bucket and return the bucket."""
        self._sequence += 1
        entry.sequence = self._sequence
        entry.state = RequestState.QUEUED
        level = self._levels.get(entry.level)
        if level is None:
            level = self._levels[entry.level] = OrderedDict()
        bucket = level.get(entry.key)
        if bucket is None:
            bucket = level[entry.key] = Bucket(entry.level, entry.key)
        elif entry.deadline is not None and entry.rank_ns < next(reversed(bucket.entries.values())).rank_ns:
            self.unsorted[entry.level, entry.key] = bucket
        bucket.entries[entry.sequence] = entry
        bucket.rows += entry.rows
        self.rows += entry.rows
        self.nbytes += entry.nbytes
        self._size += 1
        self._sizes[entry.level] = self._sizes.get(entry.level, 0) + 1
        if entry.expires_ns is not None:
            self._expiring[entry.sequence] = entry
            heapq.heappush(self._expiries, (entry.expires_ns, entry.sequence))
        return bucket

    def remove(self, entry: QueuedRequest) -> None:
        """Take a queued request out, wherever it stands. Its state is the caller's to set."""
        bucket = self._levels[entry.level][entry.key]
        del bucket.entries[entry.sequence]
        self._expiring.pop(entry.sequence, None)
        self._removed(bucket, 1, entry.rows, entry.nbytes)

    def remove_oldest(self, bucket: Bucket, count: int) -> None:
        """Take a bucket's `count` oldest requests out. Their state is the caller's to set."""
        entries = bucket.entries
        rows = nbytes = 0
        for _ in range(count):
            sequence, entry = entries.popitem(last=False)
            if entry.expires_ns is not None:
                del self._expiring[sequence]
            rows += entry.rows
            nbytes += entry.nbytes
        self._removed(bucket, count, rows, nbytes)

    def _removed(self, bucket: Bucket, count: int, rows: int, nbytes: int) -> None:
        """Count out what has left a bucket."""
        bucket.rows -= rows
        self.rows -= rows
        self.nbytes -= nbytes
        self._size -= count
        self._sizes[bucket.level] -= count
        if not bucket.entries:
            level = self._levels[bucket.level]
            del level[bucket.key]
            if not level:
                del self._levels[bucket.level]
                del self._sizes[bucket.level]
        if len(self._expiries) > 64 + 2 * self._size:
            self._compact()

    def levels(self) -> Iterator[OrderedDict[Hashable, Bucket]]:
        """The non-empty levels, most urgent (lowest number) first."""
        if len(self._levels) == 1:
            yield from self._levels.values()
            return
        for number in sorted(self._levels):
            yield self._levels[number]

    def bucket(self, level: int, key: Hashable) -> Bucket | None:
        """The bucket at `level` for `key`, if any request waits there."""
        buckets = self._levels.get(level)
        return None if buckets is None else buckets.get(key)

    def level_numbers(self) -> list[int]:
        """The non-empty levels' numbers, most urgent first."""
        return sorted(self._levels)

    def next_expiry_ns(self) -> int | None:
        """When the next request expires, or None."""
        while self._expiries:
            expires_ns, sequence = self._expiries[0]
            if sequence in self._expiring:
                return expires_ns
            heapq.heappop(self._expiries)
        return None

    def pop_expired(self, now_ns: int) -> list[QueuedRequest]:
        """Take out every request whose time is over, and put the delayable ones back behind all others."""
        expired: list[QueuedRequest] = []
        while (due := self.next_expiry_ns()) is not None and due <= now_ns:
            entry = self._expiring[heapq.heappop(self._expiries)[1]]
            self.remove(entry)
            if entry.delayable:
                deadline = entry.request.deadline_ns
                entry.delayable = False
                entry.level = DELAYED_LEVEL
                entry.expires_ns = deadline if deadline is None or deadline > now_ns else now_ns
                self.push(entry)
            else:
                expired.append(entry)
        return expired

    def drain(self) -> list[QueuedRequest]:
        """Take out everything, oldest first within each bucket."""
        entries = [entry for level in self.levels() for bucket in level.values() for entry in bucket.entries.values()]
        for entry in entries:
            self.remove(entry)
        return entries

    def _compact(self) -> None:
        self._expiries = [item for item in self._expiries if item[1] in self._expiring]
        heapq.heapify(self._expiries)
