"""What `erg load run`, `search` and `sweep` have in common: how to send, and one trial of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from erg_loadtest.document import RunDocument, run_document
from erg_loadtest.load import LoadPlan, run_load
from erg_loadtest.load import Progress as OnProgress
from erg_loadtest.option_values import plan_of
from erg_loadtest.quality import Quality
from erg_loadtest.report_options import command_line
from erg_loadtest.result import LoadResult
from erg_loadtest.run_command import run


def with_load_options(command: click.Command, *, without: frozenset[str]) -> click.Command:
    """Adds the options of `erg load run` to a command, but for those that it sets itself or has in another form."""
    own = {parameter.name for parameter in command.params}
    command.params += [
        parameter for parameter in run.params if parameter.name not in without and parameter.name not in own
    ]
    return command


def plan_with(options: Mapping[str, Any], **changes: Any) -> LoadPlan:
    """The plan of a command's load options with some of them set; raises PlanError."""
    left_out = dict.fromkeys(("concurrency", "request_rate", "request_count", "duration"))
    return plan_of({**left_out, **options, **changes})


def trial(
    plan: LoadPlan, *, label: str, variant: str = "", quality: Quality, progress: OnProgress | None
) -> tuple[LoadResult, RunDocument]:
    """One run and its document; raises LoadTestError."""
    result = run_load(plan, progress=progress)
    return result, run_document(plan, result, command=command_line(), label=label, variant=variant, quality=quality)
