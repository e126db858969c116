"""An inference request and its answer as the server sees them, free of transport and of protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from erg_server.tensor import Tensor

Parameter = bool | int | float | str


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output the caller asked for. `classification` > 0 asks for the top classes instead of the tensor."""

    name: str
    classification: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class InferenceRequest:
    """One request, already checked against the protocol but not against a model's signature.

    `model_version` is "" for whatever the version policy calls newest. `priority` is 0 for the model's default.
    `timeout_us` is the caller's queue timeout, 0 for the model's. `deadline_ns` is on the server's monotonic clock,
    or None. `arrival_ns` is when the transport had the whole message.
    """

    model_name: str
    inputs: list[Tensor]
    arrival_ns: int
    model_version: str = ""
    id: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    timeout_us: int = 0
    deadline_ns: int | None = None
    form: object = None
    """Equal for requests that differ in nothing but id, times and their tensors' bytes; None where that is unknown."""


@dataclass(slots=True, kw_only=True)
class Phases:
    """Where one request's time went, in nanoseconds of the server's monotonic clock.

    The three compute figures are durations measured by the worker for the batch the request shared.
    """

    arrival_ns: int = 0
    queued_ns: int = 0
    dispatched_ns: int = 0
    completed_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0
    batch_rows: int = 0


@dataclass(slots=True, kw_only=True)
class InferenceResponse:
    """The answer: outputs in the order asked for (the model's own order where none was)."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]
    parameters: dict[str, Parameter] = field(default_factory=dict)
    phases: Phases = field(default_factory=Phases)
    final: bool = True
