"""How much memory models may take on each kind of device, as the settings state it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes that models may take on the CPU host, and on each GPU or MIG instance; None where there is no bound."""

    cpu_bytes: int | None = None
    gpu_bytes: int | None = None

    def pools(self, devices: Sequence[Device]) -> dict[str, int]:
        """The budget of each memory pool of these devices that has one."""
        budgets = {"cpu": self.cpu_bytes, "gpu": self.gpu_bytes}
        found = {device.memory_pool: budgets[device.kind] for device in devices}
        return {pool: budget for pool, budget in found.items() if budget is not None}


def parse_budgets(stated: Sequence[str]) -> MemoryBudget:
    """Read `--memory-budget`: a size for every device, or KIND=SIZE for those of one kind.

    Raises:
        InvalidArgumentError: no such kind, no size, or a kind that is given twice.
    """
    budgets: dict[str, int] = {}
    for text in stated:
        kind, equals, size = text.rpartition("=")
        if equals and kind not in {"cpu", "gpu"}:
            raise InvalidArgumentError(f"--memory-budget {text}: there is no kind '{kind}'; allowed: cpu, gpu")
        for each in (kind,) if equals else ("cpu", "gpu"):
            if each in budgets:
                raise InvalidArgumentError(f"--memory-budget {text}: the budget of kind {each} is given twice")
            budgets[each] = parse_size(size, f"--memory-budget {text}")
    return MemoryBudget(budgets.get("cpu"), budgets.get("gpu"))


def parse_size(text: str, what: str) -> int:
    """Bytes from 8GiB, 500MB or 1048576; `what` is what errors call it.

    Raises:
        InvalidArgumentError: it is no size, or none above 0.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match.group(2).upper()) if match else None
    nbytes = round(float(match.group(1)) * unit) if match and unit else 0
    if nbytes < 1:
        raise InvalidArgumentError(f"{what}: '{text}' is no size above 0; write it as 8GiB, 500MB or 1048576")
    return nbytes
