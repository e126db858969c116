"""Tensors from files: numpy's .npz with one array a tensor, or perf_analyzer's JSON."""

from __future__ import annotations

import base64
import binascii
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Sample
from erg_loadtest.tensors import Array, Signature, numpy_dtype

_EXPECTED = "expected."
"""What an .npz writes before an output's name; perf_analyzer's JSON has a list of its own."""


def npz_samples(path: Path, signature: Signature) -> list[Sample]:
    """One sample an index of the arrays' first axis; arrays named `expected.OUTPUT` are the right answers."""
    columns = _columns(path)
    lengths = {len(column) if column.ndim else 0 for column in columns.values()}
    if len(lengths) != 1:
        raise PlanError(f"{path}: every array needs the same first axis, one entry a sample; found {sorted(lengths)}")
    inputs: dict[str, Array] = {}
    expected: dict[str, Array] = {}
    for name, column in columns.items():
        output = name.removeprefix(_EXPECTED)
        is_expected = output != name and all(spec.name != name for spec in signature.inputs)
        datatype = signature.output(output).datatype if is_expected else signature.input(name).datatype
        try:
            held = _as_held(column, datatype)
        except (TypeError, ValueError) as error:
            raise PlanError(f"{path}: array '{name}': {error}") from error
        if is_expected:
            expected[output] = held
        else:
            inputs[name] = held
    return [
        Sample(
            place=f"{path}: data[{index}]",
            inputs={name: column[index, ...] for name, column in inputs.items()},
            expected={name: column[index, ...] for name, column in expected.items()} if expected else None,
        )
        for index in range(lengths.pop())
    ]


def _columns(path: Path) -> dict[str, Array]:
    try:
        # Opened here, since numpy leaves the file of a damaged archive open. No pickles: data is never code.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise PlanError(f"{path}: not an .npz of plain arrays ({error})") from error
    raise PlanError(f"{path}: not an .npz but one array without a name")


def json_samples(path: Path, signature: Signature) -> list[Sample]:
    """One sample an entry of "data"; the right answers are in "validation_data", in the same order."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: not JSON ({error})") from error
    entries = _entries(path, document, "data")
    answers = _entries(path, document, "validation_data") if "validation_data" in document else None
    if answers is not None and len(answers) != len(entries):
        raise PlanError(f"{path}: {len(answers)} entries of validation_data to {len(entries)} of data")
    samples = []
    for index, entry in enumerate(entries):
        inputs = {}
        for name, value in entry.items():
            spec = signature.input(name)
            place = f"{path}: data[{index}].{name}"
            inputs[name] = _json_tensor(place, spec.datatype, value, signature.row_shape(spec))
        expected = None
        if answers is not None:
            expected = {
                name: _json_tensor(
                    f"{path}: validation_data[{index}].{name}", signature.output(name).datatype, value, None
                )
                for name, value in answers[index].items()
            }
        samples.append(Sample(place=f"{path}: data[{index}]", inputs=inputs, expected=expected))
    return samples


def _entries(path: Path, document: Any, key: str) -> list[dict[str, Any]]:
    entries = document.get(key) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PlanError(f'{path}: expected {{"{key}": [{{"TENSOR": [values]}}, ...]}}')
    return entries


def _json_tensor(place: str, datatype: str, value: Any, declared: Sequence[int] | None) -> Array:
    shape: Any = None
    if isinstance(value, dict):
        shape, value = value.get("shape"), value.get("content", value)
    try:
        if isinstance(value, dict):
            return _base64_tensor(place, datatype, value.get("b64"), shape if shape is not None else declared)
        flat = _as_held(np.array(value, dtype=object), datatype)
        if shape is None:
            # A flat list for a shape without open sizes is how perf_analyzer's files are written.
            fits = declared is not None and -1 not in declared and flat.size == np.prod(declared)
            shape = declared if fits else flat.shape
        return flat.reshape(shape)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise PlanError(f"{place}: {error}") from error


def _base64_tensor(place: str, datatype: str, text: Any, shape: Sequence[int] | None) -> Array:
    if not isinstance(text, str) or datatype in {"BYTES", "BF16"}:
        raise PlanError(f"{place}: expected a list of values, or {{'b64': ...}} for a type of fixed size but BF16")
    if shape is None:
        raise PlanError(f"{place}: {{'b64': ...}} needs its 'shape' beside it")
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=numpy_dtype(datatype)).reshape(shape)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _as_held(values: Array, datatype: str) -> Array:
    if datatype == "BYTES":
        held = np.empty(values.shape, dtype=object)
        held[...] = values
        return held
    try:
        with np.errstate(over="raise", invalid="raise"):
            return values.astype(numpy_dtype(datatype))
    except ArithmeticError as error:
        raise ValueError(f"a value is out of {datatype}'s range ({error})") from error
