"""What is said of each step: one whole line, also where there is no terminal, and a trace for runs that are killed."""

from __future__ import annotations

import io

import pytest
from erg_converters.errors import ConversionError
from erg_converters.progress import Steps
from rich.console import Console


def test_without_a_terminal_every_ended_step_is_one_whole_line_at_once():
    out = io.StringIO()
    steps = Steps(Console(file=out, width=40))
    reason = "a reason [with brackets] that is " + "long " * 30 + "to its end"
    with steps.progress:
        with steps.step("export_onnx") as step:
            step.advance(1, 2)
            step.figures = {"size": "90.3 MB"}
        told = out.getvalue()
        assert told.startswith("export_onnx done 0.0 s: size 90.3 MB\n")
        with pytest.raises(ConversionError), steps.step("gate", "int8"):
            raise ConversionError(reason)
        steps.skip("gate", "int4", "there is no file to judge")
    assert out.getvalue().splitlines()[1:] == [
        f"int8: gate failed 0.0 s: {reason}",
        "int4: gate skipped: there is no file to judge",
    ]


def test_a_terminal_shows_a_bar_while_a_step_runs_and_keeps_its_line():
    out = io.StringIO()
    steps = Steps(Console(file=out, width=100, force_terminal=True, color_system=None))
    with steps.progress, steps.step("measure") as step:
        step.advance(1, 2)
        steps.progress.refresh()
        assert "━" in out.getvalue()
    assert "measure done 0.0 s" in out.getvalue()


def test_every_ended_step_is_reported_before_the_next_begins():
    ended: list[int] = []
    steps = Steps(Console(file=io.StringIO()), lambda: ended.append(len(steps.records)))
    for name in ("one", "two"):
        with steps.step(name):
            pass
    assert ended == [1, 2]
