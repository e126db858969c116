"""One model offered more than its workers can do: goodput beside capacity, and how fast refusals are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from bench.calibration import Loads
from bench.paced_client import Stream, closed_loop, steady_ns
from bench.paced_run import (
    DROPPED,
    REFUSED,
    Bench,
    Run,
    answered_per_s,
    cores,
    latencies_ns,
    lateness_ms,
    percentile_ms,
)
from bench.serving import Served
from erg_loadtest.arrivals import NS_PER_S
from erg_loadtest.samples import Samples
from rich.table import Table


def overload(
    bench: Bench, servers: Mapping[str, Served], model: str, loads: Loads, *, times: float, rounds: int, seconds: float,
    callers: int, seed: int,
) -> list[tuple[Run, Run]]:  # fmt: skip
    """The capacity, by a closed loop without objectives, and the overload, in turns."""
    pairs = []
    payloads = loads.payloads[model]
    for number in range(rounds):
        label = f"round {number + 1} of {rounds}, {model}"
        closed = closed_loop(model, payloads, callers)
        capacity = bench.run(f"{label}: capacity, {callers} callers", servers["without"], [closed], seconds / 2)
        due_ns = steady_ns(times * answered_per_s(capacity, model), seconds, seed + number)
        offered = Stream(model=model, payloads=payloads, due_ns=due_ns)
        pairs.append((capacity, bench.run(f"{label}: {times:g} times that", servers["objectives"], [offered], seconds)))
    return pairs


def overload_table(pairs: Sequence[tuple[Run, Run]], model: str, loads: Loads) -> Table:
    """Goodput beside capacity, and how fast refusals were, a round a column."""
    table = Table("", title=f"{model}, objective {loads.objective_ms[model]:g} ms")
    columns = []
    for number, (capacity, run) in enumerate(pairs, 1):
        table.add_column(f"round {number}", justify="right")
        columns.append(overload_figures(capacity, run, model, loads))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def overload_figures(capacity: Run, run: Run, model: str, loads: Loads) -> dict[str, str]:
    """One round, by the names of its figures."""
    part = run.parts[model]
    samples, counts = part.samples, part.counts
    refused = samples.status == REFUSED
    refusals_ns = (samples.done_ns - samples.sent_ns)[refused]
    late = int(samples.succeeded.sum()) - in_objective(samples, loads.objective_ms[model])
    figures = {
        "capacity /s": f"{answered_per_s(capacity, model):.0f}",
        "offered /s": f"{len(samples) / sent_s(samples):.0f}",
        "goodput /s": f"{in_objective(samples, loads.objective_ms[model]) / sent_s(samples):.0f}",
        "goodput ÷ capacity": f"{goodput(capacity, run, model, loads):.2f}",
        "the same for a second of the workers' CPU": f"{goodput_of_cpu(capacity, run, model, loads):.2f}",
        "answered late": f"{late / len(samples):.1%}",
        "refused": f"{float(refused.mean()):.1%}",
        "dropped": f"{float((samples.status == DROPPED).mean()):.1%}",
        "a refusal at the client, p50 ms": f"{percentile_ms(refusals_ns, 50):.2f}",
        "a refusal at the client, p99 ms": f"{percentile_ms(refusals_ns, 99):.2f}",
        "refusals and drops in the server, mean ms": f"{counts.failed_ns / 1e6 / max(1, counts.failed):.3f}",
    }
    for name, each in (("capacity", capacity), ("overload", run)):
        counts = each.parts[model].counts
        figures[f"{name}: mean batch"] = f"{counts.rows / max(1, counts.batches):.1f}"
        figures[f"{name}: front, workers, client, others"] = " ".join(cores([each]))
        figures[f"{name}: client late, p99 ms"] = f"{lateness_ms([each]):.2f}"
    return figures


def sent_s(samples: Samples) -> float:
    """From the first request to the last."""
    return (int(samples.due_ns.max()) - int(samples.due_ns.min())) / NS_PER_S


def in_objective(samples: Samples, objective_ms: float) -> int:
    """How many were answered within the objective of when they were due."""
    return int((latencies_ns(samples) <= objective_ms * 1e6).sum())


def goodput(capacity: Run, run: Run, model: str, loads: Loads) -> float:
    """To the capacity."""
    samples = run.parts[model].samples
    return in_objective(samples, loads.objective_ms[model]) / sent_s(samples) / answered_per_s(capacity, model)


def goodput_of_cpu(capacity: Run, run: Run, model: str, loads: Loads) -> float:
    """To the capacity, each for the CPU time that the workers had: what refusing and sending took from them is out."""
    good = in_objective(run.parts[model].samples, loads.objective_ms[model])
    answered = int(capacity.parts[model].samples.succeeded.sum())
    return (good / run.workers_cpu_s) / (answered / capacity.workers_cpu_s)


def overload_verdicts(pairs: Sequence[tuple[Run, Run]], model: str, loads: Loads) -> tuple[float, float]:
    """Goodput to capacity, the median of the rounds, and the p99 of a refusal in milliseconds, of all of them."""
    refusals = [
        (samples.done_ns - samples.sent_ns)[samples.status == REFUSED]
        for samples in (run.parts[model].samples for _, run in pairs)
    ]
    ratio = statistics.median(goodput(capacity, run, model, loads) for capacity, run in pairs)
    return ratio, percentile_ms(np.concatenate(refusals), 99)
