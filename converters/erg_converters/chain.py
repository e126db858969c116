"""Runs passes one after the other, each only where its result is not in the cache already."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erg_server import __version__
from erg_server.repository.manifest import PassRecord

from erg_converters.artifact import Artifact, Format
from erg_converters.data import Dataset
from erg_converters.passes.base import Pass, PassContext
from erg_converters.plan import Plan
from erg_converters.progress import RunningStep
from erg_converters.report import SOURCE_CANDIDATE
from erg_converters.sources.base import InputSpec, Source
from erg_converters.workspace import Entry, Workspace, digest_of

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A pass that a run would make, and whether its result is there; None where what comes before has to run first."""

    candidate: str
    name: str
    cached: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What every pass of one run has in common."""

    workspace: Workspace
    source: Source
    inputs: tuple[InputSpec, ...]
    calibration: Dataset | None = None
    evaluation: Dataset | None = None

    def start(self) -> Artifact:
        """The source as the first pass takes it."""
        path = self.source.file() or Path(self.source.location)
        return Artifact(format=Format.SOURCE, path=path, sha256=self.source.digest(), bytes=0)

    def key(self, artifact: Artifact, step: Pass[Any]) -> str:
        """The digest of everything that the result of `step` on `artifact` depends on."""
        first = artifact.format is Format.SOURCE
        return digest_of(
            {
                "input": artifact.sha256,
                "inputs": [dataclasses.asdict(spec) for spec in self.inputs],
                "outputs": list(self.source.output_names) if first else [],
                "pass": step.name,
                "settings": step.settings_text(),
                "tools": step.tools(),
                "calibration": self.calibration.sha256 if self.calibration and not first else "",
                "evaluation": self.evaluation.sha256 if self.evaluation else "",
                "device": processor_name(),
                "erg": __version__,
            }
        )

    def run(self, artifact: Artifact, step: Pass[Any], running: RunningStep) -> tuple[Artifact, PassRecord]:
        """The result of `step` on `artifact`, out of the cache or made now.

        Raises:
            ConversionError: the pass fails; what it put aside for going on is kept.
            OSError: the disk is full, or the like.
        """
        key = self.key(artifact, step)
        entry = self.workspace.get(key)
        if entry is None:
            entry = self._make(key, artifact, step, running)
        else:
            running.status, running.cached_seconds = "cached", entry.seconds
        running.figures = entry.figures
        record = PassRecord(
            name=step.name,
            settings={**step.settings_text(), **{f"found: {name}": value for name, value in entry.figures.items()}},
            tools=step.tools(),
            seconds=entry.seconds,
        )
        return entry.artifact, record

    def preview(self, plan: Plan) -> Iterator[PlannedStep]:
        """What a run would do, in order, without doing any of it."""
        canonical = self.workspace.get(self.key(self.start(), plan.export))
        yield PlannedStep(candidate=SOURCE_CANDIDATE, name=plan.export.name, cached=canonical is not None)
        for candidate in plan.candidates:
            entry = canonical
            for step in candidate.passes:
                known = entry is not None
                entry = self.workspace.get(self.key(entry.artifact, step)) if entry is not None else None
                yield PlannedStep(candidate=candidate.name, name=step.name, cached=entry is not None if known else None)

    def _make(self, key: str, artifact: Artifact, step: Pass[Any], running: RunningStep) -> Entry:
        context = PassContext(
            source=self.source,
            inputs=self.inputs,
            folder=self.workspace.work_folder(key),
            calibration=self.calibration,
            evaluation=self.evaluation,
            progress=running.advance,
            resume=self.workspace.resume_store(key),
        )
        began_s = time.monotonic()
        made = step.run(artifact, context)
        return self.workspace.put(key, made, seconds=time.monotonic() - began_s, figures=step.figures)


def processor_name() -> str:
    """What the machine calls its processor, and how many it has: figures of one say little about another."""
    name = platform.processor() or platform.machine()
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        # No Linux: the platform's own name stands.
        pass
    return f"{name}, {os.cpu_count()} processors"
