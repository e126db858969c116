"""Which bucket of a level comes first."""

from __future__ import annotations

import heapq
from collections.abc import Hashable

from erg_server.scheduling.request_queue import Bucket, RequestQueue


class BucketHeads:
    """Orders a queue's buckets by their first requests, in a heap for each level.

    Items are (time, sequence of the head, number of the push, key), earliest first, and stale once their request left.
    Numbers are unique, so that keys, which need not be comparable, never are compared.
    """

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue
        self._heads: dict[int, list[tuple[int, int, int, Hashable]]] = {}
        self._pushes = 0

    def push(self, bucket: Bucket, at_ns: int) -> None:
        """A bucket has another head, or its head another time."""
        heads = self._heads.setdefault(bucket.level, [])
        if len(heads) > 64 + 2 * self._queue.level_size(bucket.level):
            # Stale items would otherwise pile up behind a head that does not move.
            heads[:] = [item for item in heads if self._holds(bucket.level, item)]
            heapq.heapify(heads)
        self._pushes += 1
        heapq.heappush(heads, (at_ns, bucket.head.sequence, self._pushes, bucket.key))

    def first(self, level: int) -> Bucket:
        """The bucket of the earliest head; the level must not be empty."""
        heads = self._heads[level]
        while not self._holds(level, heads[0]):
            heapq.heappop(heads)
        bucket = self._queue.bucket(level, heads[0][3])
        assert bucket is not None
        return bucket

    def forget(self, level: int) -> None:
        """Nothing waits at a level any more."""
        self._heads.pop(level, None)

    def clear(self) -> None:
        """Forget every level."""
        self._heads.clear()

    def _holds(self, level: int, item: tuple[int, int, int, Hashable]) -> bool:
        bucket = self._queue.bucket(level, item[3])
        return bucket is not None and bucket.head.sequence == item[1]
