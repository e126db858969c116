"""A quiet model beside one in bursts on the same workers: its latencies to those it has alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bench.calibration import Loads
from bench.paced_client import Stream, steady_ns
from bench.paced_run import (
    DROPPED,
    REFUSED,
    Bench,
    Part,
    Run,
    cores,
    latencies_ns,
    lateness_ms,
    percentile_ms,
)
from bench.serving import Served
from erg_loadtest.arrivals import NS_PER_S
from erg_loadtest.samples import OK, Int64s
from rich.table import Table

Case = tuple[str, str]
"""The kind of server, "objectives" or "without"; then "alone" or "bursts"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the sharing part sends."""

    quiet: str
    burst: str
    quiet_per_s: float
    burst_per_s: float
    seconds: float
    burst_s: float
    every_s: float


def sharing_streams(pace: Pace, loads: Loads, seed: int) -> tuple[Stream, Stream]:
    """The quiet model's stream and the other's; the same for the same seed."""
    return (
        Stream(
            model=pace.quiet,
            payloads=loads.payloads[pace.quiet],
            due_ns=steady_ns(pace.quiet_per_s, pace.seconds, seed),
        ),
        Stream(
            model=pace.burst,
            payloads=loads.payloads[pace.burst],
            due_ns=bursts_ns(
                pace.burst_per_s, pace.seconds, seed + 1, burst_s=pace.burst_s, every_s=pace.every_s
            ),
        ),
    )  # fmt: skip


def sharing(
    bench: Bench, servers: Mapping[str, Served], pace: Pace, loads: Loads, *, rounds: int, seed: int
) -> dict[Case, list[Run]]:
    """Every case once a round, in turns; the arrivals of a round are the same in each case."""
    runs: dict[Case, list[Run]] = {}
    for number in range(rounds):
        quiet, burst = sharing_streams(pace, loads, seed + 1000 * number)
        for kind, server in servers.items():
            for case, streams in (("alone", [quiet]), ("bursts", [quiet, burst])):
                title = f"round {number + 1} of {rounds}, {kind}: {pace.quiet} {case}"
                runs.setdefault((kind, case), []).append(bench.run(title, server, streams, pace.seconds))
    return runs


def bursts_ns(rate_per_s: float, seconds: float, seed: int, *, burst_s: float, every_s: float) -> Int64s:
    """Poisson arrivals in the last `burst_s` of each `every_s`, nothing between."""
    active_ns = steady_ns(rate_per_s, seconds // every_s * burst_s, seed)
    burst_ns = round(burst_s * NS_PER_S)
    return (
        active_ns // burst_ns * round(every_s * NS_PER_S) + round((every_s - burst_s) * NS_PER_S) + active_ns % burst_ns
    )


def pooled_ms(runs: Sequence[Run], model: str, percentile: float) -> float:
    """Over the answers of all rounds, from when each was due."""
    return percentile_ms(
        np.concatenate([latencies_ns(run.parts[model].samples) for run in runs]), percentile
    )  # fmt: skip


def sharing_tables(runs: Mapping[Case, Sequence[Run]], pace: Pace, loads: Loads) -> list[Table]:
    """The quiet model's figures, then the other's and the machine's."""
    quiet = Table(
        "",
        "sent",
        "answered",
        "refused",
        "in objective",
        "p50 ms",
        "p99 ms",
        "p99 ÷ alone",
        "by round",
        title=pace.quiet,
    )
    rest = Table(
        "", "answered", "refused", "dropped", "mean batch", "front", "workers", "client", "others",
        "client late p99 ms", title=f"{pace.burst} in bursts, and who had how much of a core",
    )  # fmt: skip
    objective_ns = loads.objective_ms[pace.quiet] * 1e6
    for (kind, case), each in runs.items():
        name, alone = f"{kind}, {case}", runs[kind, "alone"]
        samples = [run.parts[pace.quiet].samples for run in each]
        sent = sum(map(len, samples))
        latencies = [latencies_ns(entry) for entry in samples]
        p99s = [percentile_ms(entry, 99) for entry in latencies]
        alone_p99s = [percentile_ms(latencies_ns(run.parts[pace.quiet].samples), 99) for run in alone]
        p99 = pooled_ms(each, pace.quiet, 99)
        quiet.add_row(
            name,
            str(sent),
            f"{sum(map(len, latencies)) / sent:.1%}",
            f"{sum(int((entry.status == REFUSED).sum()) for entry in samples) / sent:.1%}",
            f"{sum(int((entry <= objective_ns).sum()) for entry in latencies) / sent:.1%}",
            f"{pooled_ms(each, pace.quiet, 50):.2f}",
            f"{p99:.2f}",
            "" if each is alone else f"{p99 / pooled_ms(alone, pace.quiet, 99):.2f}",
            " ".join(f"{p99 / base:.2f}" for p99, base in zip(p99s, alone_p99s, strict=True))
            if each is not alone
            else "",
        )
        other = [run.parts[pace.burst] for run in each if pace.burst in run.parts]
        rest.add_row(name, *shares(other), *cores(each), f"{lateness_ms(each):.2f}")
    return [quiet, rest]


def shares(parts: Sequence[Part]) -> list[str]:
    """Answered, refused and late of what was sent, and the mean batch."""
    status = np.concatenate([part.samples.status for part in parts]) if parts else np.empty(0, np.int64)
    if not len(status):
        return [""] * 4
    return [
        *(f"{float((status == code).mean()):.1%}" for code in (OK, REFUSED, DROPPED)),
        f"{sum(part.counts.rows for part in parts) / max(1, sum(part.counts.batches for part in parts)):.1f}",
    ]


def p99_to_alone(runs: Mapping[Case, Sequence[Run]], quiet: str) -> float:
    """The quiet model's p99 with bursts, to that alone, on the server that knows the objectives."""
    return pooled_ms(runs["objectives", "bursts"], quiet, 99) / pooled_ms(runs["objectives", "alone"], quiet, 99)
