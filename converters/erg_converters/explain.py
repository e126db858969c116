"""Says in words what a recipe would do, what each setting means, where a run stopped, and what one found."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from erg_converters.chain import Chain
from erg_converters.compare import compared_rows
from erg_converters.data import load_table
from erg_converters.fits import check_gate, check_machine
from erg_converters.plan import CandidatePlan, Plan, plan
from erg_converters.report import REPORT_FILENAME, Report, load_report
from erg_converters.settings import DataSettings, Recipe
from erg_converters.sources.load import load_source
from erg_converters.workspace import Workspace

_CACHED = {True: "in the cache", False: "to be done", None: "to be done, after the one before"}


def explain_recipe(recipe: Recipe, cache: Path | None, console: Console, *, trust: bool) -> None:
    """Print the plan, then every setting. `cache` None: without loading the model to look into the cache.

    Raises:
        RecipeError: the recipe's passes do not fit together.
        ConversionError: the model or the data cannot be loaded.
    """
    planned = plan(recipe)
    check_machine(recipe)
    console.print(Text(f"What `erg convert run {recipe.path}` does", style="bold"))
    for number, line in enumerate(steps_of(planned), 1):
        console.print(f"  {number:2d}. {line}", markup=False)
    if cache is not None:
        console.print(Text(f"\nWhat is in the cache ({cache})", style="bold"))
        chain = _chain(recipe, cache, trust=trust)
        for step in chain.preview(planned):
            console.print(f"  {step.candidate} · {step.name}: {_CACHED[step.cached]}", markup=False)
    console.print(Text("\nWhat every setting means (* is not the default)", style="bold"))
    for heading, settings in _tables(recipe, planned):
        console.print(Text(f"\n  {heading}", style="bold"))
        for line in described(settings):
            console.print(f"    {line}", markup=False)


def steps_of(planned: Plan) -> Iterator[str]:
    """Each step of a run, in words."""
    recipe, source = planned.recipe, planned.recipe.source
    yield f"load the source: {source.kind} {source.path or source.weights or source.factory}"
    for name, data in (("calibration", recipe.calibration), ("evaluation", recipe.evaluation)):
        if data is not None:
            yield f"load {name} data: {_told(data)}"
    yield (
        f"export_onnx: plain fp32 ONNX at opset {recipe.export.opset}, which differs from the source by at most "
        f"{recipe.export.max_absolute_difference:g}; it is candidate 'source', the yardstick"
    )
    for candidate in planned.candidates:
        for each in candidate.passes:
            stated = ", ".join(f"{key} = {value}" for key, value in each.settings_text().items())
            yield f"{candidate.name}: {each.name} ({stated}) -> {each.gives}; {each.cites}"
    for candidate in planned.candidates[1:]:
        yield f"judge {candidate.name} on {_runs(candidate)}: {_bounds(recipe)}"
    measure = recipe.measure
    yield (
        f"measure what passes, interleaved with the source, threads {measure.threads}, rounds {measure.rounds}: batch "
        f"sizes {list(measure.batch_sizes)}, lengths {list(measure.lengths)} where there is such an axis, on "
        f"{', '.join(measure.devices)}"
    )
    limit = (
        f"drop at most {recipe.choose.max_drop:g}"
        if recipe.choose.rule == "cheapest"
        else f"cost at most {recipe.choose.max_cost_ratio:g} of the source's"
    )
    yield f"choose the {recipe.choose.rule.replace('_', ' ')} with {limit}; the source where none is worth it"
    yield f"publish the next version of {recipe.publish.repository}/{recipe.publish.name}, in one rename"


def described(settings: Any) -> Iterator[str]:
    """Each field of a settings dataclass: its value, whether it is the default, and what it means.

    A field that means nothing beside the others' values is left out, as the tokenizer of a folder of images is: what
    it is for stands before the colon in its meaning.
    """
    choices = _choices(settings)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        meaning = field.metadata.get("doc", "(not described)")
        if _is_of_another(field.name, meaning, settings, choices):
            continue
        if field.name == "passes":
            value = [step.name for step in value]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        stated = required or value != _default(field)
        shown = list(value) if isinstance(value, tuple) else value
        yield f"{'*' if stated else ' '} {field.name} = {shown!r}: {meaning}"


def _choices(settings: Any) -> dict[str, str]:
    """Each word that a field of these settings may have as its value, to the field's name."""
    hints = typing.get_type_hints(type(settings))
    return {
        choice: name
        for name, hint in hints.items()
        if typing.get_origin(hint) is typing.Literal
        for choice in typing.get_args(hint)
        if choice
    }


def _is_of_another(name: str, meaning: str, settings: Any, choices: Mapping[str, str]) -> bool:
    word = re.split(r"[:,]", meaning)[0]
    return choices.get(word, name) != name and getattr(settings, choices[word]) != word


def where_stopped(recipe: Recipe, cache: Path) -> str:
    """Where the last run of this very recipe stopped, by its report."""
    file = Workspace(cache).run_folder(recipe.publish.name, recipe.sha256) / REPORT_FILENAME
    if not file.exists():
        return f"{recipe.path} was not run before as it stands; what is in the cache is used, the rest is done"
    report = load_report(file)
    good = [step for step in report.steps if step.status in {"done", "cached"}]
    if report.published:
        return f"the last run ended well and published {report.published}; what is in the cache is used"
    # A candidate that failed before it did not stop the run: what stopped it is the last step.
    failed = report.steps[-1] if report.steps and report.steps[-1].status == "failed" else None
    if failed is not None:
        what = f"{failed.candidate} · {failed.name}" if failed.candidate else failed.name
        return f"goes on from {what}, which ended with: {failed.message}; {len(good)} steps before it are kept"
    return f"goes on after {good[-1].name}; {len(good)} steps are kept" if good else "starts at the beginning"


def summary(report: Report) -> Group:
    """What a run found, a row a candidate: speed-up and loss against the source; below, why one was refused."""
    table = Table(title=Text(f"{report.model}: chosen is {report.chosen}"), caption=Text(report.chosen_reason))
    for heading in ("candidate", "status", "speed-up", "drop", "cosine", "MB"):
        table.add_column(heading)
    for row in compared_rows(report, report):
        side, record = row.one, report.candidate(row.name)
        if side is None or record is None:
            continue
        table.add_row(
            row.name,
            side.status,
            "-" if side.speedup is None else f"{side.speedup:.2f}",
            "-" if side.drop is None else f"{side.drop:+.4f}",
            "-" if side.cosine is None else f"{side.cosine:.5f}",
            f"{side.bytes / 1e6:.1f}",
        )
    # Not strings, whose brackets would be read as markup.
    reasons = [Text(f"{each.name} {each.status}: {each.reason}") for each in report.candidates if each.reason]
    return Group(table, *reasons)


def _chain(recipe: Recipe, cache: Path, *, trust: bool) -> Chain:
    source = load_source(recipe, trust=trust)
    inputs = source.input_specs()
    calibration, evaluation = (load_table(recipe, name, inputs) for name in ("calibration", "evaluation"))
    check_gate(recipe, source, evaluation)
    return Chain(
        workspace=Workspace(cache), source=source, inputs=inputs, calibration=calibration, evaluation=evaluation
    )


def _tables(recipe: Recipe, planned: Plan) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if dataclasses.is_dataclass(value):
            yield f"[{field.name}]", value
        elif isinstance(value, tuple):
            for item in value:
                yield f"[[{field.name.removesuffix('s')}]] {item.name}", item
    for candidate in planned.candidates:
        for each in candidate.passes:
            yield f"{candidate.name}: pass {each.name}", each.settings


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _told(data: DataSettings) -> str:
    count = f"{data.samples} samples" if data.samples else "all samples"
    if data.kind == "random":
        return f"{count}, generated (kind = random): they say how far outputs move, and nothing about a task"
    return f"{count} of {data.path or data.entry} ({data.kind})"


def _runs(candidate: CandidatePlan) -> str:
    return f"{candidate.backend} in {candidate.precision}"


def _bounds(recipe: Recipe) -> str:
    gate = recipe.gate
    return (
        f"{gate.metric} may drop by {gate.max_drop:g} at the far end of its {gate.confidence:.0%} interval, mean "
        f"cosine at least {gate.min_cosine:g}, a row alone and in a batch alike to {gate.batch_tolerance:g}"
    )
