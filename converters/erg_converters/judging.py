"""Puts candidates before the gate and the clock, and keeps what they found: equal inputs are not measured again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from erg_server import __version__
from erg_server.repository.manifest import Accuracy, Golden, Measurement
from erg_server.repository.manifest_json import ManifestFormatError, decode, encode

from erg_converters.chain import Chain, processor_name
from erg_converters.decision import JUDGED_FORMAT_VERSION, Decision, Judged, Made
from erg_converters.errors import ConversionError
from erg_converters.feeds import golden_feeds, measured_feeds, unseen_feeds
from erg_converters.gate import GateResult, judge
from erg_converters.measure import measure
from erg_converters.passes.export_onnx import versions
from erg_converters.progress import RunningStep
from erg_converters.publish import golden_sample
from erg_converters.report import CandidateRecord, GateRecord
from erg_converters.runner import Runner
from erg_converters.settings import Recipe
from erg_converters.verdict import decide
from erg_converters.workspace import digest_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of one interleaved measurement."""

    format_version: int = JUDGED_FORMAT_VERSION
    measurements: tuple[Measurement, ...] = ()


class Judge:
    """The gate, the clock and the golden sample of one run."""

    def __init__(self, chain: Chain, recipe: Recipe) -> None:
        self.chain = chain
        self.recipe = recipe

    def judge(self, candidate: Made, source: Made, step: RunningStep) -> Judged:
        """Hold a candidate against the source on the evaluation data.

        Raises:
            ErgError: its backend does not load or run it.
        """
        evaluation = self.chain.evaluation
        if evaluation is None:
            raise ConversionError("there is no data to judge by: add an [evaluation] table")
        key = self._key("gate", [source, candidate], self.recipe.gate)
        judged = self._kept(key, Judged, step)
        if judged is None:
            unseen = unseen_feeds(self.chain.inputs, self.chain.calibration, self.chain.source.max_sizes)
            with ExitStack() as stack:
                baseline, runner = self._open(stack, source), self._open(stack, candidate)
                found = judge(runner, baseline, evaluation, self.recipe.gate, unseen=unseen, advance=step.advance)
            judged = Judged(
                gate=_gate_record(found), accuracy=_accuracy(candidate.plan.name, self.recipe.gate.metric, found)
            )
            self.chain.workspace.put_text(key, encode(judged))
        gate, accuracy = judged.gate, judged.accuracy
        step.figures = {"gate": "passed" if gate.passed else "refused: " + "; ".join(gate.reasons)}
        if accuracy is not None and accuracy.drop is not None:
            step.figures = {
                **step.figures,
                accuracy.metric: f"{accuracy.value:.5f}",
                "drop": f"{accuracy.drop:+.5f} [{accuracy.drop_low:+.5f}, {accuracy.drop_high:+.5f}]",
            }
        return judged

    def measure(self, made: Sequence[Made], step: RunningStep) -> tuple[Measurement, ...]:
        """Time the variants in turns, in the backends that serve them, on every measured shape."""
        key = self._key("measure", made, self.recipe.measure)
        kept = self._kept(key, Measured, step)
        if kept is None:
            feeds = measured_feeds(
                self.chain.inputs, self.chain.evaluation, self.recipe.measure, self.chain.source.max_sizes
            )
            with ExitStack() as stack:
                runners = {each.plan.name: self._open(stack, each) for each in made}
                kept = Measured(measurements=tuple(measure(runners, feeds, self.recipe.measure, advance=step.advance)))
            self.chain.workspace.put_text(key, encode(kept))
        step.figures = {"variants": str(len(made)), "figures": str(len(kept.measurements))}
        return kept.measurements

    def decide(self, records: Sequence[CandidateRecord], measurements: Sequence[Measurement]) -> Decision:
        """Verdicts, front and choice, by the recipe's rule."""
        return decide(records, measurements, self.recipe.gate, self.recipe.choose)

    def golden(self, winner: Made, source: Made) -> Golden | None:
        """Real rows with the winner's own answers; None where even one is more than a manifest should carry."""
        names = self.chain.source.output_names
        with ExitStack() as stack:
            ours, plain = self._open(stack, winner), self._open(stack, source)
            for feed in golden_feeds(self.chain.inputs, self.chain.evaluation, self.chain.source.max_sizes):
                golden = golden_sample(feed, names, ours.run(feed), plain.run(feed))
                if golden is not None:
                    return golden
        return None

    def _open(self, stack: ExitStack, made: Made) -> Runner:
        plan = made.plan
        runner = Runner.open(made.artifact.path, plan.backend, plan.precision, self.recipe.measure.threads)
        stack.callback(runner.close)
        return runner

    def _kept(self, key: str, kind: type[T], step: RunningStep) -> T | None:
        text = self.chain.workspace.get_text(key)
        if text is None:
            return None
        try:
            value = decode(text, kind, JUDGED_FORMAT_VERSION)
        except ManifestFormatError:
            # Torn or of another Erg: found anew.
            return None
        step.status = "cached"
        return value

    def _key(self, what: str, made: Sequence[Made], settings: Any) -> str:
        chain = self.chain
        return digest_of(
            {
                "what": what,
                "variants": [
                    (each.plan.name, each.plan.backend, each.plan.precision, each.artifact.sha256) for each in made
                ],
                "settings": dataclasses.asdict(settings),
                "threads": self.recipe.measure.threads,
                "inputs": [dataclasses.asdict(spec) for spec in chain.inputs],
                "calibration": chain.calibration.sha256 if chain.calibration else "",
                "evaluation": chain.evaluation.sha256 if chain.evaluation else "",
                "device": processor_name(),
                "tools": versions("onnxruntime", "openvino"),
                "erg": __version__,
            }
        )


def _gate_record(found: GateResult) -> GateRecord:
    return GateRecord(
        passed=found.passed,
        reasons=found.reasons,
        cosine_mean=found.cosine_mean,
        cosine_min=found.cosine_min,
        batch_cosine_min=found.batch_cosine_min,
        deterministic=found.deterministic,
    )


def _accuracy(variant: str, metric: str, found: GateResult) -> Accuracy:
    """The metric's own interval is the source's value less the bounds of the drop: what was resampled is the drop."""
    estimate = found.metric
    return Accuracy(
        metric=metric,
        value=estimate.value,
        low=estimate.baseline - estimate.high,
        high=estimate.baseline - estimate.low,
        samples=estimate.samples,
        confidence=estimate.confidence,
        baseline=estimate.baseline,
        variant=variant,
        drop=estimate.drop,
        drop_low=estimate.low,
        drop_high=estimate.high,
    )
