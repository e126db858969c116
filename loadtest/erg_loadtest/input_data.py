"""What to send, from a file: perf_analyzer's JSON, or numpy's .npz with one array an input."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.tensors import Array, InputSpec, Signature, matches, numpy_dtype

_MAX_FILE_BYTES = 1 << 30


def payloads_from_file(path: Path, signature: Signature, *, batch_size: int = 1) -> list[Payload]:
    """The prepared requests of a file, each of `batch_size` consecutive samples of equal shape.

    A sample is one row, without the batch axis: an entry of the JSON's "data", or one index of the arrays' first axis.
    """
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise PlanError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    if batch_size > max(1, signature.max_batch_size):
        raise PlanError(f"batch size {batch_size}: model '{signature.model}' takes {max(1, signature.max_batch_size)}")
    samples = _npz_samples(path, signature) if path.suffix == ".npz" else _json_samples(path, signature)
    if len(samples) < batch_size:
        raise PlanError(f"{path}: holds {len(samples)} samples, fewer than one batch of {batch_size}")
    for index, sample in enumerate(samples):
        _check(path, index, sample, signature)
    groups = [samples[at : at + batch_size] for at in range(0, len(samples) - batch_size + 1, batch_size)]
    return [_payload(path, group, signature) for group in groups]


def _payload(path: Path, group: Sequence[Mapping[str, Array]], signature: Signature) -> Payload:
    if signature.max_batch_size == 0:
        return build_payload(signature, group[0], rows=1)
    try:
        tensors = {name: np.stack([sample[name] for sample in group]) for name in group[0]}
    except (KeyError, ValueError):
        raise PlanError(f"{path}: samples of one batch differ in their inputs or shapes; use batch size 1") from None
    return build_payload(signature, tensors, rows=len(group))


def _npz_samples(path: Path, signature: Signature) -> list[dict[str, Array]]:
    # No pickles: an .npz from elsewhere is data, never code.
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: not an .npz of plain arrays ({error})") from error
    lengths = {len(column) if column.ndim else 0 for column in columns.values()}
    if len(lengths) != 1:
        raise PlanError(f"{path}: every array needs the same first axis, one entry a sample; found {sorted(lengths)}")
    held = {name: _as_held(column, signature.input(name)) for name, column in columns.items()}
    return [{name: column[index] for name, column in held.items()} for index in range(lengths.pop())]


def _json_samples(path: Path, signature: Signature) -> list[dict[str, Array]]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise PlanError(f"{path}: not JSON ({error})") from error
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PlanError(f'{path}: expected {{"data": [{{"INPUT": [values]}}, ...]}}')
    return [
        {name: _json_tensor(path, index, signature.input(name), value, signature) for name, value in entry.items()}
        for index, entry in enumerate(entries)
    ]


def _json_tensor(path: Path, index: int, spec: InputSpec, value: Any, signature: Signature) -> Array:
    where = f"{path}: data[{index}].{spec.name}"
    declared = spec.shape[1:] if signature.max_batch_size > 0 else spec.shape
    shape: Any = None
    if isinstance(value, dict):
        shape, value = value.get("shape"), value.get("content", value)
    if isinstance(value, dict):
        return _base64_tensor(where, spec, value.get("b64"), shape if shape is not None else declared)
    try:
        flat = _as_held(np.array(value, dtype=object), spec)
        if shape is None:
            # A flat list for a shape without open sizes is how perf_analyzer's files are written.
            shape = declared if -1 not in declared and flat.size == np.prod(declared) else flat.shape
        return flat.reshape(shape)
    except (TypeError, ValueError) as error:
        raise PlanError(f"{where}: {error}") from error


def _base64_tensor(where: str, spec: InputSpec, text: Any, shape: Sequence[int]) -> Array:
    if not isinstance(text, str) or spec.datatype in {"BYTES", "BF16"}:
        raise PlanError(f"{where}: expected a list of values, or {{'b64': ...}} for a type of fixed size but BF16")
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=numpy_dtype(spec.datatype)).reshape(shape)
    except (binascii.Error, ValueError) as error:
        raise PlanError(f"{where}: {error}") from error


def _as_held(values: Array, spec: InputSpec) -> Array:
    if spec.datatype == "BYTES":
        held = np.empty(values.shape, dtype=object)
        held[...] = values
        return held
    return values.astype(numpy_dtype(spec.datatype))


def _check(path: Path, index: int, sample: Mapping[str, Array], signature: Signature) -> None:
    missing = [spec.name for spec in signature.inputs if not spec.optional and spec.name not in sample]
    if missing:
        raise PlanError(f"{path}: data[{index}] lacks {', '.join(missing)}")
    for name, values in sample.items():
        declared = signature.input(name).shape
        if signature.max_batch_size > 0:
            declared = declared[1:]
        if not matches(values.shape, declared):
            raise PlanError(
                f"{path}: data[{index}].{name} has shape {list(values.shape)}; "
                f"the model takes {list(declared)}, batch axis left out"
            )
