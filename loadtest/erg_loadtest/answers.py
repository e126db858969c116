"""Whether an answer is the right one: against golden outputs, or against what the same request got first."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from erg_server.pb import inference_pb2
from google.protobuf.message import DecodeError

from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Payload
from erg_loadtest.tensors import Array, Signature, from_wire, numpy_dtype, to_wire

_TYPED_FIELDS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where an answer without raw contents holds its values; the protocol has no field for FP16 and BF16."""


class CheckKind(StrEnum):
    """What an answer is compared with."""

    GOLDEN = "golden"
    """The expected outputs that come with the inputs."""
    FIRST = "first"
    """The answer that the same request got alone, before the run."""
    HASH = "hash"
    """As `FIRST`, bit by bit; only a digest is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRule:
    """How answers are checked. |answer - expected| <= atol + rtol x |expected| for every float; all else is exact."""

    kind: CheckKind
    atol: float = 1e-4
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        for name, value in (("--atol", self.atol), ("--rtol", self.rtol)):
            if not 0 <= value < math.inf:
                raise PlanError(f"{name} must be 0 or more and finite, not {value}")

    def reference(self, answer: bytes) -> bytes:
        """What to keep of the answer that others are compared with; raises ValueError when it is none."""
        outputs = read_answer(answer)
        return _digest(outputs) if self.kind is CheckKind.HASH else answer


class AnswerCheck:
    """A rule applied to prepared requests; keeps the first difference it meets as an example."""

    def __init__(self, rule: CheckRule, payloads: Sequence[Payload]) -> None:
        self._rule = rule
        self._payloads = payloads
        self._references: dict[int, Mapping[str, Array]] = {}
        self.example: str | None = None

    def __call__(self, index: int, answer: bytes) -> bool:
        """Whether `answer` is the right one to the prepared request of that index."""
        difference = self._difference(index, answer)
        if difference is not None and self.example is None:
            self.example = f"prepared request {index}: {difference}"
        return difference is None

    def _difference(self, index: int, answer: bytes) -> str | None:
        expected = self._payloads[index].expected
        if expected is None or answer == expected:
            return None
        try:
            outputs = read_answer(answer)
        except ValueError as error:
            return str(error)
        if self._rule.kind is CheckKind.HASH:
            return None if _digest(outputs) == expected else "the answer is not bit by bit the first one"
        if index not in self._references:
            self._references[index] = read_answer(expected)
        return difference(outputs, self._references[index], self._rule)


def golden_answer(signature: Signature, expected: Mapping[str, Array]) -> bytes:
    """Expected outputs, batch axis included, as the answer that a server would give."""
    response = inference_pb2.ModelInferResponse(model_name=signature.model)
    for name, values in expected.items():
        datatype = signature.output(name).datatype
        response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        response.raw_output_contents.append(to_wire(values, datatype))
    return response.SerializeToString()


def read_answer(answer: bytes) -> dict[str, Array]:
    """The outputs of a serialised ModelInferResponse by name; raises ValueError saying what is wrong with it."""
    try:
        response = inference_pb2.ModelInferResponse.FromString(answer)
    except DecodeError as error:
        raise ValueError(f"not a ModelInferResponse ({error})") from None
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise ValueError(f"{len(response.outputs)} outputs with {len(raw)} raw contents")
    return {entry.name: _values(entry, raw[index] if raw else None) for index, entry in enumerate(response.outputs)}


def difference(outputs: Mapping[str, Array], expected: Mapping[str, Array], rule: CheckRule) -> str | None:
    """The first difference in words, or None. Outputs that nothing is expected of are not looked at."""
    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None:
            return f"output '{name}' is missing; the answer has {', '.join(outputs) or 'none'}"
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return f"output '{name}' is {found.dtype}{list(found.shape)}, expected {wanted.dtype}{list(wanted.shape)}"
        if wanted.dtype.kind == "f":
            same = np.isclose(found, wanted, rtol=rule.rtol, atol=rule.atol, equal_nan=True)
        else:
            same = np.equal(found, wanted).astype(bool)
        if not same.all():
            place = tuple(int(at) for at in np.argwhere(~same)[0])
            return (
                f"output '{name}'{list(place)} is {found[place]!s}, expected {wanted[place]!s} "
                f"({int((~same).sum()):,} of {same.size:,} values differ)"
            )
    return None


def _values(entry: Any, raw: bytes | None) -> Array:
    try:
        if raw is not None:
            return from_wire(raw, entry.datatype, tuple(entry.shape))
        values = getattr(entry.contents, _TYPED_FIELDS[entry.datatype])
        if entry.datatype != "BYTES":
            return np.array(values, dtype=numpy_dtype(entry.datatype)).reshape(tuple(entry.shape))
        held = np.empty(len(values), dtype=object)
        held[:] = list(values)
        return held.reshape(tuple(entry.shape))
    except (KeyError, ValueError, PlanError) as error:
        raise ValueError(f"output '{entry.name}' of {entry.datatype}{list(entry.shape)}: {error}") from None


def _digest(outputs: Mapping[str, Array]) -> bytes:
    digest = hashlib.sha256()
    for name, values in outputs.items():
        digest.update(f"{name}\0{values.dtype}\0{values.shape}\0".encode())
        digest.update(to_wire(values, "BYTES") if values.dtype == object else values.tobytes())
    return digest.digest()
