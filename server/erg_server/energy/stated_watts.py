"""Watts that the operator states (`--power-watts`): what a domain takes idle, and with all of it busy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from erg_server.errors import InvalidArgumentError

_STATED = re.compile(r"(cpu|gpu[0-9]*)=([0-9]{1,6}(?:\.[0-9]{1,6})?)(?::([0-9]{1,6}(?:\.[0-9]{1,6})?))?")


@dataclass(frozen=True, slots=True)
class StatedWatts:
    """`busy` is None where only the idle power of a source that measures is stated."""

    idle: float
    busy: float | None


def parse_watts(stated: Sequence[str]) -> dict[str, StatedWatts]:
    """Watts by domain: cpu, gpu0, gpu1, …, and `gpu` for GPUs that are not named.

    Raises:
        InvalidArgumentError: no watts, a domain that is stated twice, or less busy than idle.
    """
    watts: dict[str, StatedWatts] = {}
    for text in (part.strip() for each in stated for part in each.split(",")):
        match = _STATED.fullmatch(text)
        if match is None:
            raise InvalidArgumentError(
                f"--power-watts {text}: write it as cpu=IDLE:BUSY, gpu=IDLE:BUSY or gpu0=IDLE:BUSY in watts, or "
                "cpu=IDLE where a counter measures the rest"
            )
        domain, idle, busy = match.groups()
        if domain in watts:
            raise InvalidArgumentError(f"--power-watts {text}: the watts of {domain} are stated twice")
        found = StatedWatts(float(idle), None if busy is None else float(busy))
        if found.busy is not None and found.busy < found.idle:
            raise InvalidArgumentError(f"--power-watts {text}: a busy {domain} does not take less than an idle one")
        watts[domain] = found
    return watts


def watts_of(domain: str, stated: dict[str, StatedWatts]) -> StatedWatts | None:
    """What is stated for a domain, by its own name or its kind's."""
    return stated.get(domain, stated.get(domain.rstrip("0123456789")))
