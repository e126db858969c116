"""What the scheduler tells of its batches: which worker holds one since when, and what each that ended was for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from erg_server.energy.account import AccountKind

Share = tuple[AccountKind, str, int, int]
"""What part of a batch was for: its kind, the tenant, a weight among the batch's shares, and rows."""


class BatchRecord:
    """Batches that ended: one, or several in a row that were for the same. Times are the machine's monotonic clock's.

    `busy_ns` is how long they ran, which is less than from start to end where there were pauses.
    """

    __slots__ = ("batches", "busy_ns", "device", "end_ns", "model", "shares", "start_ns", "version")

    def __init__(
        self, device: str, model: str, version: str, *, start_ns: int, end_ns: int, shares: list[Share]
    ) -> None:
        self.device = device
        self.model = model
        self.version = version
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.busy_ns = max(1, end_ns - start_ns)
        self.batches = 1
        self.shares = shares


class _Lane:
    """One device: when the batches that it holds were handed over, how long it has held any, and the last record."""

    __slots__ = ("held", "held_ns", "held_since_ns", "last", "last_end_ns")

    def __init__(self) -> None:
        self.held: deque[int] = deque()
        self.held_ns = 0
        self.held_since_ns = 0
        self.last_end_ns = 0
        self.last: BatchRecord | None = None


class BatchLog:
    """Written by the scheduler, emptied by the sampler, both on the event loop. Workers run batches in order."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._ended: list[BatchRecord] = []
        self._taken_ns = 0

    def handed(self, device: str, now_ns: int) -> None:
        """A worker was given a batch."""
        lane = self._lanes.get(device)
        if lane is None:
            lane = self._lanes[device] = _Lane()
        if not lane.held:
            lane.held_since_ns = now_ns
        lane.held.append(now_ns)

    def ended(self, device: str, model: str, version: str, *, start_ns: int, end_ns: int, shares: list[Share]) -> None:
        """The oldest batch that the worker was given ended.

        `start_ns` is 0 where the worker did not tell: it then ran since it was handed over or the one before it ended,
        whichever is later.
        """
        lane = self._lanes[device]
        handed_ns = lane.held.popleft()
        if not lane.held:
            lane.held_ns += max(0, end_ns - lane.held_since_ns)
        if not start_ns:
            start_ns = max(handed_ns, lane.last_end_ns)
        start_ns = min(start_ns, end_ns)
        lane.last_end_ns = end_ns
        last = lane.last
        if last is not None and last.start_ns >= self._taken_ns and len(shares) == 1 and len(last.shares) == 1:
            # Both lie within the interval that ends next, so that which of them ran when makes no difference.
            kind, tenant, weight, rows = shares[0]
            before = last.shares[0]
            if before[0] == kind and before[1] == tenant and last.model == model and last.version == version:
                last.end_ns = end_ns
                last.busy_ns += max(1, end_ns - start_ns)
                last.batches += 1
                last.shares[0] = kind, tenant, before[2] + weight, before[3] + rows
                return
        lane.last = BatchRecord(device, model, version, start_ns=start_ns, end_ns=end_ns, shares=shares)
        self._ended.append(lane.last)

    def take(self, now_ns: int) -> list[BatchRecord]:
        """The batches that ended since the last call, those of one device in order. An interval ends at `now_ns`."""
        ended, self._ended = self._ended, []
        self._taken_ns = now_ns
        for lane in self._lanes.values():
            lane.last = None
        return ended

    def held_since(self, device: str) -> int | None:
        """When the oldest batch that a device holds was handed over, None if it holds none."""
        lane = self._lanes.get(device)
        return lane.held[0] if lane is not None and lane.held else None

    def held_ns(self, device: str, now_ns: int) -> int:
        """How long the device has held batches so far."""
        lane = self._lanes.get(device)
        if lane is None:
            return 0
        return lane.held_ns + (max(0, now_ns - lane.held_since_ns) if lane.held else 0)

    def settled_until(self, devices: Iterable[str], now_ns: int) -> int:
        """Until when every batch of these devices is known: none that is still out was handed over before."""
        until_ns = now_ns
        for device in devices:
            since_ns = self.held_since(device)
            if since_ns is not None and since_ns < until_ns:
                until_ns = since_ns
        return until_ns
