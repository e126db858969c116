"""One figure of a report: a value with its unit, its interval, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from erg_loadtest.errors import PlanError
from erg_loadtest.intervals import CONFIDENCE, Interval

Source = Literal["measured", "modelled"]
"""A counter's or a clock's own figure, or one that rests on watts that somebody stated."""


class DocumentError(PlanError):
    """A file is no document of `erg load`, or not of a format that this version reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`low` and `high` bound the value with `confidence`; None where the run does not bound it, as `note` says."""

    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    confidence: float = CONFIDENCE
    method: str = ""
    """What the interval was made by; "" without one."""
    source: Source = "measured"
    note: str = ""

    @property
    def interval(self) -> Interval:
        """The value and its bounds."""
        return Interval(value=self.value, low=self.low, high=self.high)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @staticmethod
    def from_json(document: object, where: str) -> Figure:
        """The counterpart of `to_json`; raises DocumentError that names `where`."""
        if not isinstance(document, Mapping) or document.get("source") not in {"measured", "modelled"}:
            raise DocumentError(f"{where} is no figure")
        bounds = [document.get(side) for side in ("value", "low", "high")]
        numbers = all(bound is None or (isinstance(bound, int | float) and bound == bound) for bound in bounds)  # noqa: PLR0124 - NaN
        if not numbers or bounds[0] is None or set(document) > set(Figure.__slots__):
            raise DocumentError(f"{where} is no figure")
        try:
            return Figure(**document)
        except TypeError as error:
            raise DocumentError(f"{where} is no figure: {error}") from None


def figure(
    found: Interval | str,
    unit: str,
    *,
    method: str,
    plain: float,
    factor: float = 1.0,
    source: Source = "measured",
    missing: str = "",
) -> Figure:
    """A figure of an interval, or of the `plain` value with the reason why it has none; both times `factor`."""
    if isinstance(found, str):
        return Figure(value=plain * factor, unit=unit, source=source, note=found)
    return Figure(
        value=found.value * factor,
        unit=unit,
        low=None if found.low is None else found.low * factor,
        high=None if found.high is None else found.high * factor,
        method=method,
        source=source,
        note=missing if None in {found.low, found.high} else "",
    )
