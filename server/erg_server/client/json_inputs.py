"""Inputs from a file: the `inputs` of the protocol's JSON request (its REST form), whose data may be nested or flat."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from erg_server.client.bfloat16 import to_bits
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor

_KEYS = ("name", "datatype", "shape", "data")


def read_inputs(path: Path) -> list[Tensor]:
    """The tensors that a file states.

    Raises:
        InvalidArgumentError: unreadable, not JSON, or not of the form; the message names the file and the input.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidArgumentError(f"--json {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"--json {path}: not JSON: {error}") from error
    try:
        return parse_inputs(document)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"--json {path}: {error.message}") from error


def parse_inputs(document: object) -> list[Tensor]:
    """The tensors of a JSON request; raises InvalidArgumentError naming the input that is wrong."""
    if not isinstance(document, dict) or set(document) != {"inputs"} or not isinstance(document["inputs"], list):
        raise InvalidArgumentError('it takes {"inputs": [{"name", "datatype", "shape", "data"}, …]} and no more')
    tensors = [_tensor(entry) for entry in document["inputs"]]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise InvalidArgumentError("an input is stated twice")
    return tensors


def _tensor(entry: object) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != set(_KEYS) or not isinstance(entry["name"], str):
        raise InvalidArgumentError(f"an input has {', '.join(_KEYS)} and nothing else")
    name, shape = entry["name"], entry["shape"]
    what = f"input '{name}'"
    if not isinstance(entry["datatype"], str):
        raise InvalidArgumentError(f"{what}: datatype is a string, as in FP32")
    kind = DataType.parse(entry["datatype"])
    # A boolean is an int to Python, and no size to anybody.
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise InvalidArgumentError(f"{what}: shape is a list of sizes, as in [1, 128]")
    elements = _flat(entry["data"], what)
    if len(elements) != math.prod(shape):
        raise InvalidArgumentError(
            f"{what} of shape {shape} has {math.prod(shape)} values, and data has {len(elements)}"
        )
    return Tensor.from_numpy(name, _array(elements, kind, what).reshape(shape), kind)


def _flat(data: object, what: str) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidArgumentError(f"{what}: data is a list")
    flat = data
    while any(isinstance(item, list) for item in flat):
        if not all(isinstance(item, list) for item in flat):
            raise InvalidArgumentError(f"{what}: data mixes lists and values")
        flat = [value for item in flat for value in item]
    return flat


def _array(elements: list[Any], kind: DataType, what: str) -> np.ndarray[Any, np.dtype[Any]]:
    wanted: tuple[type, ...]
    if kind is DataType.BYTES:
        wanted, told = (str,), "strings"
    elif kind is DataType.BOOL:
        wanted, told = (bool,), "true or false"
    elif kind.numpy.kind == "f" or kind is DataType.BF16:
        wanted, told = (int, float), "numbers"
    else:
        wanted, told = (int,), "whole numbers"
    for element in elements:
        if type(element) not in wanted:
            raise InvalidArgumentError(f"{what} of datatype {kind.value} takes {told}, not {json.dumps(element)}")
    if kind is DataType.BYTES:
        held = np.empty(len(elements), dtype=object)
        # A lone surrogate, which JSON can write, has no bytes.
        held[:] = [element.encode(errors="replace") for element in elements]
        return held
    try:
        with np.errstate(over="raise"):
            if kind is DataType.BF16:
                return to_bits(np.array(elements, dtype=np.float32))
            return np.array(elements, dtype=kind.numpy)
    except (OverflowError, FloatingPointError) as error:
        raise InvalidArgumentError(f"{what}: a value is out of {kind.value}'s range: {error}") from None
