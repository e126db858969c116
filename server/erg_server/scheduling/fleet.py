"""The workers that a model may run on, and which models wait for one of them. Models with the same workers share it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from operator import mul
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from erg_server.scheduling.ports import SchedulableWorker

if TYPE_CHECKING:
    from erg_server.scheduling.model_queue import ModelQueue

STAGING_MARGIN_NS: Final = 1_500_000
"""How long before a busy worker is predicted to finish it gets its next batch: the event loop's timer resolution (1 ms)
and the time the front takes to form it. Later, the device waits; earlier, the batch misses requests about to come (3 ms
cost 6 % of the batch's size with 8 MiniLM callers)."""
LOAD_WINDOW_NS: Final = 300_000_000
"""Time constant of the average that says how busy a fleet is."""
SPARE_LOAD: Final = 0.5
"""Below this share of busy time devices have time to spare: batches then go at once instead of growing."""
OVERLOAD: Final = 0.9
"""Share of busy time from which on requests are given up for others, and no batch is small to be in time."""
EARLY: Final = 4
"""How many times as long as the other models' waiting work takes the devices a batch goes before it is due, if one of
them is idle. Whoever waits to the last moment finds them taken by others who did. 2 to 8 are alike."""


WORK_CLASSES: Final = 20
_FIRST_CLASS_NS: Final = 1_000_000
_SAMPLED: Final = 8
_WEIGHTS: Final = [[min(1.0, 0.5 ** (other - own)) for other in range(WORK_CLASSES)] for own in range(WORK_CLASSES)]


def work_class(objective_ns: int) -> int:
    """Which urgency an objective is of: objectives of one class are within a factor of two of each other."""
    return min(WORK_CLASSES - 1, max(0, (objective_ns // _FIRST_CLASS_NS).bit_length()))


class Waiting(Protocol):
    """What waits for a worker of a fleet: a model's queue."""

    place: int
    """Its latest place in an order, which makes earlier ones stale; 0 while it waits for nothing."""


W = TypeVar("W", bound=Waiting)


class WaitingOrder(Generic[W]):
    """A heap of what waits, earliest first. Each thing has one place at most, in one order."""

    __slots__ = ("_bound", "_items", "_places")

    def __init__(self, places: Iterator[int]) -> None:
        self._places = places
        self._items: list[tuple[int, int, W]] = []
        self._bound = 64

    def add(self, waiting: W, at_ns: int) -> None:
        """Give it a place, instead of the one it has here or in another order."""
        items = self._items
        if len(items) >= self._bound:
            items[:] = [item for item in items if item[1] == item[2].place]
            heapq.heapify(items)
            self._bound = 64 + 2 * len(items)
        waiting.place = place = next(self._places)
        heapq.heappush(items, (at_ns, place, waiting))

    def first(self) -> tuple[int, int, W] | None:
        """Its time, its place and the thing itself."""
        items = self._items
        while items and items[0][1] != items[0][2].place:
            heapq.heappop(items)
        return items[0] if items else None


class WorkerAccount:
    """What one worker is predicted to be busy with."""

    __slots__ = ("busy_until_ns", "fleets", "idle", "loads", "number", "stamp", "worker")

    def __init__(self, worker: SchedulableWorker, number: int) -> None:
        self.worker = worker
        self.number = number
        self.loads = worker.loads
        self.busy_until_ns = 0
        self.idle = worker.free_slots == worker.slots
        # Changes with everything that orders workers, so that an older place in a heap is known to be stale.
        self.stamp = 0
        self.fleets: list[Fleet] = []

    @property
    def until_ns(self) -> int:
        """When it is done; 0 while it is idle."""
        return 0 if self.idle else self.busy_until_ns

    def start_ns(self, now_ns: int) -> int:
        """When a batch given now would start."""
        return max(now_ns, self.busy_until_ns)

    def free_in_ns(self, from_ns: int) -> int:
        """How long after `from_ns` it is done."""
        return 0 if self.idle else max(0, self.busy_until_ns - from_ns)

    def charge(self, now_ns: int, predicted_ns: int) -> None:
        """It was given a batch."""
        self.busy_until_ns = self.start_ns(now_ns) + predicted_ns
        for fleet in self.fleets:
            fleet.charge(now_ns, predicted_ns)
        self.changed()

    def correct(self, late_ns: int) -> None:
        """A batch took `late_ns` longer than predicted, which shifts the one staged behind it."""
        self.busy_until_ns += late_ns

    def changed(self) -> None:
        """It came up, freed a slot or was given a batch: one that holds nothing is idle, whatever was predicted."""
        worker = self.worker
        free = worker.free_slots
        idle = free == worker.slots
        if idle:
            self.busy_until_ns = 0
        self.stamp += 1
        more_idle, self.idle = idle - self.idle, idle
        for fleet in self.fleets:
            fleet.idle += more_idle
            if free:
                fleet.offer(self)


class Fleet:
    """Orders its workers by when they are free, and what waits for them by urgency. Every step is O(log n)."""

    def __init__(self, accounts: Sequence[WorkerAccount], places: Iterator[int]) -> None:
        self.accounts = tuple(accounts)
        self.size = len(self.accounts)
        self.idle = sum(account.idle for account in self.accounts)
        self.due_ns = 0
        """When the scheduler looks at it again without being told; 0 for never."""
        self.stage_ns = 0
        """Until when none of its busy workers takes another batch, unless one is done before it was predicted to be."""
        self._free: list[tuple[int, int, int, WorkerAccount]] = []
        self.parked: WaitingOrder[ModelQueue] = WaitingOrder(places)
        """By urgency: a batch of each may go as soon as a worker takes it."""
        self.fair: WaitingOrder[ModelQueue] = WaitingOrder(places)
        """By start tags: as much, for models that no deadline orders, or that have more than their share."""
        self.virtual_ns = 0
        """The virtual time that tags are of."""
        self.deferred: WaitingOrder[ModelQueue] = WaitingOrder(places)
        """By when each is due: a batch goes then, or before if there is time to spare."""
        self.weights = 0.0
        """Of the models whose requests with deadlines wait."""
        self.models = 0
        """How many have these workers."""
        self.waiting_ns = 0
        """Device time that all requests wait for."""
        self._work_ns = [0] * WORK_CLASSES
        self._load_ns = 0.0
        self._load_at_ns = 0
        for account in self.accounts:
            account.fleets.append(self)
            if account.worker.free_slots:
                self.offer(account)

    def close(self) -> None:
        """Forget its workers."""
        for account in self.accounts:
            account.fleets.remove(self)

    def offer(self, account: WorkerAccount) -> None:
        """A worker has a free slot."""
        if len(self._free) > 64 + 4 * self.size:
            self._free = [item for item in self._free if item[2] == item[3].stamp]
            heapq.heapify(self._free)
        heapq.heappush(self._free, (account.until_ns, account.number, account.stamp, account))

    def soonest(self) -> WorkerAccount | None:
        """Of the workers with a free slot, the one that is done first; None if there is none."""
        free = self._free
        while free:
            _, _, stamp, account = free[0]
            if stamp == account.stamp and account.worker.free_slots:
                return account
            heapq.heappop(free)
        return None

    def others(self, account: WorkerAccount) -> Iterator[WorkerAccount]:
        """The workers but one."""
        return (other for other in self.accounts if other is not account)

    def charge(self, now_ns: int, predicted_ns: int) -> None:
        """One of its workers was given a batch."""
        self._load_ns = self._load_ns * math.exp((self._load_at_ns - now_ns) / LOAD_WINDOW_NS) + predicted_ns
        self._load_at_ns = now_ns

    def add_work(self, work_class: int, work_ns: int) -> None:
        """Device time that requests of this urgency wait for grew."""
        self._work_ns[work_class] += work_ns
        self.waiting_ns += work_ns

    def remove_work(self, work_class: int, work_ns: int) -> None:
        """It shrank."""
        self._work_ns[work_class] -= work_ns
        self.waiting_ns -= work_ns

    def work_ns(self, work_class: int) -> float:
        """Device time that goes before a request of this urgency.

        It is that of all requests as urgent, and of the others that of as many as have waited so long that they are due
        before it: half for each factor of two between their objectives.
        """
        # Sums of powers of two: work in whole nanoseconds goes out as exactly as it came in.
        total_ns: float = sum(map(mul, self._work_ns, _WEIGHTS[work_class]))
        return total_ns

    def free_in_ns(self, now_ns: int) -> int:
        """How long until a worker is free: the soonest that takes a batch, about the mean where all hold two."""
        if self.idle or not self.size:
            return 0
        account = self.soonest()
        if account is not None:
            return max(0, account.busy_until_ns - now_ns)
        return max(
            0, sum(account.busy_until_ns for account in self.accounts[:_SAMPLED]) // min(self.size, _SAMPLED) - now_ns
        )

    def spare(self, now_ns: int) -> bool:
        """Whether a worker is idle and all of them together have time to spare."""
        return self.idle > 0 and self.load(now_ns) < SPARE_LOAD

    def early_ns(self, own_ns: int) -> int:
        """How long before it is due a batch goes to an idle worker, of a model of whose work `own_ns` waits."""
        return EARLY * (self.waiting_ns - own_ns) // max(1, self.size)

    def load(self, now_ns: int) -> float:
        """Share of the workers' time that was given to batches lately."""
        load_ns = self._load_ns * math.exp((self._load_at_ns - now_ns) / LOAD_WINDOW_NS)
        return load_ns / (max(1, self.size) * LOAD_WINDOW_NS)


class FleetIndex:
    """Owns the accounts of all workers and the fleets they form."""

    def __init__(self) -> None:
        self._accounts: dict[str, WorkerAccount] = {}
        self._fleets: dict[tuple[int, ...], Fleet] = {}
        self._places = itertools.count(1)

    def add(self, worker: SchedulableWorker) -> WorkerAccount:
        """Count a worker in."""
        account = self._accounts[worker.name] = WorkerAccount(worker, len(self._accounts))
        return account

    def account(self, worker: SchedulableWorker) -> WorkerAccount:
        """The account of a worker that was added."""
        return self._accounts[worker.name]

    def slot_bytes(self, default: int) -> int:
        """The smallest slot of all workers; `default` without any."""
        return min((account.worker.slot_bytes for account in self._accounts.values()), default=default)

    def fleet(self, handle: int) -> Fleet:
        """The workers that have this model loaded now."""
        able = [account for account in self._accounts.values() if account.worker.has_model(handle)]
        key = tuple(account.number for account in able)
        fleet = self._fleets.get(key)
        if fleet is None:
            fleet = self._fleets[key] = Fleet(able, self._places)
        return fleet

    def forget(self, fleet: Fleet) -> None:
        """No model uses the fleet any more."""
        fleet.close()
        self._fleets.pop(tuple(account.number for account in fleet.accounts), None)
