"""Loads the source that a recipe names."""

from __future__ import annotations

import logging

from erg_converters.errors import SourceError
from erg_converters.settings import InputSettings, Recipe
from erg_converters.sources.base import InputSpec, Source, named_axes

_NEEDS = "needs {package}, which is not installed: pip install 'erg[convert]'"


def load_source(recipe: Recipe, *, trust: bool = False) -> Source:
    """Load the source; no code that a model folder or checkpoint holds is run unless `trust` says so.

    A factory, and a Python data entry, are the recipe's own code, and run.

    Raises:
        TrustError: it is a pickle that can only be loaded by running it.
        SourceError: it is not there, broken, hostile, or not what its kind says.
    """
    try:
        return _load(recipe, trust=trust)
    except SourceError as error:
        if not recipe.lines.name:
            raise
        raise type(error)(f"{recipe.lines.where('source', 0)}: {error.message}") from error


def _load(recipe: Recipe, *, trust: bool) -> Source:
    settings, inputs = recipe.source, tuple(_spec(item) for item in recipe.inputs)
    # Each is imported only when it is asked for: an ONNX file wants no PyTorch.
    try:
        if settings.kind == "onnx":
            from erg_converters.sources.onnx_file import OnnxSource  # noqa: PLC0415

            return OnnxSource.load(settings, inputs, recipe.folder)
        if settings.kind == "torch":
            from erg_converters.sources.torch_module import load_torch  # noqa: PLC0415

            return load_torch(settings, inputs, recipe.folder, trust=trust)
        from erg_converters.sources.transformers import load_transformers  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"torch", "transformers", "safetensors", "onnxruntime"}:
            raise SourceError(f"source.kind = '{settings.kind}' " + _NEEDS.format(package=error.name)) from error
        raise
    # Its warnings are of training and of its own loading bars; what matters here is raised.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return load_transformers(settings, recipe.export.task, inputs, recipe.folder)


def _spec(item: InputSettings) -> InputSpec:
    positions = [position for position, size in enumerate(item.dims) if size == -1]
    stated = dict(zip(positions, item.axes, strict=False))
    return InputSpec(
        name=item.name,
        datatype=item.datatype,
        dims=item.dims,
        axes=named_axes(item.name, item.datatype, item.dims, stated),
        pad_value=item.pad_value,
    )
