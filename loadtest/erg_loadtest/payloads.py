"""Requests serialised once, before the clock starts, so that the client's own work stays out of the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from erg_server.pb import inference_pb2

from erg_loadtest.tensors import Array, Signature, to_wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One prepared ModelInferRequest."""

    body: bytes
    rows: int
    """Inferences it asks for: the batch axis's size, 1 without one."""
    expected: bytes | None = None
    """What its answer is checked against; see `answers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row of data, batch axis left out."""

    place: str
    """Where it came from, for messages."""
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array] | None = None
    """The right outputs, where the data has them."""


def build_payload(
    signature: Signature,
    tensors: Mapping[str, Array],
    *,
    rows: int,
    request_id: str = "",
    expected: bytes | None = None,
) -> Payload:
    """A request with these values, batch axis included, in raw contents."""
    request = inference_pb2.ModelInferRequest(
        model_name=signature.model, model_version=signature.version, id=request_id
    )
    for name, values in tensors.items():
        spec = signature.input(name)
        request.inputs.add(name=name, datatype=spec.datatype, shape=values.shape)
        request.raw_input_contents.append(to_wire(values, spec.datatype))
    return Payload(body=request.SerializeToString(), rows=rows, expected=expected)
