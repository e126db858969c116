"""What one answer cost, for callers who ask: its own phases, its part of its batch's energy, and dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from erg_server.energy.account import BusyPower
from erg_server.errors import InvalidArgumentError
from erg_server.money.costs import Tariff
from erg_server.request import Parameter, Phases

ASKED: Final = "erg_cost"
"""The request's parameter that asks."""


class AnswerCosts:
    """Estimates, since an answer goes out before any counter is read. Without power or prices it tells no figure."""

    def __init__(self, power: BusyPower | None = None, tariff: Tariff | None = None) -> None:
        self._power = power
        self._tariff = tariff
        self._usd_per_joule = 0.0 if tariff is None else tariff.energy_parts(10**6) / tariff.parts_per_usd

    def of(self, phases: Phases, *, rows: int, variant: str) -> dict[str, Parameter]:
        """Response parameters of an answer of `rows` rows.

        Joules are what its device takes above idle, on the mean of its last batches, for the batch's compute time and
        the answer's part of the batch's rows. Dollars are that energy and that part of the device's time.
        """
        compute_ns = phases.compute_input_ns + phases.compute_infer_ns + phases.compute_output_ns
        batch_rows = max(1, rows, phases.batch_rows)
        watts, source = (0.0, "none") if self._power is None else self._power.active_watts(phases.device)
        joules = watts * compute_ns * 1e-9 * rows / batch_rows
        cost: dict[str, Parameter] = {
            "erg_queue_us": (phases.dispatched_ns - phases.queued_ns) // 1000,
            "erg_compute_us": compute_ns // 1000,
            "erg_batch_rows": batch_rows,
            "erg_joules_source": source,
            "erg_model_variant": variant,
        }
        if source != "none":
            cost["erg_joules"] = joules
        if self._tariff is not None:
            parts = self._tariff.device_parts(phases.device, compute_ns * rows)
            usd = parts / (self._tariff.parts_per_usd * batch_rows)
            cost["erg_usd"] = usd + joules * self._usd_per_joule
        return cost


def asked(parameters: Mapping[str, Parameter]) -> bool:
    """Whether a request asks for its cost; raises InvalidArgumentError where it does not say yes or no."""
    value = parameters.get(ASKED, False)
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"parameter '{ASKED}' is true or false, not {value!r}")
    return value
