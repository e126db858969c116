"""Checks that a recipe asks for what its model, its data and this machine have: before hours are spent, not after.

Each of these would fail every candidate alike, and the source would then be published as if it had won.
"""

from __future__ import annotations

import os
from pathlib import Path

from erg_converters.data import Dataset
from erg_converters.metrics import LEAST_SAMPLES
from erg_converters.settings import Recipe
from erg_converters.sources.base import Source
from erg_converters.tables import suggestion


def check_machine(recipe: Recipe) -> None:
    """Check threads and repository.

    Raises:
        RecipeError: more threads than cores to run on, or a repository that nothing can be written into.
    """
    cores = len(os.sched_getaffinity(0))
    if recipe.measure.threads > cores:
        raise recipe.place("measure").error(
            "threads", f"is {recipe.measure.threads}, and this machine lets the conversion use {cores}"
        )
    repository = Path(recipe.publish.repository)
    there = next(path for path in (repository, *repository.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise recipe.place("publish").error(
            "repository", f"is {repository}, and {there} is no folder that may be written to; name another"
        )


def check_gate(recipe: Recipe, source: Source, evaluation: Dataset | None) -> None:
    """Check that the gate's metric and output can be computed, and that the measured batches can be run.

    Raises:
        RecipeError: the metric needs labels or more samples, the model has no such output, or it takes one row only.
    """
    sizes = recipe.measure.batch_sizes
    if max(sizes) > 1 and not all(0 in spec.dynamic for spec in source.input_specs()):
        raise recipe.place("measure").error(
            "batch_sizes", f"are {list(sizes)}, and the model has a fixed batch of one: write [1], or export it again"
        )
    gate, place = recipe.gate, recipe.place("gate")
    if gate.output and gate.output not in source.output_names:
        raise place.error("output", f"is '{gate.output}', no output{suggestion(gate.output, source.output_names)}")
    if evaluation is None:
        return
    if gate.metric == "top1" and evaluation.labels is None:
        raise place.error(
            "metric", 'is top1, which needs labels, and the evaluation data has none; "agreement" needs none'
        )
    least = LEAST_SAMPLES.get(gate.metric, 1)
    if len(evaluation) < least:
        raise place.error("metric", f"is {gate.metric}, which needs {least} samples, and there is {len(evaluation)}")
