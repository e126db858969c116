"""Which model is missed least. Pure: uses and reload times in, an order out."""

from __future__ import annotations

from collections.abc import Iterable


class GreedyDualSize:
    """GreedyDual-Size, with the seconds that a reload takes as the cost.

    Cao and Irani, "Cost-aware WWW proxy caching algorithms", USENIX Symposium on Internet Technologies and Systems,
    1997. A model that is used is worth the clock and what a byte of it costs to bring back, and the clock moves up to
    the worth of each model that is evicted. So what is cheap to reload goes first, and what is dear goes too if nobody
    asks for it.
    """

    def __init__(self) -> None:
        self._clock = 0.0
        self._worth: dict[int, float] = {}

    def used(self, key: int, *, reload_s: float, memory_bytes: int) -> None:
        """A model was asked for."""
        self._worth[key] = self._clock + reload_s / max(1, memory_bytes)

    def worth(self, key: int) -> float:
        """What keeping the model is worth, in no unit but its own."""
        return self._worth.get(key, self._clock)

    def least_first(self, keys: Iterable[int]) -> list[int]:
        """The models, those to be evicted first leading."""
        return sorted(keys, key=lambda key: (self.worth(key), key))

    def evicted(self, key: int) -> None:
        """A model was evicted: what was not used since ages by its worth."""
        self._clock = max(self._clock, self._worth.pop(key, self._clock))

    def forget(self, key: int) -> None:
        """A model is gone for good."""
        self._worth.pop(key, None)
