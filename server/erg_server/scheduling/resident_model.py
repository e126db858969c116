"""A model as residency sees it: what it needs, what its workers do with it, and how long it stays. Decides nothing."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field

from erg_server.scheduling.instance_groups import InstanceLimits

MIN_STAY_NS = 50_000_000
"""How long a model that is busy stays at least, so that models that fight for memory do not spend all time loading."""


class InstanceState(enum.Enum):
    """What one worker does with one model."""

    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(slots=True, kw_only=True)
class ResidentModel:
    """One version: what it needs, where it is, and who waits for it. The residency changes it."""

    key: int
    name: str
    limits: InstanceLimits
    pinned: bool
    memory_bytes: int
    reload_s: float = 0.0
    load: float = 0.0
    # Loads that must not be undone yet, because the version is being warmed up.
    holds: int = 0
    # Since when somebody waits for it, None if nobody does.
    wanted_ns: int | None = None
    ready_ns: int = 0
    retired: bool = False
    # Where loading it failed since it was last asked for.
    barred: set[str] = field(default_factory=set)
    instances: dict[str, InstanceState] = field(default_factory=dict)

    def sites(self, *states: InstanceState) -> tuple[str, ...]:
        """Where it is in one of these states."""
        return tuple(name for name, state in self.instances.items() if state in states)

    @property
    def standing(self) -> tuple[str, ...]:
        """Where it is or will be."""
        return self.sites(InstanceState.LOADING, InstanceState.READY)

    @property
    def rank(self) -> int:
        """Whose memory is kept first: the pinned, then those on their way, a new pinned one among them."""
        return 1 if self.holds else 2 - 2 * self.pinned

    @property
    def stay_ns(self) -> int:
        """How long it stays at least while it is busy: as long as bringing it back takes."""
        return max(MIN_STAY_NS, round(self.reload_s * 1e9))

    def ready(self, away: Collection[str]) -> bool:
        """Whether a worker that is not away has it."""
        return any(name not in away for name in self.sites(InstanceState.READY))
