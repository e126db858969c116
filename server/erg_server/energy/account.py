"""The accounts that a device's energy and time are booked on. Their sum is what its counter says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

Source = Literal["measured", "modelled", "none"]
"""Where a figure of energy comes from: a counter of the hardware, watts that the operator stated, or nowhere."""

AccountKind = Literal[
    "inference", "padding", "late", "cancelled", "failed", "warmup", "worker", "front", "other", "idle"
]
"""What energy was for.

Of batches: rows whose answer was of use, the padding beside them, rows answered after their deadline, rows whose caller
went away while they ran, batches that failed, and what was run before a version served. Of the rest: a worker outside
its batches (loading, waiting for frames), the front process, whatever else ran on the machine, and what the device
takes when nothing runs.
"""
ACCOUNT_KINDS: Final[tuple[AccountKind, ...]] = (
    "inference", "padding", "late", "cancelled", "failed", "warmup", "worker", "front", "other", "idle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `domain` is what one counter measures (a GPU, or the CPU with its memory), `device` a worker in it.

    `model`, `version` and `tenant` are "" where the energy was nobody's; `device` is "" for a domain's own accounts.
    """

    domain: str
    kind: AccountKind
    device: str = ""
    model: str = ""
    version: str = ""
    tenant: str = ""


@dataclass(slots=True)
class AccountTotal:
    """What is booked on an account since the server started: microjoules, nanoseconds of device time, and rows."""

    energy_uj: int = 0
    busy_ns: int = 0
    rows: int = 0


class BusyPower(Protocol):
    """What a device takes above idle while it runs a batch; for answers, which go out before a counter is read."""

    def active_watts(self, device: str) -> tuple[float, Source]:
        """Mean watts above idle of the last batches, and where the figure comes from; (0, "none") without a source."""
        ...
