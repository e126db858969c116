"""Whole runs over a tiny network: what is published, what is cached, what a failure or an interrupt leaves."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from erg_converters import pipeline
from erg_converters.chain import Chain
from erg_converters.decision import Decision, Judged, Made
from erg_converters.errors import ConversionError, PassError
from erg_converters.feeds import golden_feeds
from erg_converters.interrupts import DiskFullError, Terminated
from erg_converters.passes.optimize_onnx import OptimizeOnnx
from erg_converters.progress import RunningStep
from erg_converters.publish import golden_sample
from erg_converters.recipe import read_recipe
from erg_converters.report import CandidateRecord, GateRecord, Report, load_report
from erg_converters.settings import Recipe
from erg_converters.workspace import Workspace
from erg_server.repository.manifest import Accuracy, Golden, Measurement, load_manifest
from rich.console import Console

RECIPE = """
[source]
kind = "onnx"
path = "{model}"
license = "MIT"

[evaluation]
kind = "random"
samples = 4

[[candidate]]
name = "slim"
passes = [{{ pass = "optimize_onnx", tool = "none" }}]

[[candidate]]
name = "half"
passes = [{{ pass = "convert_float16" }}]

[publish]
repository = "{repository}"
name = "cnn"
"""


class FakeJudge:
    """Lets every candidate pass and chooses `winner`; `during` runs before each question is answered."""

    def __init__(self, chain: Chain, winner: str, refused: str, during: Callable[[str], None]) -> None:
        self.chain, self.winner, self.refused, self.during = chain, winner, refused, during

    def judge(self, candidate: Made, source: Made, step: RunningStep) -> Judged:
        name = candidate.plan.name
        self.during(f"gate {name}")
        step.advance(1, 1)
        passed = name != self.refused
        gate = GateRecord(passed=passed, reasons=() if passed else ("cosine 0.4 is below 0.99",), cosine_mean=0.999)
        accuracy = Accuracy(metric="cosine", value=0.999, low=0.99, high=1.0, samples=4, variant=name, drop=0.001)
        return Judged(gate=gate, accuracy=accuracy)

    def measure(self, made: Sequence[Made], step: RunningStep) -> tuple[Measurement, ...]:
        self.during("measure")
        return tuple(
            Measurement(
                device="cpu", backend=each.plan.backend, batch_size=size, latency_ms_p50=1.0, throughput_per_s=1.0,
                variant=each.plan.name, cpu_ms_per_row=1.0 / size, cpu_ratio=1.0,
            )
            for each in made
            for size in (1, 8)
        )  # fmt: skip

    def decide(self, records: Sequence[CandidateRecord], measurements: Sequence[Measurement]) -> Decision:
        self.during("decide")
        return Decision(chosen=self.winner, reason="the fake says so")

    def golden(self, winner: Made, source: Made) -> Golden | None:
        self.during("golden")
        answers = []
        feed = golden_feeds(self.chain.inputs, self.chain.evaluation, self.chain.source.max_sizes)[0]
        for each in (winner, source):
            session = onnxruntime.InferenceSession(str(each.artifact.path))
            answers.append([np.asarray(array) for array in session.run(None, dict(feed))])
        return golden_sample(feed, self.chain.source.output_names, *answers)


def quiet(_question: str) -> None:
    """Do nothing before answering."""


class Runs:
    """Runs one recipe, in one cache, as often as a test wants."""

    def __init__(self, folder: Path, model: Path, recipe: str = RECIPE) -> None:
        self.repository = folder / "repository"
        self.workspace = Workspace(folder / "cache")
        self.path = folder / "recipe.toml"
        self.path.write_text(recipe.format(model=model, repository=self.repository))

    def __call__(
        self, winner: str = "half", refused: str = "", during: Callable[[str], None] = quiet, only: Sequence[str] = ()
    ) -> Report:
        def judging(chain: Chain, _recipe: Recipe) -> FakeJudge:
            return FakeJudge(chain, winner, refused, during)

        return pipeline.run_recipe(
            read_recipe(self.path),
            Console(file=io.StringIO()),
            workspace=self.workspace,
            only=only,
            judging=judging,
        )

    def report(self) -> Report:
        """What the last run wrote."""
        (folder,) = (self.workspace.root / "runs").iterdir()
        return load_report(folder)


@pytest.fixture
def runs(tmp_path: Path, tiny_cnn_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr(pipeline, "draw_report", lambda _report, _folder: None)
    return Runs(tmp_path, tiny_cnn_onnx)


def statuses(report: Report) -> dict[str, str]:
    return {f"{step.candidate} {step.name}".strip(): step.status for step in report.steps}


def test_the_winner_is_published_with_what_was_found(runs: Runs) -> None:
    report = runs()
    assert report.published == str(runs.repository / "cnn" / "1")
    manifest = load_manifest(Path(report.published))
    assert manifest is not None
    assert [each.name for each in manifest.artifacts] == ["half", "source"]
    assert [each.name for each in manifest.passes] == ["export_onnx", "convert_float16"]
    assert manifest.source is not None
    assert manifest.source.license == "MIT"
    assert {each.variant for each in manifest.accuracy} == {"slim", "half"}
    assert {each.variant for each in manifest.measurements} == {"source", "slim", "half"}
    assert manifest.golden is not None
    assert manifest.golden.inputs[0].shape == (2, 3, 16, 16)
    assert runs.report() == report


def test_a_second_run_makes_nothing_again(runs: Runs) -> None:
    runs()
    passes = {"export_onnx", "slim optimize_onnx", "half convert_float16"}
    found = statuses(runs())
    assert {found[name] for name in passes} == {"cached"}
    assert sorted(path.name for path in (runs.repository / "cnn").iterdir()) == ["1", "config.pbtxt"]


def test_other_settings_make_anew_only_what_depends_on_them(runs: Runs) -> None:
    runs()
    runs.path.write_text(runs.path.read_text().replace('tool = "none"', 'tool = "none", rounds = 3'))
    found = statuses(runs())
    assert (found["export_onnx"], found["half convert_float16"]) == ("cached", "cached")
    assert found["slim optimize_onnx"] == "done"


def test_a_candidate_that_fails_does_not_stop_the_others(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise KeyError("layer 3")

    monkeypatch.setattr(OptimizeOnnx, "transform", fail)
    report = runs()
    slim = report.candidate("slim")
    assert slim is not None
    assert (slim.status, slim.reason) == (
        "failed",
        "optimize_onnx: optimize_onnx failed: KeyError: 'layer 3'",
    )
    assert statuses(report)["slim gate"] == "skipped"
    assert report.chosen == "half"
    assert report.published


def test_a_candidate_whose_backend_fails_is_told_with_the_reason(runs: Runs) -> None:
    def fail(question: str) -> None:
        if question == "gate slim":
            raise RuntimeError("no kernel for Conv")

    slim = runs(during=fail).candidate("slim")
    assert slim is not None
    assert (slim.status, slim.reason) == ("failed", "gate: RuntimeError: no kernel for Conv")


def test_a_refused_candidate_is_not_measured(runs: Runs) -> None:
    report = runs(winner="source", refused="half")
    half = report.candidate("half")
    assert half is not None
    assert (half.status, half.reason) == ("refused", "cosine 0.4 is below 0.99")
    assert {each.variant for each in report.measurements} == {"source", "slim"}
    manifest = load_manifest(Path(report.published))
    assert manifest is not None
    assert [each.artifact for each in manifest.selected] == ["source"]


def test_only_the_candidates_asked_for_are_tried(runs: Runs) -> None:
    assert [each.name for each in runs(winner="slim", only=["slim"]).candidates] == ["source", "slim"]


@pytest.mark.parametrize("when", ["gate slim", "gate half", "measure", "decide", "golden"])
def test_an_interrupt_leaves_the_repository_untouched_and_the_next_run_goes_on(runs: Runs, when: str) -> None:
    def interrupt(question: str) -> None:
        if question == when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs(during=interrupt)
    assert not runs.repository.exists()
    stopped = runs.report()
    assert stopped.steps[-1].status == "failed"
    assert stopped.published == ""
    found = statuses(runs())
    assert (found["export_onnx"], found["half convert_float16"]) == ("cached", "cached")
    assert (runs.repository / "cnn" / "1").is_dir()


def test_sigterm_ends_a_run_as_an_interrupt_does(runs: Runs) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def end(question: str) -> None:
        if question == "measure":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated):
        runs(during=end)
    assert not runs.repository.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_disk_ends_the_run_with_the_cache_usable(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/model.onnx")

    with monkeypatch.context() as patched:
        patched.setattr(OptimizeOnnx, "transform", full)
        with pytest.raises(DiskFullError, match=r"the disk is full at /somewhere/model\.onnx; nothing was published"):
            runs()
    assert not runs.repository.exists()
    found = statuses(runs())
    assert (found["export_onnx"], found["slim optimize_onnx"]) == ("cached", "done")


def test_a_run_that_is_killed_has_left_where_it_was(runs: Runs) -> None:
    seen: list[list[str]] = []

    def look(question: str) -> None:
        if question == "measure":
            seen.append([step.name for step in runs.report().steps])

    runs(during=look)
    assert seen[0][-2:] == ["gate", "gate"]


def test_a_failing_export_ends_the_run_with_its_reason(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise PassError("it cannot be exported")

    monkeypatch.setattr("erg_converters.passes.export_onnx.ExportOnnx.transform", fail)
    with pytest.raises(ConversionError, match="it cannot be exported"):
        runs()
    assert not runs.repository.exists()
    assert runs.report().steps[-1].message == "it cannot be exported"


def test_a_damaged_result_is_made_again(runs: Runs) -> None:
    runs()
    for path in (runs.workspace.root / "files").glob("*/model.onnx"):
        path.write_bytes(path.read_bytes()[:-1])
    assert statuses(runs())["export_onnx"] == "done"


def test_what_is_published_passes_the_servers_check(runs: Runs) -> None:
    from click.testing import CliRunner
    from erg_server.repository.cli import check

    runs()
    result = CliRunner().invoke(check, [str(runs.repository)])
    assert result.exit_code == 0, result.output
