"""What a recipe will do, as chains of passes whose formats fit: checked whole before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from erg_server.backends.registry import backend_names

from erg_converters.artifact import Format
from erg_converters.errors import PassError, RecipeError
from erg_converters.passes.base import Pass
from erg_converters.passes.export_onnx import ExportOnnx, ExportSettings
from erg_converters.passes.registry import pass_class
from erg_converters.recipe import pass_settings
from erg_converters.report import SOURCE_CANDIDATE
from erg_converters.settings import CandidateSettings, PassStep, Recipe

SOURCE_BACKEND = "onnxruntime"
_PRECISIONS = {"onnxruntime": frozenset({"f32"})}
"""Backends that know but some of the precisions; any other backend is asked for what the candidate says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatePlan:
    """One candidate: the passes after the export, in order, and how the result is run."""

    name: str
    backend: str
    precision: str
    passes: tuple[Pass[Any], ...]
    form: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A recipe that fits together. The first candidate is the source itself, which the others are held against."""

    recipe: Recipe
    export: ExportOnnx
    candidates: tuple[CandidatePlan, ...]

    def only(self, names: Iterable[str]) -> Plan:
        """The same with no other candidates than these and the source; all where `names` is empty.

        Raises:
            RecipeError: the recipe has no candidate of a name.
        """
        wanted = set(names)
        known = {candidate.name for candidate in self.candidates}
        for name in sorted(wanted - known):
            raise RecipeError(f"{self.recipe.path} has no candidate '{name}'{_hint(name, known)}")
        kept = tuple(each for each in self.candidates if not wanted or each.name in {*wanted, SOURCE_CANDIDATE})
        return Plan(recipe=self.recipe, export=self.export, candidates=kept)


def plan(recipe: Recipe) -> Plan:
    """Check that every chain's formats, backends and data fit.

    Raises:
        RecipeError: they do not; the message has the file, the line and what would fit.
    """
    export = ExportOnnx(
        ExportSettings(opset=recipe.export.opset, max_absolute_difference=recipe.export.max_absolute_difference)
    )
    source = CandidatePlan(name=SOURCE_CANDIDATE, backend=SOURCE_BACKEND, precision="f32", passes=(), form=export.gives)
    others = tuple(_candidate(recipe, candidate, export.gives) for candidate in recipe.candidates)
    return Plan(recipe=recipe, export=export, candidates=(source, *others))


def _candidate(recipe: Recipe, candidate: CandidateSettings, form: Format) -> CandidatePlan:
    where = f"{recipe.path}: candidate '{candidate.name}'"
    if candidate.backend not in backend_names():
        raise RecipeError(
            f"{where}: no backend is called '{candidate.backend}'{_hint(candidate.backend, backend_names())}"
        )
    able = _PRECISIONS.get(candidate.backend)
    if able is not None and candidate.precision not in able:
        raise RecipeError(
            f"{where}: backend {candidate.backend} computes in {' or '.join(sorted(able))} what is not quantized, not "
            f'in {candidate.precision}; take backend = "openvino"'
        )
    passes: list[Pass[Any]] = []
    for step in candidate.passes:
        each = _instance(step)
        if form not in each.accepts:
            raise step.place.error(
                "pass",
                f"'{each.name}' takes {' or '.join(sorted(each.accepts))}, and what comes before it gives {form}; "
                "quantize last, and each candidate from the plain model",
            )
        if candidate.backend not in each.backends:
            raise step.place.error(
                "pass",
                f"'{each.name}' with these settings gives what {' and '.join(sorted(each.backends))} can run, and the "
                f"candidate's backend is {candidate.backend}",
            )
        if each.needs_calibration and recipe.calibration is None:
            raise step.place.error("pass", f"'{each.name}' needs samples: add a [calibration] table")
        passes.append(each)
        form = each.gives
    return CandidatePlan(
        name=candidate.name, backend=candidate.backend, precision=candidate.precision, passes=tuple(passes), form=form
    )


def _instance(step: PassStep) -> Pass[Any]:
    try:
        kind = pass_class(step.name)
    except PassError as error:
        raise step.place.error("pass", error.message) from error
    if Format.SOURCE in kind.accepts:
        raise step.place.error("pass", f"'{step.name}' is done first, for all candidates; [export] has its settings")
    try:
        return kind(pass_settings(step, kind.Settings))
    except RecipeError:
        raise
    except (PassError, ValueError) as error:
        raise step.place.error("pass", f"'{step.name}' does not take these settings: {error}") from error


def _hint(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(names)}"
