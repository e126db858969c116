"""What a batcher answers when it is asked whether a batch may go."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final


class Release(enum.StrEnum):
    """Why a batch was let go; the metric's label."""

    SINGLE = "single"
    """The model does not batch."""
    FULL = "full"
    PREFERRED = "preferred"
    DELAY = "delay"
    """Its oldest request waited for the longest delay allowed."""
    IDLE = "idle"
    """A worker was free, and no delay is configured or none would pay."""
    SLACK = "slack"
    """Its earliest deadline is due."""
    FLUSH = "flush"
    """The version is being drained."""


class Ready:
    """A batch may go now, of at most `limit_rows` of the `waiting_rows` that share `key`.

    Of the batches of several models, the one of the earliest `urgent_ns` goes first. `deadline_ns` is when its first
    request must be answered, None for one without a deadline.
    """

    __slots__ = ("deadline_ns", "key", "level", "limit_rows", "reason", "urgent_ns", "waiting_rows")

    def __init__(
        self,
        level: int,
        key: Hashable,
        *,
        waiting_rows: int,
        limit_rows: int,
        urgent_ns: int,
        reason: Release,
        deadline_ns: int | None,
    ) -> None:
        self.level = level
        self.key = key
        self.waiting_rows = waiting_rows
        self.limit_rows = limit_rows
        self.urgent_ns = urgent_ns
        self.reason = reason
        self.deadline_ns = deadline_ns


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing may go before `at_ns`, unless more requests come."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing waits."""


IDLE: Final = Idle()
