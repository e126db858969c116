"""What measures a domain's energy, or models it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from erg_server.energy.account import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """How busy everything was so far, for sources that model power: nanoseconds since the server started.

    `cpu_ns` is CPU time of the front and all workers; `held_ns` how long each device has held batches.
    """

    now_ns: int
    cpu_ns: int
    held_ns: Mapping[str, int]


class PowerSource(Protocol):
    """One domain, which is what one counter tells of: a GPU, or the CPU with its memory.

    `idle_watts` is what the operator stated that it takes without work, None to learn it. `counts_all` says whether
    the CPU time of other processes is in it, `may_block` whether a reading may take long, as of a GPU that is being
    lost.
    """

    domain: str
    source: Source
    idle_watts: float | None
    counts_all: bool
    may_block: bool

    def read(self, activity: Activity) -> int | None:
        """Microjoules so far, from a start of its own; never less than before. None where it does not answer now."""
        ...

    def stated_active_watts(self, device: str) -> float | None:
        """What the operator stated that a device takes above idle while it is busy, None for what is measured."""
        ...

    def close(self) -> None:
        """Release what it holds open."""
        ...
