"""One way to run a model, and what has become of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from erg_server.errors import ErgError
from erg_server.repository.manifest import PassRecord

from erg_converters.artifact import Artifact
from erg_converters.decision import Judged, Made
from erg_converters.interrupts import is_disk_full
from erg_converters.plan import CandidatePlan
from erg_converters.publish import Variant
from erg_converters.report import SOURCE_CANDIDATE, CandidateRecord


@dataclass(slots=True)
class Candidate:
    """What has become of one candidate so far. `failure` says why there is no file, or why it could not be judged."""

    plan: CandidatePlan
    artifact: Artifact | None = None
    passes: list[PassRecord] = field(default_factory=list)
    judged: Judged | None = None
    failure: str = ""

    def made(self) -> Made:
        """The candidate with its file, which has to be there."""
        assert self.artifact is not None, self.plan.name
        return Made(plan=self.plan, artifact=self.artifact)

    @property
    def passed(self) -> bool:
        """Whether it may be served: the source always, another where the gate let it pass."""
        if self.failure or self.artifact is None:
            return False
        return self.plan.name == SOURCE_CANDIDATE or (self.judged is not None and self.judged.gate.passed)

    def record(self) -> CandidateRecord:
        """The candidate as the report has it."""
        gate = self.judged.gate if self.judged else None
        status: Literal["passed", "refused", "failed"] = "passed"
        if not self.passed:
            status = "failed" if self.failure or gate is None else "refused"
        return CandidateRecord(
            name=self.plan.name,
            backend=self.plan.backend,
            precision=self.plan.precision,
            status=status,
            reason=self.failure or "; ".join(gate.reasons if gate else ()),
            form=self.artifact.format.value if self.artifact else "",
            sha256=self.artifact.sha256 if self.artifact else "",
            bytes=self.artifact.bytes if self.artifact else 0,
            passes=tuple(self.passes),
            gate=gate,
            accuracy=self.judged.accuracy if self.judged else None,
        )


def failure_of(what: str, error: Exception) -> str:
    """The words for a candidate that cannot go on; a full disk stops them all, so it is raised on."""
    if is_disk_full(error):
        raise error
    if isinstance(error, ErgError):
        return f"{what}: {error.message}"
    return f"{what}: {'out of memory' if isinstance(error, MemoryError) else f'{type(error).__name__}: {error}'}"


def variant_of(made: Made) -> Variant:
    """The candidate's file as publication takes it."""
    plan, artifact = made.plan, made.artifact
    return Variant(
        name=plan.name,
        path=artifact.path,
        backend=plan.backend,
        precision=plan.precision,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
    )
