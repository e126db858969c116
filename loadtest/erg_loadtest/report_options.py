"""The options of every command that reports: which files to write, and what a load test cannot see of a model."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from erg_loadtest.csv_table import to_csv
from erg_loadtest.document import RunDocument, read_json
from erg_loadtest.errors import PlanError
from erg_loadtest.indices import EQUAL_WEIGHTS, Indices, Part, Parts, indices, parse_weights
from erg_loadtest.page import write_text
from erg_loadtest.quality import Quality, quality_of

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)
_READ = click.Path(exists=True, dir_okay=False, path_type=Path)

FILE_OPTIONS = (
    click.option("--output", type=_FILE, help="Write the JSON document here, with every latency."),
    click.option("--csv", "csv_path", type=_FILE, help="Write the figures as CSV here, one row each."),
    click.option("--report", type=_FILE, help="Write a page with plots here: one .html that needs nothing else."),
)
QUALITY_OPTIONS = (
    click.option("--performance", multiple=True, help="The model's quality, more being better: 0.93, or MODEL=0.93."),
    click.option("--training-time", multiple=True, help="Seconds that training took: 3600, or MODEL=3600."),
    click.option("--manifest", type=_READ, multiple=True, help="A version's manifest.json, for its quality."),
    click.option("--baseline", type=_READ, help="A document of a run that the indices are against."),
    click.option("--weights", help="Of the index: power=1,memory=1,time=1.  [default: equal]"),
)


def report_options(command: _Command) -> _Command:
    """Adds all of them to a command; it hands them to `ReportOptions`."""
    for option in reversed((*FILE_OPTIONS, *QUALITY_OPTIONS)):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """The flags as click has parsed them."""

    output: Path | None = None
    csv_path: Path | None = None
    report: Path | None = None
    performance: tuple[str, ...] = ()
    training_time: tuple[str, ...] = ()
    manifest: tuple[Path, ...] = ()
    baseline: Path | None = None
    weights: str | None = None

    @staticmethod
    def taken(options: dict[str, Any]) -> ReportOptions:
        """Those among a command's `options`, which are left without them."""
        names = ReportOptions.__slots__
        return ReportOptions(**{name: options.pop(name) for name in names if name in options})

    def check(self) -> None:
        """Raises PlanError for what could be known to be wrong before the load starts."""
        self.weighed()
        self.baseline_parts()
        self.quality("")
        for path in (self.output, self.csv_path, self.report):
            if path is not None and not path.resolve().parent.is_dir():
                raise PlanError(f"{path}: its folder does not exist")

    def quality(self, model: str) -> Quality:
        """What was said of a model."""
        return quality_of(model, self.performance, self.training_time, self.manifest)

    def weighed(self) -> Mapping[Part, float]:
        """The weights of the index of inference cost."""
        return EQUAL_WEIGHTS if self.weights is None else parse_weights(self.weights)

    def baseline_parts(self) -> Parts | None:
        """Of the baseline's document, None where none was named."""
        if self.baseline is None:
            if self.weights is not None:
                raise PlanError("--weights weighs the indices, which need a --baseline")
            return None
        return RunDocument.from_json(read_json(self.baseline), str(self.baseline)).parts()

    def indices(self, run: RunDocument) -> Indices | None:
        """The run's, None without a baseline."""
        baseline = self.baseline_parts()
        return None if baseline is None else indices(run.parts(), baseline, self.weighed())

    def write(
        self, runs: Sequence[RunDocument], document: Callable[[], Mapping[str, Any]], page: Callable[[], str]
    ) -> None:
        """Write every file that was asked for; each is whole or not there. Raises PlanError."""
        if self.output is not None:
            write_text(self.output, json.dumps(document(), allow_nan=False) + "\n")
        if self.csv_path is not None:
            write_text(self.csv_path, to_csv(runs))
        if self.report is not None:
            write_text(self.report, page())


class UsageFailure(click.ClickException):
    """A test that could not run: exit code 2."""

    exit_code = 2


def command_line() -> str:
    """What was typed."""
    return shlex.join(["erg", *sys.argv[1:]])
