"""Passes by name. Erg's own and third parties' register alike, under the entry-point group `erg.passes`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from erg_converters.errors import PassError
from erg_converters.passes.base import Pass
from erg_converters.tables import suggestion

ENTRY_POINT_GROUP = "erg.passes"

OWN_PASSES: Mapping[str, str] = MappingProxyType(
    {
        "export_onnx": "erg_converters.passes.export_onnx:ExportOnnx",
        "optimize_onnx": "erg_converters.passes.optimize_onnx:OptimizeOnnx",
        "quantize_dynamic": "erg_converters.passes.quantize_dynamic:QuantizeDynamic",
        "quantize_static": "erg_converters.passes.quantize_static:QuantizeStatic",
        "quantize_weights": "erg_converters.passes.quantize_weights:QuantizeWeights",
        "convert_float16": "erg_converters.passes.convert_float16:ConvertFloat16",
    }
)
"""Known without an entry point too, so that a checkout that was not installed again still has them."""


def pass_names() -> tuple[str, ...]:
    """The names that a recipe's `pass` may have here."""
    return tuple(sorted({*OWN_PASSES, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))}))


def pass_class(name: str) -> type[Pass[Any]]:
    """The class of the pass called `name`; third parties cannot replace Erg's own.

    Raises:
        PassError: there is no such pass, or its module does not import.
    """
    try:
        if name in OWN_PASSES:
            module, _, attribute = OWN_PASSES[name].partition(":")
            own: type[Pass[Any]] = getattr(importlib.import_module(module), attribute)
            return own
        for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
            found: type[Pass[Any]] = point.load()
            return found
    except ImportError as error:
        raise PassError(
            f"pass '{name}' needs {error.name or error}, which is not installed: pip install 'erg[convert]'"
        ) from error
    raise PassError(f"no pass is called '{name}'{suggestion(name, pass_names())}")
