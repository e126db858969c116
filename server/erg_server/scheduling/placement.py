"""Which worker takes the next batch and how many of the waiting rows it gets. Pure: figures in, a decision out."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def share_rows(
    waiting_rows: int,
    limit: int,
    others_free_in_ns: Sequence[float],
    predict_ns: Callable[[int], float],
) -> int:
    """How many of `waiting_rows` a worker that is free now should take, so that the last of them ends soonest.

    A batch that leaves another device idle is a bad batch, and so is one that leaves rows behind for a device that
    is busy for long. Both follow from one rule: choose the finishing time T, the smallest at which all workers
    together can take every row (this one from now, each other from when it is free), and take what fits until T.

    Args:
        waiting_rows: rows that may share a batch, at least 1.
        limit: most rows a batch may hold, at least 1.
        others_free_in_ns: for each other worker of this model, how long it is still busy (0 when idle).
        predict_ns: duration of a batch of that many rows, not decreasing.

    Returns:
        Between 1 and min(waiting_rows, limit).
    """
    most = min(waiting_rows, limit)
    if most == 1 or not others_free_in_ns or waiting_rows >= limit * (1 + len(others_free_in_ns)):
        return most
    # The finishing times worth considering are those at which this worker ends a batch of 1..most rows: capacity
    # of the others grows with T, so the first k whose T covers the rest is the answer.
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if middle + _capacity(predict_ns(middle), limit, others_free_in_ns, predict_ns) >= waiting_rows:
            high = middle
        else:
            low = middle + 1
    return low


def balance_rows(waiting_rows: int, limit: int, others_hold_rows: Sequence[int]) -> int:
    """How many of `waiting_rows` a worker should take for all workers to hold about as many rows as each other.

    Under a steady load the rows that others hold come back as new requests. A worker that took only what ends soonest
    would leave crumbs for them, and a batch of one row costs a device nearly what a batch of two does.

    Args:
        waiting_rows: rows that may share a batch, at least 1.
        limit: most rows a batch may hold, at least 1.
        others_hold_rows: for each other worker, rows of this model that it runs or has staged.

    Returns:
        Between 1 and min(waiting_rows, limit).
    """
    workers = 1 + len(others_hold_rows)
    even = -(-(waiting_rows + sum(others_hold_rows)) // workers)
    return max(1, min(waiting_rows, limit, even))


def spread_rows(waiting_rows: int, limit: int, *, idle: int, workers: int, others_hold_rows: int) -> int:
    """How many of `waiting_rows` a worker should take among many: as many as each other, of which `idle` are free now.

    The rules of `share_rows` and `balance_rows` with every busy worker alike, for which nothing has to be asked of
    each.

    Args:
        waiting_rows: rows that may share a batch, at least 1.
        limit: most rows a batch may hold, at least 1.
        idle: workers that run nothing, this one included if it does not.
        workers: workers in all, at least 1.
        others_hold_rows: rows of this model that the others run or have staged.

    Returns:
        Between 1 and min(waiting_rows, limit).
    """
    most = min(waiting_rows, limit)
    even = -(-(waiting_rows + others_hold_rows) // workers)
    return max(1, min(most, max(even, -(-waiting_rows // max(1, idle)))))


def _capacity(
    until_ns: float, limit: int, others_free_in_ns: Sequence[float], predict_ns: Callable[[int], float]
) -> int:
    """Rows that the other workers, each in one batch, can finish by `until_ns`."""
    total = 0
    for free_in_ns in others_free_in_ns:
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if free_in_ns + predict_ns(middle) <= until_ns:
                low = middle
            else:
                high = middle - 1
        total += low
    return total
