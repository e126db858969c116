"""What a ledger is told: the devices that take energy from a domain, and what its counter counted between readings."""

from __future__ import annotations

from collections.abc import Mapping


class DomainDevice:
    """A device that takes energy from a domain, which is its `home` if it is a part of it.

    `share` is how much of a GPU it is, `threads` how many cores it keeps busy while it runs a batch.
    """

    __slots__ = ("home", "name", "share", "threads")

    def __init__(self, name: str, *, home: bool, share: int = 1, threads: int = 1) -> None:
        self.name = name
        self.home = home
        self.share = share
        self.threads = threads


class Interval:
    """What a counter counted between two readings, and who was active meanwhile.

    `idle_uj` is what the domain would have taken without any work. `cpu_ns` has the CPU time of each worker,
    `front_ns` the front's, `other_ns` that of whatever else ran on the machine, where it is known and counted with.
    """

    __slots__ = ("cpu_ns", "end_ns", "energy_uj", "front_ns", "idle_uj", "other_ns", "start_ns")

    def __init__(
        self,
        *,
        start_ns: int,
        end_ns: int,
        energy_uj: int,
        idle_uj: int,
        cpu_ns: Mapping[str, int],
        front_ns: int,
        other_ns: int,
    ) -> None:
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.energy_uj = energy_uj
        self.idle_uj = idle_uj
        self.cpu_ns = cpu_ns
        self.front_ns = front_ns
        self.other_ns = other_ns
