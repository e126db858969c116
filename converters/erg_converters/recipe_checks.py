"""Checks that a recipe's tables fit each other, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from erg_server.datatype import DataType
from erg_server.errors import ErgError
from erg_server.repository.layout import check_name

from erg_converters.errors import RecipeError
from erg_converters.settings import SOURCE_CANDIDATE, DataSettings, InputSettings, Recipe
from erg_converters.tables import Lines, Place

_NEEDED = {"npz": "path", "jsonl": "path", "images": "path", "python": "entry", "random": ""}


def check_recipe(recipe: Recipe, lines: Lines) -> None:
    """Raise RecipeError at the first table that does not fit the others, with its line."""
    _check_source(recipe, Place(lines=lines, table="source"))
    seen: set[str] = set()
    for index, item in enumerate(recipe.inputs):
        _check_input(item, Place(lines=lines, table="input", index=index))
        _check_unique("input", item.name, seen, Place(lines=lines, table="input", index=index))
    for name, data in (("calibration", recipe.calibration), ("evaluation", recipe.evaluation)):
        if data is not None:
            _check_data(data, Place(lines=lines, table=name))
    _check_held_out(recipe, Place(lines=lines, table="evaluation"))
    _check_candidates(recipe, lines)
    place = Place(lines=lines, table="measure")
    for key, values in (("batch_sizes", recipe.measure.batch_sizes), ("devices", recipe.measure.devices)):
        if not values:
            raise place.error(key, "is empty: nothing would be measured")
    for device in recipe.measure.devices:
        if device != "cpu":
            raise place.error("devices", f"names 'cpu': conversions judge and time on no other device, not '{device}'")
    try:
        check_name(recipe.publish.name)
    except ErgError as error:
        raise Place(lines=lines, table="publish").error("name", f"is no model name: {error.message}") from error


def _check_source(recipe: Recipe, place: Place) -> None:
    source = recipe.source
    if source.kind == "torch":
        if not source.factory and not source.weights:
            raise place.error("factory", 'is missing: module:function that returns the module, as in "models:build"')
        if not recipe.inputs:
            raise place.error("kind", "is torch, whose inputs are not known: add [[input]] tables with name and dims")
    elif not source.path:
        raise place.error("path", "is missing: the folder or file of the model")
    else:
        for key in ("factory", "weights"):
            if getattr(source, key):
                raise place.error(key, f'is for kind = "torch", not {source.kind}')
    if source.factory and not _is_entry(source.factory):
        raise place.error("factory", f"is module:function, not '{source.factory}'")
    if recipe.export.task and source.kind != "transformers":
        raise Place(lines=place.lines, table="export").error("task", f"is for transformers, not {source.kind}")


def _check_input(item: InputSettings, place: Place) -> None:
    try:
        DataType.parse(item.datatype)
    except ErgError as error:
        raise place.error("datatype", f"is no datatype: {error.message}") from error
    if not item.dims or item.dims[0] != -1:
        raise place.error("dims", f"begins with the batch axis, -1: write [-1, ...], not {list(item.dims)}")
    if 0 in item.dims:
        raise place.error("dims", f"has an axis of size 0: {list(item.dims)}")
    dynamic = item.dims.count(-1)
    if item.axes and len(item.axes) != dynamic:
        raise place.error("axes", f"names the {dynamic} dynamic axes of dims, not {len(item.axes)}: {list(item.axes)}")
    if len(set(item.axes)) != len(item.axes) or not all(item.axes):
        raise place.error("axes", f"has a name twice, or an empty one: {list(item.axes)}")


def _check_data(data: DataSettings, place: Place) -> None:
    needed = _NEEDED[data.kind]
    if needed and not getattr(data, needed):
        raise place.error(needed, f'is missing: kind = "{data.kind}" needs it')
    if data.kind == "jsonl" and not data.tokenizer:
        raise place.error("tokenizer", 'is missing: kind = "jsonl" needs the folder that has tokenizer.json')
    if data.kind == "random" and not data.samples:
        raise place.error("samples", "is 0, which means all; of random inputs there is no end")
    if data.entry and not _is_entry(data.entry):
        raise place.error("entry", f"is module:function, not '{data.entry}'")
    if data.kind == "images" and (0.0 in data.scale or not len(data.mean) == len(data.scale) in {1, 3}):
        raise place.error("scale", "and mean have one value a channel, 1 or 3, and no scale is 0")


def _check_held_out(recipe: Recipe, place: Place) -> None:
    """Refuse to evaluate on samples that were calibrated on, as far as the recipe tells."""
    one, other = recipe.calibration, recipe.evaluation
    if one is None or other is None or _origin(one) != _origin(other):
        return
    if one.kind == "random" and one.seed != other.seed:
        return
    if one.seed == other.seed and not _overlap(_range(one), _range(other)):
        return
    raise place.error(
        "skip",
        f"{other.skip}: the samples are those of [calibration]; evaluate on others: the same seed in both tables, and "
        f"here skip = {one.skip + one.samples if one.samples else 'N, with samples = N in [calibration]'}",
    )


def _origin(data: DataSettings) -> tuple[str, ...]:
    return (data.kind, data.path, data.entry, data.field)


def _range(data: DataSettings) -> tuple[float, float]:
    return data.skip, data.skip + data.samples if data.samples else float("inf")


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _check_candidates(recipe: Recipe, lines: Lines) -> None:
    seen: set[str] = set()
    for index, candidate in enumerate(recipe.candidates):
        place = Place(lines=lines, table="candidate", index=index)
        if candidate.name == SOURCE_CANDIDATE:
            raise place.error("name", f"'{SOURCE_CANDIDATE}' is the yardstick's, which is always there; take another")
        try:
            check_name(candidate.name)
        except ErgError as error:
            raise place.error("name", f"names files, too: {error.message}") from error
        _check_unique("candidate", candidate.name, seen, place)
    if recipe.candidates and recipe.evaluation is None:
        raise RecipeError(
            f"{lines.name}: table [evaluation] is missing: candidates are judged on held-out data; without any, write "
            '[evaluation] with kind = "random", which compares outputs on generated inputs'
        )


def _check_unique(what: str, name: str, seen: set[str], place: Place) -> None:
    if not name or name in seen:
        raise place.error("name", f"is empty, or another {what}'s, too: '{name}'")
    seen.add(name)


def _is_entry(text: str) -> bool:
    module, _, function = text.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in _parts(module))


def _parts(module: str) -> Iterator[str]:
    yield from module.split(".")
