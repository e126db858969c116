"""What a batch was for: its rows by kind and tenant, and the padding beside them."""

from __future__ import annotations

from collections.abc import Sequence

from erg_server.energy.account import AccountKind
from erg_server.energy.batch_log import Share
from erg_server.scheduling.request_queue import QueuedRequest


def shares_of(entries: Sequence[QueuedRequest], padded: int) -> list[Share]:
    """The shares of a batch that was answered, or failed where its requests have no time of completion.

    Requests weigh by their rows. Where any was padded (`padded` elements), they weigh by rows times their own length,
    and what fills them up to the longest is a share of its own, which is nobody's.
    """
    first = entries[0]
    kind, tenant = kind_of(first), first.request.tenant
    if len(entries) == 1:
        return [(kind, tenant, first.rows, first.rows)]
    longest = max(entry.length for entry in entries) if padded else 0
    sums: dict[tuple[AccountKind, str], tuple[int, int]] = {}
    weight = rows = padding = 0
    for entry in entries:
        entry_kind, entry_tenant = kind_of(entry), entry.request.tenant
        if entry_kind != kind or entry_tenant != tenant:
            _add(sums, kind, tenant, weight, rows)
            kind, tenant, weight, rows = entry_kind, entry_tenant, 0, 0
        entry_rows = entry.rows
        rows += entry_rows
        if longest:
            weight += entry_rows * entry.length
            padding += entry_rows * (longest - entry.length)
        else:
            weight += entry_rows
    if not sums and not padding:
        return [(kind, tenant, weight, rows)]
    _add(sums, kind, tenant, weight, rows)
    if padding:
        # The padding of what served nobody is wasted with it.
        _add(sums, kind if kind in {"failed", "warmup"} else "padding", "", padding, 0)
    return [(each[0], each[1], sum_[0], sum_[1]) for each, sum_ in sums.items()]


def _add(
    sums: dict[tuple[AccountKind, str], tuple[int, int]], kind: AccountKind, tenant: str, weight: int, rows: int
) -> None:
    before = sums.get((kind, tenant), (0, 0))
    sums[kind, tenant] = before[0] + weight, before[1] + rows


def kind_of(entry: QueuedRequest) -> AccountKind:
    """What a request that ran turned out to be."""
    if entry.request.warmup:
        return "warmup"
    completed_ns = entry.phases.completed_ns
    if not completed_ns:
        return "failed"
    if entry.cancelled:
        return "cancelled"
    deadline = entry.deadline
    return "late" if deadline is not None and completed_ns > deadline.at_ns else "inference"
