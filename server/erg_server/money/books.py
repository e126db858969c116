"""What is asked of the books of time and energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from erg_server.energy.account import Account, AccountTotal, BusyPower, Source


class Books(BusyPower, Protocol):
    """What is booked, where each domain's energy comes from, and what devices take while they are busy."""

    def totals(self) -> Mapping[Account, AccountTotal]:
        """What is booked on each account since the server started."""
        ...

    def source_of(self, domain: str) -> Source:
        """Where the energy of a domain's accounts comes from."""
        ...
