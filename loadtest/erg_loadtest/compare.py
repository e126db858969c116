"""Whether one run was cheaper than another, by how much, and whether that is more than chance. Pure.

Each figure of both runs has an interval over blocks of time; the interval of their ratio follows (see `intervals`). It
knows nothing of what changes between two runs beside the server: take them in turns on an idle machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from erg_loadtest.document import RunDocument
from erg_loadtest.errors import PlanError
from erg_loadtest.figure import Figure
from erg_loadtest.figure_text import TITLES
from erg_loadtest.intervals import Interval, quotient

Verdict = Literal["less", "more", "cannot tell"]
Outcome = Literal["cheaper", "dearer", "cannot tell"]

PRICES = (
    "usd_per_1000", "usd_per_1000_whole", "joules_per_1000", "joules_per_1000_whole", "cpu_price_per_1000",
    "cpu_s_per_1000",
)  # fmt: skip
"""What tells which run was cheaper: the first of these that both have, from the same source and in the same unit."""


class IncomparableError(PlanError):
    """The runs differ in more than what served them, or one of them is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One figure of two runs: what the second's is over the first's."""

    name: str
    first: Figure
    second: Figure
    ratio: Interval | None
    verdict: Verdict
    note: str = ""
    """Why there is no interval."""

    @property
    def modelled(self) -> bool:
        """Whether either side rests on stated watts."""
        return "modelled" in {self.first.source, self.second.source}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One run against the first."""

    first: str
    second: str
    contrasts: tuple[Contrast, ...]
    price: str
    """The figure that decides; "" where they share none."""
    outcome: Outcome
    forced: tuple[str, ...]
    """Why they should not have been compared."""
    notes: tuple[str, ...]

    @property
    def decisive(self) -> Contrast | None:
        """The contrast of `price`."""
        return next((each for each in self.contrasts if each.name == self.price), None)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def compare(first: RunDocument, second: RunDocument, *, force: bool = False) -> Comparison:
    """What `second` is against `first`; raises IncomparableError unless both are valid runs of one load, or forced."""
    against = obstacles(first, second)
    if against and not force:
        raise IncomparableError(
            f"'{first.label}' and '{second.label}' cannot be compared: {'; '.join(against)} (--force does it anyway)"
        )
    contrasts = tuple(
        _contrast(name, first.figures[name], second.figures[name])
        for name in TITLES
        if name in first.figures and name in second.figures
    )
    price = next((name for name in PRICES if any(each.name == name and not each.note for each in contrasts)), "")
    verdict: Verdict = next((each.verdict for each in contrasts if each.name == price), "cannot tell")
    outcomes: Mapping[Verdict, Outcome] = {"less": "cheaper", "more": "dearer", "cannot tell": "cannot tell"}
    return Comparison(
        first=first.label,
        second=second.label,
        contrasts=contrasts,
        price=price,
        outcome=outcomes[verdict],
        forced=tuple(against),
        notes=tuple(_notes(first, second)),
    )


def obstacles(first: RunDocument, second: RunDocument) -> list[str]:
    """Why two runs cannot be compared; none when they can."""
    found = [
        f"'{run.label}' is invalid, its client was the bottleneck" for run in (first, second) if not run.valid
    ]  # fmt: skip
    for key in ("arrivals", "scenario"):
        one, other = _without_seed(first.plan.get(key)), _without_seed(second.plan.get(key))
        if one != other:
            what = "arrivals" if key == "arrivals" else "requests"
            found.append(f"their {what} differ ({_difference(one, other)})")
    return found


def sentence(comparison: Comparison) -> str:
    """The outcome in words."""
    decisive = comparison.decisive
    if decisive is None or decisive.ratio is None:
        return (
            f"Cannot tell whether {comparison.second} is cheaper than {comparison.first}: they share no figure of cost."
        )
    title = TITLES[decisive.name] + (", modelled" if decisive.modelled else "")
    change = f"{_percent(decisive.ratio.value)} {_bounds(decisive.ratio)} in {title}"
    if comparison.outcome == "cannot tell":
        return (
            f"Cannot tell whether {comparison.second} is cheaper than {comparison.first}: {change}, "
            "which chance explains. Run longer."
        )
    return f"{comparison.second} is {comparison.outcome} than {comparison.first}: {change}."


def _contrast(name: str, first: Figure, second: Figure) -> Contrast:
    note = ""
    if first.source != second.source:
        note = f"one is {first.source}, the other {second.source}"
    elif first.unit != second.unit:
        note = f"one is in {first.unit}, the other in {second.unit}"
    elif not first.method or not second.method:
        note = first.note or second.note or "without an interval nothing can be told"
    ratio = None if note else quotient(second.interval, first.interval)
    verdict: Verdict = "cannot tell"
    if ratio is not None and ratio.high is not None and ratio.high < 1:
        verdict = "less"
    elif ratio is not None and ratio.low is not None and ratio.low > 1:
        verdict = "more"
    return Contrast(name=name, first=first, second=second, ratio=ratio, verdict=verdict, note=note)


def _notes(first: RunDocument, second: RunDocument) -> list[str]:
    notes = []
    if first.machine != second.machine:
        notes.append("They ran on different machines.")
    if first.power_source != second.power_source:
        notes.append(f"Power sources differ: {first.power_source}; {second.power_source}.")
    successes = [run.figures["success"].value for run in (first, second) if "success" in run.figures]
    if len(successes) == 2 and abs(successes[0] - successes[1]) > 0.01:
        notes.append(f"They answered different shares: {successes[0]:.1%} and {successes[1]:.1%}.")
    accuracy = first.quality.performance, second.quality.performance
    if accuracy[0] is not None and accuracy[1] is not None and accuracy[0] != accuracy[1]:
        notes.append(f"Their performance differs: {accuracy[0]:g} and {accuracy[1]:g}.")
    return notes


def _without_seed(value: object) -> object:
    # Another seed makes other requests of the same kind, which is what comparing runs of chance is about.
    return {key: entry for key, entry in value.items() if key != "seed"} if isinstance(value, Mapping) else value


def _difference(one: object, other: object) -> str:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return f"{one} and {other}"
    keys: Sequence[str] = [key for key in (*one, *other) if one.get(key) != other.get(key)]
    return ", ".join(f"{key} {one.get(key)} and {other.get(key)}" for key in dict.fromkeys(keys))


def _percent(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.1f} %"


def _bounds(ratio: Interval) -> str:
    low, high = ("?" if bound is None else _percent(bound) for bound in (ratio.low, ratio.high))
    return f"[{low}, {high}]"


def ratio_text(ratio: Interval | None) -> str:
    """A change in per cent and, on a line of their own, its bounds; "" without one."""
    return "" if ratio is None else f"{_percent(ratio.value)}\n{_bounds(ratio)}"
