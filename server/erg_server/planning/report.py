"""A plan as people read it: tables of models, devices and memory, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from erg_server.planning.advice import MOST_FURTHER, KindAdvice
from erg_server.planning.batch_times import sizes_to
from erg_server.planning.forecast import ATTAINMENT, DeviceForecast, Forecast, MemoryForecast, ModelForecast

FEW_REQUESTS = 1000
"""Of fewer requests, less than ten are beyond the 99th percentile, and it says little."""
_STYLES = {"met": "green", "missed": "bold red", "falls behind": "bold red", "no memory": "bold red"}
_PLACE_COLUMNS = ("model", "devices", "mean ms of a batch by rows", "p99/mean", "known from")
_ANSWER_COLUMNS = ("model", "offered/s", "goodput/s", "in time", "p50 ms", "p99 ms", "SLO ms", "verdict")
_LOSS_COLUMNS = ("model", "refused", "dropped", "late")
_NAMES_SHOWN = 4


def print_plan(
    console: Console, found: Forecast, advice: Sequence[KindAdvice] | None, passed_over: Mapping[str, str]
) -> None:
    """Write everything; `advice` is None where it was not asked for."""
    labels = _labels(found.models)
    console.print(Text("Placement", "bold"), _places(found.models, labels))
    served = [(each, label) for each, label in zip(found.models, labels, strict=True) if each.offered_per_s]
    console.print(Text("Requests", "bold"), _answers(served))
    lost = [(each, label) for each, label in served if each.refused_share or each.dropped_share or each.late_share]
    if lost:
        console.print(Text("Requests that are not answered in time", "bold"), _losses(lost))
    console.print(Text("Devices", "bold"), _devices(found.devices))
    console.print(Text("Memory", "bold"), _memory(found.memory))
    for name, reason in passed_over.items():
        console.print(Text(f"not planned: {name}, which would not be served: {reason}", "yellow"))
    for line in _remarks(found):
        console.print(Text(line, "yellow"))
    console.print(_verdict(found, advice))


def _labels(models: Sequence[ModelForecast]) -> list[str]:
    """Names, and versions where a model has several."""
    names = [each.model.name for each in models]
    return [
        f"{name} v{each.model.version}" if names.count(name) > 1 else name
        for name, each in zip(names, models, strict=True)
    ]


def _places(models: Sequence[ModelForecast], labels: Sequence[str]) -> RenderableType:
    table = _table(_PLACE_COLUMNS, numbers=(3,))
    for each, label in zip(models, labels, strict=True):
        times, cells = each.model.times, ("", "", "")
        if times is not None:
            sizes = sizes_to(each.model.most_batch_rows)
            means = ", ".join(f"{rows}: {times.mean_ns(rows) / 1e6:.3g}" for rows in sizes)
            cells = (means, f"{times.spread:.3g}", times.source)
        # Never read as markup: names are whatever the repository has.
        table.add_row(*map(Text, (label, _names(each.devices) or "none", *cells)))
    return table


def _answers(served: Sequence[tuple[ModelForecast, str]]) -> RenderableType:
    table = _table(_ANSWER_COLUMNS, numbers=range(1, 7))
    for each, label in served:
        objective_ns = each.model.spec.objective_ns
        cells = (
            label,
            f"{each.offered_per_s:.4g}",
            f"{each.goodput_per_s:.4g}",
            _percent(each.in_time_share),
            _milliseconds(each.p50_ns),
            _milliseconds(each.p99_ns),
            f"{objective_ns / 1e6:g}" if objective_ns else "",
            each.status,
        )
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in cells))
    return table


def _losses(lost: Sequence[tuple[ModelForecast, str]]) -> RenderableType:
    table = _table(_LOSS_COLUMNS, numbers=range(1, 4))
    for each, label in lost:
        shares = (each.refused_share, each.dropped_share, each.late_share)
        table.add_row(Text(label), *map(_percent, shares))
    return table


def _devices(devices: Sequence[DeviceForecast]) -> RenderableType:
    table = _table(("device", "utilization", "models"), numbers=(1,))
    for each in devices:
        table.add_row(each.name, f"{each.utilization:.1%}", Text(_names(each.models) or "none"))
    return table


def _memory(memory: Sequence[MemoryForecast]) -> RenderableType:
    table = _table(("memory of", "models MB", "budget MB", "there are MB"), numbers=(1, 2, 3))
    for each in memory:
        style = "bold red" if each.exceeded else ""
        cells = (each.used_bytes, each.budget_bytes, each.capacity_bytes)
        table.add_row(each.pool, *(Text(_megabytes(nbytes), style) for nbytes in cells))
    return table


def _remarks(found: Forecast) -> Iterator[str]:
    few = [each.model.name for each in found.models if 0 < each.requests < FEW_REQUESTS]
    if few:
        yield f"fewer than {FEW_REQUESTS} requests of {_names(few)}, so that its p99 says little: raise --seconds"
    for memory in found.memory:
        if memory.exceeded:
            yield f"the models take more memory than {memory.pool} has: state a --memory-budget, or drop some"


def _verdict(found: Forecast, advice: Sequence[KindAdvice] | None) -> RenderableType:
    if found.met:
        return Text(f"every objective is met: {ATTAINMENT:.0%} of all requests are answered in time", "bold green")
    failing = ", ".join(found.unmet) or "memory"
    lines = [Text(f"objectives are not met: {failing}", "bold red")]
    for each in advice or ():
        lines += [Text(f"  {line}") for line in advice_lines(each)]
    return Group(*lines)


def advice_lines(advice: KindAdvice) -> Iterator[str]:
    """What to buy and what to drop, a sentence each."""
    for name in advice.hopeless:
        yield f"{name}: one request alone takes longer than its objective; only a cheaper model or more time helps"
    if advice.budget_bytes is not None:
        yield f"memory: --memory-budget {advice.kind}={advice.budget_bytes} would hold one instance of every model"
    if advice.further:
        others = " for all others" if advice.hopeless else ""
        yield f"buy: {advice.further} more of kind {advice.kind} would do{others}"
    elif advice.further is None and advice.budget_bytes is None:
        yield f"buy: not even {MOST_FURTHER} more of kind {advice.kind} would do"
    elif advice.further is None:
        yield "buy: further CPU workers share the same memory and do not help"
    if advice.counted and advice.further is None:
        yield f"instance_group states a count for {_names(advice.counted)}: raise it, or leave it to the server"
    if advice.removals is None:
        return
    if len(advice.removals) == 1:
        yield f"drop: without {' and '.join(advice.removals[0])} the others are met"
    elif advice.removals:
        yield f"drop: any one of {', '.join(' with '.join(names) for names in advice.removals)}"
    else:
        yield "drop: no set of models was found whose removal would do"


def _table(columns: Sequence[str], numbers: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        figure = number in numbers
        table.add_column(column, overflow="fold", justify="right" if figure else "left", no_wrap=figure)
    return table


def _names(names: Sequence[str]) -> str:
    """The names, the first ones of many."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _milliseconds(duration_ns: int | None) -> str:
    return "" if duration_ns is None else f"{duration_ns / 1e6:.4g}"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share else "0"


def _megabytes(nbytes: int | None) -> str:
    return "" if nbytes is None else f"{nbytes / 1e6:.4g}"
