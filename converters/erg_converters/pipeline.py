"""Runs a recipe: source, export, candidates, gate, measurement, choice, publication, in this order.

Steps whose results are in the cache are not run again, so that a run that was stopped goes on where it was. A candidate
that fails does not stop the others. Nothing reaches the repository before the last step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from erg_server import __version__
from erg_server.errors import ErgError
from erg_server.files import replace_text
from erg_server.repository.manifest import Golden, Measurement, Source
from rich.console import Console

from erg_converters.candidate import Candidate, failure_of, variant_of
from erg_converters.chain import Chain, processor_name
from erg_converters.data import Dataset, load_table
from erg_converters.decision import Decision, Judging
from erg_converters.drawing import draw_report
from erg_converters.fits import check_gate, check_machine
from erg_converters.interrupts import ReportLostError, interrupted_by_sigterm, telling_full_disk
from erg_converters.plan import Plan, plan
from erg_converters.progress import Steps
from erg_converters.publish import Publication, publish_version, published_already
from erg_converters.report import (
    REPORT_FILENAME,
    Report,
    dump_report,
)
from erg_converters.serving_config import check_config_place, read_config
from erg_converters.settings import Recipe
from erg_converters.sources.load import load_source
from erg_converters.workspace import Workspace, default_root, digest_of


class Conversion:
    """One run of a plan. `judging` makes the judge of a chain; by default the real one."""

    def __init__(
        self,
        planned: Plan,
        workspace: Workspace,
        console: Console,
        *,
        trust: bool = False,
        judging: Callable[[Chain, Recipe], Judging] | None = None,
    ) -> None:
        self.plan = planned
        self.recipe = planned.recipe
        self.workspace = workspace
        self.trust = trust
        self.judging = judging or _judge
        self.candidates = [Candidate(plan=each) for each in planned.candidates]
        self.folder = workspace.run_folder(self.recipe.publish.name, self.recipe.sha256)
        self.steps = Steps(console, self._note)
        self.measurements: tuple[Measurement, ...] = ()
        self.decision = Decision(chosen="", reason="")
        self.published = ""
        self.origin: Source | None = None
        self.calibration: Dataset | None = None
        self.evaluation: Dataset | None = None

    def run(self) -> Report:
        """Convert and publish; the report of what was done is written however it ends."""
        # Before hours are spent: what publication would refuse.
        check_machine(self.recipe)
        settings = self.recipe.publish
        config = read_config(self.recipe.folder / settings.config) if settings.config else None
        check_config_place(settings, config)
        try:
            with self.steps.progress:
                chain = self._load()
                self._build(chain)
                judge = self.judging(chain, self.recipe)
                self._decide(judge)
                self._publish(judge, chain, config)
        except BaseException:
            self._note()
            raise
        report = self.report()
        try:
            replace_text(self.folder / REPORT_FILENAME, dump_report(report))
            draw_report(report, self.folder)
        except OSError as error:
            raise ReportLostError(
                f"published {self.published}, but its report cannot be written to {self.folder} ({error.strerror}): "
                f"make room there, then `erg convert resume {self.recipe.path}`"
            ) from error
        return report

    def _note(self) -> None:
        """Leave the report as it stands; where the disk is full, what fills it is told by whoever needs the room."""
        with contextlib.suppress(OSError):
            replace_text(self.folder / REPORT_FILENAME, dump_report(self.report()), durable=False)

    def report(self) -> Report:
        """What was done so far."""
        return Report(
            model=self.recipe.publish.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            erg_version=__version__,
            recipe=str(self.recipe.path),
            recipe_sha256=self.recipe.sha256,
            device=processor_name(),
            source=self.origin,
            evaluation=self.evaluation.name if self.evaluation else "",
            evaluation_sha256=self.evaluation.sha256 if self.evaluation else "",
            calibration_sha256=self.calibration.sha256 if self.calibration else "",
            steps=tuple(self.steps.records),
            candidates=tuple(each.record() for each in self.candidates),
            measurements=self.measurements,
            verdicts=self.decision.verdicts,
            front=self.decision.front,
            chosen=self.decision.chosen,
            chosen_reason=self.decision.reason,
            published=self.published,
        )

    def _load(self) -> Chain:
        with self.steps.step("load the source") as step:
            source = load_source(self.recipe, trust=self.trust)
            inputs = source.input_specs()
            self.origin = Source(
                kind=source.kind, location=source.location, sha256=source.digest(), license=source.license
            )
            step.figures = {"inputs": ", ".join(f"{spec.name} {list(spec.dims)}" for spec in inputs)}
        for name in ("calibration", "evaluation"):
            if getattr(self.recipe, name) is not None:
                with self.steps.step(f"load {name} data") as step:
                    data = load_table(self.recipe, name, inputs)
                    assert data is not None
                    setattr(self, name, data)
                    step.figures = {"samples": str(len(data)), "from": data.name}
        check_gate(self.recipe, source, self.evaluation)
        return Chain(
            workspace=self.workspace,
            source=source,
            inputs=inputs,
            calibration=self.calibration,
            evaluation=self.evaluation,
        )

    def _build(self, chain: Chain) -> None:
        """Make every candidate's file. The export is everybody's: where it fails, the run ends."""
        with self.steps.step(self.plan.export.name) as step:
            canonical, exported = chain.run(chain.start(), self.plan.export, step)
        for candidate in self.candidates:
            artifact, failure = canonical, ""
            candidate.passes.append(exported)
            for each in candidate.plan.passes:
                if failure:
                    self.steps.skip(each.name, candidate.plan.name, "the pass before it failed")
                    continue
                try:
                    with self.steps.step(each.name, candidate.plan.name) as step:
                        artifact, record = chain.run(artifact, each, step)
                    candidate.passes.append(record)
                except (ErgError, OSError, MemoryError) as error:
                    failure = failure_of(each.name, error)
            candidate.failure = failure
            candidate.artifact = None if failure else artifact

    def _decide(self, judge: Judging) -> None:
        """Judge each candidate, time those that pass beside the source, and choose."""
        source = self.candidates[0].made()
        for candidate in self.candidates[1:]:
            if candidate.artifact is None:
                self.steps.skip("gate", candidate.plan.name, "there is no file to judge")
                continue
            try:
                with self.steps.step("gate", candidate.plan.name) as step:
                    candidate.judged = judge.judge(candidate.made(), source, step)
            except Exception as error:  # noqa: BLE001  # whatever a backend raises ends this candidate only
                candidate.failure = failure_of("gate", error)
        with self.steps.step("measure") as step:
            self.measurements = judge.measure([each.made() for each in self.candidates if each.passed], step)
        with self.steps.step("choose") as step:
            self.decision = judge.decide([each.record() for each in self.candidates], self.measurements)
            step.figures = {self.decision.chosen: self.decision.reason}

    def _publish(self, judge: Judging, chain: Chain, config: str | None) -> None:
        winner = next(each for each in self.candidates if each.plan.name == self.decision.chosen)
        with self.steps.step("golden sample", winner.plan.name) as step:
            golden = judge.golden(winner.made(), self.candidates[0].made())
            step.figures = _golden_figures(golden)
        with self.steps.step(f"publish {self.recipe.publish.name}") as step:
            publication = self._publication(winner, golden)
            path = published_already(publication)
            if path is not None:
                step.status = "cached"
            else:
                repository = Path(self.recipe.publish.repository)
                with telling_full_disk(self.workspace.root, self.recipe.path, writing=repository):
                    path = publish_version(publication, chain.inputs, config)
            self.published = str(path)
            step.figures = {"version": path.name, "in": str(path.parent)}

    def _publication(self, winner: Candidate, golden: Golden | None) -> Publication:
        assert self.origin is not None
        return Publication(
            settings=self.recipe.publish,
            source=variant_of(self.candidates[0].made()),
            winner=variant_of(winner.made()),
            reason=self.decision.reason,
            origin=self.origin,
            passes=tuple(winner.passes),
            recipe_sha256=self._inputs_digest(),
            calibration_sha256=self.calibration.sha256 if self.calibration else "",
            golden=golden,
            accuracy=tuple(
                each.judged.accuracy for each in self.candidates if each.judged and each.judged.accuracy is not None
            ),
            measurements=self.measurements,
            verdicts=self.decision.verdicts,
        )

    def _inputs_digest(self) -> str:
        """Of the recipe and everything that it reads: equal digests make equal versions."""
        return digest_of(
            {
                "recipe": self.recipe.sha256,
                "source": self.origin.sha256 if self.origin else "",
                "calibration": self.calibration.sha256 if self.calibration else "",
                "evaluation": self.evaluation.sha256 if self.evaluation else "",
            }
        )


def run_recipe(
    recipe: Recipe,
    console: Console,
    *,
    workspace: Workspace | None = None,
    trust: bool = False,
    only: Iterable[str] = (),
    judging: Callable[[Chain, Recipe], Judging] | None = None,
) -> Report:
    """Convert as the recipe says and publish what wins.

    Raises:
        ErgError: the cause and the fix are in the message; nothing was published, and what was done is kept.
        KeyboardInterrupt: it was interrupted, or told to end by SIGTERM; the same holds.
    """
    space = workspace if workspace is not None else Workspace(default_root())
    with interrupted_by_sigterm(), telling_full_disk(space.root, recipe.path):
        return Conversion(plan(recipe).only(only), space, console, trust=trust, judging=judging).run()


def _judge(chain: Chain, recipe: Recipe) -> Judging:
    """The real judge; imported only now, since the backends take a second to import."""
    from erg_converters.judging import Judge  # noqa: PLC0415

    return Judge(chain, recipe)


def _golden_figures(golden: Golden | None) -> dict[str, str]:
    if golden is None:
        return {"rows": "none, since one is more than a manifest should carry"}
    return {"rows": str(golden.inputs[0].shape[0]), "tolerance": f"{golden.absolute_tolerance:.2g}"}
