"""The Pareto front of runs: those that no other one beats in accuracy, p99, joules and dollars at once. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from erg_loadtest.document import RunDocument
from erg_loadtest.page import Picture, Table
from erg_loadtest.svg import Axis, Point, Series, chart, number

AXES = ("performance", "p99_ms", "joules", "usd", "cpu_s")
_TITLES: Mapping[str, str] = {
    "performance": "performance",
    "p99_ms": "p99, ms",
    "joules": "J per 1,000",
    "usd": "cost per 1,000",
    "cpu_s": "CPU s per 1,000",
}
_FIGURES: Mapping[str, Sequence[str]] = {
    "joules": ("joules_per_1000", "joules_per_1000_whole"),
    "usd": ("usd_per_1000", "usd_per_1000_whole", "cpu_price_per_1000"),
    "cpu_s": ("cpu_s_per_1000",),
}
_COST_AXES = ("usd", "joules", "cpu_s", "p99_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """`axes` are those that every run has a figure on; CPU time is one only without joules and money."""

    axes: tuple[str, ...]
    values: tuple[Mapping[str, float], ...]
    """Of each run, in their order."""
    modelled: frozenset[str]
    """Axes of which some figure rests on stated watts."""
    members: tuple[int, ...]
    chosen: int | None
    reason: str


def front(runs: Sequence[RunDocument], *, p99_ms: float | None = None) -> Front:
    """The front of `runs`, and the cheapest member of it that keeps a p99 of `p99_ms`, if that is given."""
    names = {axis: _figure_name(axis, runs) for axis in AXES}
    axes = [axis for axis in AXES if names[axis] is not None]
    if {"joules", "usd"} & set(axes) and "cpu_s" in axes:
        axes.remove("cpu_s")
    values = [{axis: _value(run, axis, names[axis]) for axis in axes} for run in runs]
    members = [
        index
        for index, own in enumerate(values)
        if not any(_beats(other, own, axes) for place, other in enumerate(values) if place != index)
    ]
    chosen, reason = _choice(values, members, axes, p99_ms)
    return Front(
        axes=tuple(axes),
        values=tuple(values),
        modelled=frozenset(axis for axis in axes if _modelled(runs, names[axis])),
        members=tuple(members),
        chosen=chosen,
        reason=reason,
    )


def front_pictures(runs: Sequence[RunDocument], found: Front) -> list[Picture]:
    """One picture for each pair of axes; members are filled, the chosen one has a ring."""
    table = front_table(runs, found)
    return [
        Picture(
            title=f"{axis_title(up, found)} against {axis_title(across, found)}",
            svg=chart(
                f"{axis_title(up, found)} against {axis_title(across, found)}",
                "One point a run; filled ones are on the Pareto front over all axes, the ringed one is chosen.",
                Axis(label=axis_title(across, found)),
                Axis(label=axis_title(up, found)),
                [Series(name="runs", kind="dots", points=_points(runs, found, across, up))],
            ),
            table=table,
            note="Filled points are on the front over all axes, the ringed one is chosen; numbers are the table's.",
        )
        for up, across in combinations(found.axes, 2)
    ]


def front_table(runs: Sequence[RunDocument], found: Front) -> Table:
    """Every run with its value on each axis, and whether it is on the front."""
    rows = [
        [
            str(index + 1), run.label, *(number(found.values[index][axis]) for axis in found.axes),
            "chosen" if index == found.chosen else "on the front" if index in found.members else "beaten",
        ]
        for index, run in enumerate(runs)
    ]  # fmt: skip
    return Table(
        headings=("", "run", *(axis_title(axis, found) for axis in found.axes), ""),
        rows=rows,
        numbers=frozenset({0, *range(2, len(found.axes) + 2)}),
        chosen=found.chosen,
    )


def _points(runs: Sequence[RunDocument], found: Front, across: str, up: str) -> list[Point]:
    return [
        Point(
            x=found.values[index][across],
            y=found.values[index][up],
            label=str(index + 1),
            marked=index == found.chosen,
            hollow=index not in found.members,
        )
        for index in range(len(runs))
    ]


def _figure_name(axis: str, runs: Sequence[RunDocument]) -> str | None:
    """The figure that stands for an axis in every run; axes without one are left out."""
    if axis == "performance":
        return axis if all(run.quality.performance is not None for run in runs) else None
    names = ("latency_p99_us",) if axis == "p99_ms" else _FIGURES[axis]
    for name in names:
        if all(name in run.figures for run in runs) and len({run.figures[name].unit for run in runs}) == 1:
            return name
    return None


def _value(run: RunDocument, axis: str, name: str | None) -> float:
    if axis == "performance":
        return run.quality.performance or 0.0
    assert name is not None
    return run.figures[name].value / (1000 if axis == "p99_ms" else 1)


def _modelled(runs: Sequence[RunDocument], name: str | None) -> bool:
    return any(found.source == "modelled" for run in runs if name and (found := run.figures.get(name)) is not None)


def _beats(other: Mapping[str, float], own: Mapping[str, float], axes: Sequence[str]) -> bool:
    pairs = [(-other[axis], -own[axis]) if axis == "performance" else (other[axis], own[axis]) for axis in axes]
    return all(theirs <= ours for theirs, ours in pairs) and any(theirs < ours for theirs, ours in pairs)


def _choice(
    values: Sequence[Mapping[str, float]], members: Sequence[int], axes: Sequence[str], p99_ms: float | None
) -> tuple[int | None, str]:
    price = next((axis for axis in _COST_AXES if axis in axes), None)
    if price is None:
        return None, "nothing is chosen: the runs share no figure of cost or latency"
    kept = [index for index in members if p99_ms is None or values[index].get("p99_ms", float("inf")) <= p99_ms]
    if not kept:
        return None, f"nothing is chosen: no run keeps a p99 of {p99_ms:g} ms"
    within = "" if p99_ms is None else f" that keeps a p99 of {p99_ms:g} ms"
    chosen = min(kept, key=lambda index: values[index][price])
    return chosen, f"the least {_TITLES[price]} of the front{within}"


def axis_title(axis: str, found: Front) -> str:
    """An axis in words, marked where its figures are modelled."""
    return _TITLES[axis] + (" (modelled)" if axis in found.modelled else "")
