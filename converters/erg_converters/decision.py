"""What a conversion asks of whoever judges its candidates, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from erg_server.repository.manifest import Accuracy, Golden, Measurement, Verdict

from erg_converters.artifact import Artifact
from erg_converters.plan import CandidatePlan
from erg_converters.progress import RunningStep
from erg_converters.report import CandidateRecord, GateRecord

JUDGED_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A candidate that has a file."""

    plan: CandidatePlan
    artifact: Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the gate found of one candidate."""

    format_version: int = JUDGED_FORMAT_VERSION
    gate: GateRecord
    accuracy: Accuracy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which candidate is to be served and why; a verdict on each for every shape; the front, cheapest first."""

    chosen: str
    reason: str
    verdicts: tuple[Verdict, ...] = ()
    front: tuple[str, ...] = ()


class Judging(Protocol):
    """The gate, the clock and the rule."""

    def judge(self, candidate: Made, source: Made, step: RunningStep) -> Judged:
        """Hold a candidate against the source; raises ErgError where it does not run."""

    def measure(self, made: Sequence[Made], step: RunningStep) -> tuple[Measurement, ...]:
        """Time what passed in turns, the source first."""

    def decide(self, records: Sequence[CandidateRecord], measurements: Sequence[Measurement]) -> Decision:
        """Choose among the candidates that passed; the source is always one of them."""

    def golden(self, winner: Made, source: Made) -> Golden | None:
        """Inputs with the winner's answers, for servers to reproduce; None where they would be too large."""
