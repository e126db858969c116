"""What keeps one model's burst from being the others': who asks for more than its share of devices goes behind them.

Between models without an objective it is start-time fair queueing (Goyal, Vin and Cheng, 1996) with batches as packets:
a model's next turn is as far after its last one as the device time it took, by its weight. Models with an objective are
ordered by deadlines, which shares devices well while every deadline can be kept. A model whose requests are refused
because more of its work waits than its share is greedy for a while: its requests go behind the others', whose admission
does not count them.
"""

from __future__ import annotations

from typing import Final

GREEDY_NS: Final = 100_000_000
"""For how long after a refusal: bursts last longer, and who is refused now and then soon has its place again."""


class Share:
    """One model's part in the devices that it shares: its tags in the devices' virtual time, in nanoseconds."""

    __slots__ = ("_finish", "_greedy_until_ns", "_start", "_weight")

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._start = -1
        self._finish = 0
        self._greedy_until_ns = 0

    def start(self, virtual_ns: int) -> int:
        """The start tag of the batch that waits, lower first. It stays as it is until that batch goes."""
        if self._start < 0:
            self._start = max(self._finish, virtual_ns)
        return self._start

    def charge(self, virtual_ns: int, device_ns: float) -> int:
        """A batch goes that takes `device_ns` of the time of all its devices. Returns the virtual time from now on."""
        start = self.start(virtual_ns)
        self._finish = start + int(device_ns / self._weight)
        self._start = -1
        return max(start, virtual_ns)

    def refused(self, now_ns: int, *, own_work_ns: float, all_work_ns: float, all_weights: float) -> bool:
        """A request was refused because of waiting work; whether its model has more of that than its share."""
        # Where nobody else waits it has: that costs it nothing, and whoever comes finds its way free.
        if not own_work_ns or own_work_ns * all_weights < all_work_ns * self._weight:
            return False
        self._greedy_until_ns = now_ns + GREEDY_NS
        return True

    def still_greedy(self, now_ns: int) -> bool:
        """Whether it was found greedy a short while ago."""
        return now_ns < self._greedy_until_ns
