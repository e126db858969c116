"""What a run of the published benchmark found: figures and where they come from, as plain values that JSON holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ERG = "Erg"
CONVERTED = "Erg, converted"
"""The same model as `erg convert` published it: cheaper, and not the same numbers. Never compared with the rivals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One server under one load in one round."""

    model: str
    server: str
    in_flight: int
    round: int
    requests_per_s: float
    cpu_us: float
    """CPU time of all the server's processes for each request answered."""
    p50_us: float
    p99_us: float
    client_cpu_us: float
    client_share: float
    """Of one core, which is all that one client process can have."""
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTurn:
    """ONNX Runtime alone in one round, at the batch size that costs it least."""

    model: str
    round: int
    batch: int
    requests_per_s: float
    cpu_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One setting of a rival that was tried before the rounds."""

    model: str
    server: str
    setting: str
    score: float
    """Geometric mean of requests a second over the loads; 0 where it did not run."""
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """What is missing, and why. An empty server stands for the whole model."""

    model: str
    server: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What `erg load --format json` said of one server."""

    server: str
    command: str
    document: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Record:
    """One run, whole. Everything that is published is made of this."""

    date: str
    machine: str
    versions: dict[str, str]
    busy_at_start: float
    """Cores that other programs used before the run began."""
    command: str
    rounds: int
    seconds: float
    loads: list[int]
    workers: int
    usd_per_cpu_hour: float
    watts_per_busy_core: float
    titles: dict[str, str] = field(default_factory=dict)
    raw: list[RawTurn] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    answers: dict[str, dict[str, str]] = field(default_factory=dict)
    """By model and server: how its answers compare with those of ONNX Runtime alone."""
    reports: list[LoadReport] = field(default_factory=list)

    def label(self, model: str) -> str:
        """A model's title, without what it is for."""
        return self.titles.get(model, model).partition(":")[0]

    def servers(self, model: str) -> list[str]:
        """Those with figures of a model, in the order in which they first ran."""
        return list(dict.fromkeys(turn.server for turn in self.turns if turn.model == model))

    def models(self) -> list[str]:
        """Those with figures."""
        return list(dict.fromkeys(turn.model for turn in self.turns))

    def turns_of(self, model: str, server: str, in_flight: int) -> list[Turn]:
        """One a round."""
        return [turn for turn in self.turns if (turn.model, turn.server, turn.in_flight) == (model, server, in_flight)]

    def raw_of(self, model: str) -> list[RawTurn]:
        """One a round."""
        return [turn for turn in self.raw if turn.model == model]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> Record:
        """The counterpart of `to_json`."""
        rest = dict(document)
        return Record(
            raw=[RawTurn(**each) for each in rest.pop("raw")],
            turns=[Turn(**each) for each in rest.pop("turns")],
            tried=[Tried(**each) for each in rest.pop("tried")],
            not_run=[NotRun(**each) for each in rest.pop("not_run")],
            reports=[LoadReport(**each) for each in rest.pop("reports")],
            **rest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of the rounds, and the least and the most."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(median=self.median * factor, low=self.low * factor, high=self.high * factor)


def spread(values: Iterable[float]) -> Spread | None:
    """None of nothing."""
    held = list(values)
    if not held:
        return None
    return Spread(median=statistics.median(held), low=min(held), high=max(held))


def of_raw(record: Record, model: str, server: str, in_flight: int) -> Spread | None:
    """CPU time of ONNX Runtime alone over the server's, each pair from one round: 1 would be no overhead at all."""
    raw_us = {turn.round: turn.cpu_us for turn in record.raw_of(model)}
    turns = record.turns_of(model, server, in_flight)
    return spread(raw_us[turn.round] / turn.cpu_us for turn in turns if turn.round in raw_us and turn.cpu_us)


def times_erg(record: Record, model: str, rival: str, in_flight: int, figure: Callable[[Turn], float]) -> Spread | None:
    """The rival's figure over Erg's, each pair from one round."""
    erg = {turn.round: figure(turn) for turn in record.turns_of(model, ERG, in_flight)}
    turns = record.turns_of(model, rival, in_flight)
    return spread(figure(turn) / erg[turn.round] for turn in turns if erg.get(turn.round))


def usd_per_1000(record: Record, cpu_us: float) -> float:
    """What the CPU time of 1,000 requests costs at the record's price."""
    return cpu_us * 1000 / 1e6 / 3600 * record.usd_per_cpu_hour


def modelled_joules_per_1000(record: Record, cpu_us: float) -> float:
    """CPU seconds of 1,000 requests times the stated power of a busy core. Modelled: nothing here measured power."""
    return cpu_us * 1000 / 1e6 * record.watts_per_busy_core


def best_setting(scores: Sequence[float]) -> int | None:
    """The index of the highest score; None where nothing ran."""
    if not scores or max(scores) <= 0:
        return None
    return max(range(len(scores)), key=scores.__getitem__)
