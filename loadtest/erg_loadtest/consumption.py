"""What a run took of the server by its own counters: joules, money, CPU time and memory, by account. Pure.

Erg books every joule and dollar on an account; `erg_energy_joules_total` and `erg_cost_usd_total` carry them. Triton
has only a counter of each GPU, `nv_energy_consumption`, for everything that ran on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from erg_loadtest.figure import Figure, Source, figure
from erg_loadtest.intervals import ratio
from erg_loadtest.metrics_page import Sample, samples
from erg_loadtest.server_cpu import CpuSeconds, cpu_seconds
from erg_loadtest.server_watch import Reading

ENERGY = "erg_energy_joules_total"
COST = "erg_cost_usd_total"
NV_ENERGY = "nv_energy_consumption"
BLOCK_METHOD = "ratio over blocks of time"
_MODEL_MEMORY = "erg_model_memory_bytes"
_WORKER_MEMORY = "erg_worker_memory_bytes"
_MAX_SPANS = 40

Scope = Literal["model", "other model", "shared"]
"""Whose an account is: the loaded model's, another one's, or nobody's (idle, the front process)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What was booked on one account during the run."""

    name: str
    scope: Scope
    model: str
    component: str
    """Of money: what was paid for; "" for energy."""
    total: float
    """Joules, or US dollars."""
    per_1000: Figure
    """For each 1,000 inferences of the loaded model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Energy or money of a run. `own` is the loaded model's share, `whole` all that the counters saw meanwhile."""

    accounts: tuple[Account, ...]
    own: Figure | None
    whole: Figure
    counter: str
    sources: tuple[str, ...]
    """As the server names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """Everything that the readings tell; a sentence stands where they do not."""

    energy: Use | str
    money: Use | str
    cpu: Figure | str
    """Seconds of all the server's processes for each 1,000 inferences."""
    power: Figure | str
    """Mean watts of all that the counters saw."""
    memory: Figure | str
    memory_of: str
    """The metric that `memory` was read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    seconds: float
    inferences: float
    before: Sequence[Sample]
    after: Sequence[Sample]
    cpu: CpuSeconds | None


def consumption(
    readings: Sequence[Reading],
    missing: str,
    *,
    model: str,
    version: str,
    done_ns: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> Consumption:
    """What the counters grew by. `done_ns` and `rows` are those of each rightly answered request, of shape [n]."""
    if len(readings) < 2:
        reason = missing or "the server's counters were not read twice"
        return Consumption(energy=reason, money=reason, cpu=reason, power=reason, memory=reason, memory_of="")
    spans, last = _spans(_thinned(readings), done_ns, rows)
    energy = _use(spans, _energy_series, "J", model, version)
    power: Figure | str = "the server tells no energy" if isinstance(energy, str) else _power(spans, energy)
    memory, memory_of = _memory(last, readings[-1].memory_bytes, model)
    return Consumption(
        energy=energy,
        money=_use(spans, _cost_series, "USD", model, version),
        cpu=_cpu(spans),
        power=power,
        memory=memory,
        memory_of=memory_of,
    )


@dataclass(frozen=True, slots=True)
class _Key:
    account: str
    component: str
    model: str
    version: str
    source: str
    counter: str


_Series = Callable[[Sequence[Sample]], dict[_Key, float]]


def _energy_series(page: Sequence[Sample]) -> dict[_Key, float]:
    found: dict[_Key, float] = defaultdict(float)
    names = {sample.name for sample in page}
    for sample in page:
        labels = sample.labels
        if sample.name == ENERGY:
            account = labels.get("account", "")
            key = _Key(
                account, "", labels.get("model", ""), labels.get("version", ""), labels.get("source", ""), ENERGY
            )
            found[key] += sample.value
        elif sample.name == NV_ENERGY and ENERGY not in names:
            found[_Key("whole GPU", "", "", "", "measured", NV_ENERGY)] += sample.value
    return found


def _cost_series(page: Sequence[Sample]) -> dict[_Key, float]:
    sources = {sample.labels.get("source", "") for sample in page if sample.name == ENERGY}
    power_source = "modelled" if "modelled" in sources else "measured"
    found: dict[_Key, float] = defaultdict(float)
    for sample in page:
        if sample.name != COST:
            continue
        labels = sample.labels
        component = labels.get("component", "")
        # Of a price only what it pays energy with rests on the power source.
        source = labels.get("source") or (power_source if "energy" in component else "measured")
        key = _Key(
            labels.get("account", ""), component, labels.get("model", ""), labels.get("version", ""), source, COST
        )
        found[key] += sample.value
    return found


def _use(spans: Sequence[_Span], series: _Series, unit: str, model: str, version: str) -> Use | str:
    grown: list[dict[_Key, float]] = []
    for span in spans:
        before, after = series(span.before), series(span.after)
        grown.append({key: value - before.get(key, 0.0) for key, value in after.items()})
        if any(value < 0 for value in grown[-1].values()) or not after.keys() >= before.keys():
            return "the counter went back: the server was replaced during the run"
    keys = {key for each in grown for key in each}
    if not keys:
        return f"the server has no {ENERGY if unit == 'J' else COST}"
    if not sum(span.inferences for span in spans):
        return "nothing was answered"
    named = {key for key in keys if key.source not in {"", "none"}}
    if not named:
        return "the server has no power source"

    def per_1000(wanted: set[_Key]) -> Figure:
        source: Source = "modelled" if any(key.source == "modelled" for key in wanted) else "measured"
        values = [sum(each.get(key, 0.0) for key in wanted) for each in grown]
        return _per_1000(spans, values, f"{unit} per 1,000", source)

    groups: dict[tuple[str, Scope, str, str], set[_Key]] = defaultdict(set)
    for key in named:
        groups[key.account, _scope(key, model, version), key.model, key.component].add(key)
    totals = {name: sum(each.get(key, 0.0) for each in grown for key in group) for name, group in groups.items()}
    own = {key for key in named if _scope(key, model, version) == "model"}
    return Use(
        accounts=tuple(
            Account(
                name=name, scope=scope, model=of, component=component, total=totals[name, scope, of, component],
                per_1000=per_1000(group),
            )
            for (name, scope, of, component), group in sorted(groups.items(), key=lambda item: -totals[item[0]])
            if totals[name, scope, of, component] > 0
        ),
        own=per_1000(own) if own else None,
        whole=per_1000(named),
        counter=next(iter(named)).counter,
        sources=tuple(sorted({key.source for key in named})),
    )  # fmt: skip


def _scope(key: _Key, model: str, version: str) -> Scope:
    if not key.model:
        return "shared"
    return "model" if key.model == model and (not version or key.version == version) else "other model"


def _per_1000(spans: Sequence[_Span], values: Sequence[float], unit: str, source: Source) -> Figure:
    inferences = [span.inferences for span in spans]
    return figure(
        ratio(values, inferences),
        unit,
        method=BLOCK_METHOD,
        plain=sum(values) / sum(inferences),
        factor=1000.0,
        source=source,
    )


def _power(spans: Sequence[_Span], energy: Use) -> Figure:
    joules = []
    for span in spans:
        before, after = _energy_series(span.before), _energy_series(span.after)
        joules.append(sum(after.values()) - sum(before.values()))
    seconds = [span.seconds for span in spans]
    source = energy.whole.source
    return figure(ratio(joules, seconds), "W", method=BLOCK_METHOD, plain=sum(joules) / sum(seconds), source=source)


def _cpu(spans: Sequence[_Span]) -> Figure | str:
    used = [span for span in spans if span.cpu is not None]
    values = [span.cpu.front + sum(span.cpu.by_worker.values()) for span in used if span.cpu is not None]
    if not used or not sum(span.inferences for span in used):
        return "the server's CPU time was not read, or it answered nothing"
    return _per_1000(used, values, "CPU s per 1,000", "measured")


def _memory(page: Sequence[Sample], of_process: int | None, model: str) -> tuple[Figure | str, str]:
    if of_process:
        return _bytes(of_process, "the process tree")
    own = [sample.value for sample in page if sample.name == _MODEL_MEMORY and sample.labels.get("model") == model]
    if own:
        return _bytes(sum(own), _MODEL_MEMORY)
    by_worker: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in page:
        if sample.name == _WORKER_MEMORY:
            by_worker[sample.labels.get("worker", "")][sample.labels.get("kind", "pss")] = sample.value
    if by_worker:
        # The proportional set, which the host may withhold, and what is on the GPU.
        total = sum(kinds.get("pss", kinds.get("rss", 0.0)) + kinds.get("gpu", 0.0) for kinds in by_worker.values())
        return _bytes(total, _WORKER_MEMORY)
    return "the server tells no memory", ""


def _bytes(value: float, of: str) -> tuple[Figure, str]:
    return Figure(value=float(value), unit="bytes", note=f"one reading, at the end, of {of}"), of


def _spans(
    readings: Sequence[Reading], done_ns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[list[_Span], Sequence[Sample]]:
    pages = [list(samples(reading.page)) if reading.page else [] for reading in readings]
    order = np.argsort(done_ns, kind="stable")
    answered = np.concatenate(([0], np.cumsum(rows[order])))
    upto = answered[np.searchsorted(done_ns[order], [reading.at_ns for reading in readings], side="right")]
    spans = []
    for (index, first), (_, second) in pairwise(enumerate(readings)):
        spans.append(
            _Span(
                seconds=(second.at_ns - first.at_ns) / 1e9,
                inferences=float(upto[index + 1] - upto[index]),
                before=pages[index],
                after=pages[index + 1],
                cpu=_spent(first.cpu or cpu_seconds(pages[index]), second.cpu or cpu_seconds(pages[index + 1])),
            )
        )
    return spans, pages[-1]


def _spent(before: CpuSeconds | None, after: CpuSeconds | None) -> CpuSeconds | None:
    spent = after.since(before) if before is not None and after is not None else ""
    return None if isinstance(spent, str) else spent


def _thinned(readings: Sequence[Reading]) -> Sequence[Reading]:
    step = -(-(len(readings) - 1) // _MAX_SPANS)
    kept = list(readings[::step])
    return kept if kept[-1] is readings[-1] else [*kept, readings[-1]]


def prices(use: Use) -> Mapping[str, float]:
    """What was paid for, in all accounts: totals by component."""
    found: dict[str, float] = defaultdict(float)
    for account in use.accounts:
        found[account.component] += account.total
    return found
