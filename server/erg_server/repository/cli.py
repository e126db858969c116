"""`erg check`: validate repositories before anything serves them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from erg_server.repository.check import ModelReport, check_paths
from erg_server.repository.installed import usable_backends
from erg_server.repository.manifest_json import plain
from erg_server.repository.manifest_tables import result_tables
from erg_server.repository.problem import Problem

_WIDE = 200
_RESULTS = ("artifacts", "selected", "accuracy", "measurements", "verdicts")
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_EXISTING_FOLDER)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What to print; JSON for tools.",
)
def check(paths: tuple[Path, ...], output_format: str) -> None:
    """Validate model repositories, or single models, without serving them.

    Reports every problem with file, line, key and a suggested fix, and what the manifests of the versions say of their
    artifacts, accuracy and cost. Exits with 0 when all models would be served, 1 when
    one would not, 2 when the command itself was wrong.
    """
    try:
        reports = check_paths(paths)
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}") from error
    if output_format == "json":
        click.echo(json.dumps([_as_json(report) for report in reports], indent=2))
    else:
        # A report is read by grep and editors too, so that paths are never wrapped or styled into pieces.
        _print(reports, Console(soft_wrap=True, highlight=False))
    sys.exit(0 if all(report.ok for report in reports) else 1)


def _print(reports: Sequence[ModelReport], console: Console) -> None:
    for report in reports:
        verdict, style = ("ok", "green") if report.ok else ("FAILED", "bold red")
        line = Text.assemble((verdict, style), " ", (report.name or str(report.path), "bold"))
        if report.versions:
            line.append(f"  {report.backend}, versions {', '.join(map(str, report.versions))}", "dim")
        console.print(line)
        for problem in report.problems:
            console.print(_problem_line(problem))
        _print_results(report)
    failed = sum(not report.ok for report in reports)
    noun = "model" if len(reports) == 1 else "models"
    summary = f"{failed} of {len(reports)} {noun} would not be served" if failed else f"{len(reports)} {noun} checked"
    console.print(Text(summary, "bold red" if failed else "green"))


def _print_results(report: ModelReport) -> None:
    """Tables are laid out for the terminal, and for as much room as they need where there is none."""
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)
    for version, manifest in report.manifests.items():
        for title, table in result_tables(manifest, usable_backends()):
            console.print(Text.assemble("  ", (f"version {version}", "dim"), " ", (title, "bold")))
            console.print(Padding(table, (0, 0, 0, 2), expand=False))


def _problem_line(problem: Problem) -> Text:
    place = f"{problem.path}:{problem.line}" if problem.line else problem.path
    style = "red" if problem.severity == "error" else "yellow"
    line = Text.assemble("  ", (place, "cyan"), " ", (problem.severity, style))
    if problem.key:
        line.append(f" {problem.key}:", "bold")
    line.append(f" {problem.message}")
    if problem.suggestion:
        line.append(f"; {problem.suggestion}", "italic")
    return line


def _as_json(report: ModelReport) -> dict[str, object]:
    return {
        "model": report.name,
        "path": str(report.path),
        "ok": report.ok,
        "backend": report.backend,
        "versions": list(report.versions),
        "results": {
            str(version): {key: plain(getattr(manifest, key)) for key in _RESULTS}
            for version, manifest in report.manifests.items()
        },
        "problems": [
            {
                "severity": problem.severity,
                "path": problem.path,
                "line": problem.line,
                "key": problem.key,
                "message": problem.message,
                "suggestion": problem.suggestion,
            }
            for problem in report.problems
        ],
    }
