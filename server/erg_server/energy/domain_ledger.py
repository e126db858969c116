"""The books of one counter: what it counted, split over what ran, to the last microjoule."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from erg_server.energy.account import Account, AccountKind, AccountTotal
from erg_server.energy.batch_log import BatchRecord, Share
from erg_server.energy.interval import DomainDevice, Interval
from erg_server.energy.split import split_exactly

_MEMORY: Final = 0.95
"""What an interval leaves of those before it, in a device's mean power while it is busy: about two seconds at 10 Hz."""


_HANDLING_NS: Final = 100_000
"""CPU time that a worker may take for a batch beside running it: waking for its frame and answering it. It took 40 µs
for a tiny model; more than this beside short batches is loading another model, which must not be theirs."""


class _Line:
    """An account, and its weight in the split that is being made."""

    __slots__ = ("total", "weight")

    def __init__(self, total: AccountTotal) -> None:
        self.total = total
        self.weight = 0


class _KeptBatch:
    """A batch whose energy is not booked yet: what its time was for."""

    __slots__ = ("parts", "record")

    def __init__(self, record: BatchRecord, parts: list[tuple[_Line, int]]) -> None:
        self.record = record
        self.parts = parts


_Key = tuple[str, str, AccountKind, str]


class _DeviceBook:
    """One device's lines, its batches that are not booked yet, and what it takes above idle while it is busy."""

    __slots__ = ("active_ns", "active_uj", "batches", "device", "lines")

    def __init__(self, device: DomainDevice) -> None:
        self.device = device
        self.lines: dict[_Key, _Line] = {}
        self.batches: deque[_KeptBatch] = deque()
        self.active_uj = 0.0
        self.active_ns = 0.0


class DomainLedger:
    """Books a domain's energy on accounts. The sum of `totals` and `pending_uj` is what was added, at every moment.

    An interval's energy is idle as far as that goes. The rest is split over the devices and what else was active: by
    CPU time, or with `by_overlap` by the time that batches ran times the device's share of the domain. A device's part
    is split over its batches by the time that they overlap with the interval, and over a batch's shares by their
    weights. CPU time that its batches cannot have taken is its worker's, and what nobody claims is idle.

    Device time and rows are booked as a batch is added, in the device's home domain alone, so that they are not counted
    once a domain.
    """

    def __init__(self, domain: str, devices: Sequence[DomainDevice], *, by_overlap: bool) -> None:
        self.domain = domain
        self.totals: dict[Account, AccountTotal] = {}
        self.pending_uj = 0
        self._by_overlap = by_overlap
        self._books = {device.name: _DeviceBook(device) for device in devices}
        self._intervals: deque[Interval] = deque()
        self._own: dict[AccountKind, _Line] = {}

    def add_batch(self, record: BatchRecord, *, keep: bool = True) -> None:
        """Book a batch's time, and keep it for the intervals that it overlaps; not so without a counter to come."""
        book = self._books.get(record.device)
        if book is None:
            return
        busy_ns = record.busy_ns
        shares = record.shares
        parts: list[tuple[_Line, int]] = []
        if len(shares) == 1:
            parts.append((self._book_time(book, record, shares[0], busy_ns), busy_ns))
        else:
            weights = [share[2] for share in shares]
            times_ns = split_exactly(busy_ns, weights if any(weights) else [1] * len(weights))
            for share, part_ns in zip(shares, times_ns, strict=True):
                parts.append((self._book_time(book, record, share, part_ns), part_ns))
        if keep:
            book.batches.append(_KeptBatch(record, parts))

    def _book_time(self, book: _DeviceBook, record: BatchRecord, share: Share, busy_ns: int) -> _Line:
        kind, tenant, _, rows = share
        line = self._line(book, (record.model, record.version, kind, tenant))
        if book.device.home:
            line.total.busy_ns += busy_ns
            line.total.rows += rows
        return line

    def add_interval(self, interval: Interval) -> None:
        """Take in what the counter counted since the last interval; it is pending until it is settled."""
        self._intervals.append(interval)
        self.pending_uj += interval.energy_uj

    def settle(self, known_until_ns: int, *, overdue_ns: int = 0, held_since_ns: Mapping[str, int]) -> None:
        """Book every interval that ended by `known_until_ns`, up to which all batches are known.

        Those that ended by `overdue_ns` are booked with what is known. What a device takes from `held_since_ns`, when
        it was given a batch that is still out, is then its worker's.
        """
        until_ns = max(known_until_ns, overdue_ns)
        while self._intervals and self._intervals[0].end_ns <= until_ns:
            interval = self._intervals.popleft()
            self._book(interval, held_since_ns)
            self.pending_uj -= interval.energy_uj

    def forget_batches(self, before_ns: int) -> None:
        """Drop batches that ended before, for which no interval will come."""
        for book in self._books.values():
            while book.batches and book.batches[0].record.end_ns < before_ns:
                book.batches.popleft()

    def active_watts(self, device: str) -> float | None:
        """What a device took above idle while its last batches ran, None without any."""
        book = self._books.get(device)
        return None if book is None or not book.active_ns else book.active_uj * 1e3 / book.active_ns

    def booked_uj(self) -> int:
        """The sum of all accounts."""
        return sum(total.energy_uj for total in self.totals.values())

    def _book(self, interval: Interval, held_since_ns: Mapping[str, int]) -> None:
        idle_uj = min(interval.idle_uj, interval.energy_uj)
        claims = [interval.front_ns, interval.other_ns]
        claimants = list(self._books.values())
        weighed = [_weigh(book, interval) for book in claimants]
        for book, ran in zip(claimants, weighed, strict=True):
            out_ns = _still_out_ns(book, interval, held_since_ns)
            if self._by_overlap:
                claims += (ran.overlap_ns * book.device.share, out_ns * book.device.share)
            else:
                cpu_ns = interval.cpu_ns.get(book.device.name, 0)
                most_ns = ran.overlap_ns * book.device.threads + ran.batches * _HANDLING_NS
                claims += (min(cpu_ns, most_ns), max(0, cpu_ns - most_ns))
        if sum(claims) > 0:
            parts = split_exactly(interval.energy_uj - idle_uj, claims)
        else:
            idle_uj, parts = interval.energy_uj, [0] * len(claims)
        if idle_uj:
            self._own_line("idle").total.energy_uj += idle_uj
        if parts[0]:
            self._own_line("front").total.energy_uj += parts[0]
        if parts[1]:
            self._own_line("other").total.energy_uj += parts[1]
        for at, (book, ran) in enumerate(zip(claimants, weighed, strict=True)):
            batches_uj, worker_uj = parts[2 + 2 * at], parts[3 + 2 * at]
            if ran.lines:
                _book_batches(book, ran, batches_uj)
            if worker_uj:
                self._line(book, ("", "", "worker", "")).total.energy_uj += worker_uj

    def _line(self, book: _DeviceBook, key: _Key) -> _Line:
        line = book.lines.get(key)
        if line is None:
            model, version, kind, tenant = key
            account = Account(self.domain, kind, book.device.name, model, version, tenant)
            total = self.totals[account] = AccountTotal()
            line = book.lines[key] = _Line(total)
        return line

    def _own_line(self, kind: AccountKind) -> _Line:
        line = self._own.get(kind)
        if line is None:
            total = self.totals[Account(self.domain, kind)] = AccountTotal()
            line = self._own[kind] = _Line(total)
        return line


class _Ran:
    """What ran on a device within an interval: the lines of the batches, their time, and how many there were."""

    __slots__ = ("batches", "lines", "overlap_ns")

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.overlap_ns = 0
        self.batches = 0


def _book_batches(book: _DeviceBook, ran: _Ran, energy_uj: int) -> None:
    lines = ran.lines
    for line, line_uj in zip(lines, split_exactly(energy_uj, [line.weight for line in lines]), strict=True):
        line.total.energy_uj += line_uj
        line.weight = 0
    book.active_uj = book.active_uj * _MEMORY + energy_uj
    book.active_ns = book.active_ns * _MEMORY + ran.overlap_ns


def _weigh(book: _DeviceBook, interval: Interval) -> _Ran:
    """What ran within an interval, the lines' weights set.

    Batches that ended within it are dropped: no later interval is theirs.
    """
    start_ns, end_ns = interval.start_ns, interval.end_ns
    batches = book.batches
    ran = _Ran()
    for batch in batches:
        record = batch.record
        if record.start_ns >= end_ns:
            break
        span_ns = max(1, record.end_ns - record.start_ns)
        within_ns = min(end_ns, record.end_ns) - max(start_ns, record.end_ns - span_ns)
        if within_ns <= 0:
            continue
        ran.overlap_ns += record.busy_ns if within_ns == span_ns else -(-record.busy_ns * within_ns // span_ns)
        ran.batches += record.batches
        for line, part_ns in batch.parts:
            weight = part_ns if within_ns == span_ns else -(-part_ns * within_ns // span_ns)
            if weight:
                if not line.weight:
                    ran.lines.append(line)
                line.weight += weight
    while batches and batches[0].record.end_ns <= end_ns:
        batches.popleft()
    return ran


def _still_out_ns(book: _DeviceBook, interval: Interval, held_since_ns: Mapping[str, int]) -> int:
    """How much of an interval a batch may have run of which nothing is known yet; only of one that is overdue."""
    since_ns = held_since_ns.get(book.device.name, interval.end_ns)
    return max(0, interval.end_ns - max(since_ns, interval.start_ns))
