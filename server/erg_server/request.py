"""An inference request and its answer as the server sees them, free of transport and of protobuf."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from erg_server.tensor import Tensor

Parameter = bool | int | float | str

NO_PARAMETERS: Mapping[str, Parameter] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output the caller asked for. `classification` > 0 asks for the top classes instead of the tensor."""

    name: str
    classification: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


# The initialisers of what every request makes are written out: those that dataclasses generate are not compiled.


@dataclass(slots=True, init=False)
class InferenceRequest:
    """One request, already checked against the protocol but not against a model's signature.

    `model_version` is "" for whatever the version policy calls newest. `priority` is 0 for the model's default.
    `timeout_us` is the caller's queue timeout, 0 for the model's. `deadline_ns` is on the server's monotonic clock,
    or None. `arrival_ns` is when the transport had the whole message. `form` is equal for requests that differ in
    nothing but id, times and their tensors' bytes, and None where that is unknown. `tenant` is who pays, "" for nobody
    in particular. `warmup` marks what no caller sent: it is run so that a version may serve.
    """

    model_name: str
    inputs: list[Tensor]
    arrival_ns: int
    model_version: str
    id: str
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, Parameter]
    priority: int
    timeout_us: int
    deadline_ns: int | None
    form: Hashable
    tenant: str
    warmup: bool

    def __init__(
        self,
        *,
        model_name: str,
        inputs: list[Tensor],
        arrival_ns: int,
        model_version: str = "",
        id: str = "",  # noqa: A002 (the protocol's name)
        outputs: tuple[RequestedOutput, ...] = (),
        parameters: Mapping[str, Parameter] = NO_PARAMETERS,
        priority: int = 0,
        timeout_us: int = 0,
        deadline_ns: int | None = None,
        form: Hashable = None,
        tenant: str = "",
        warmup: bool = False,
    ) -> None:
        self.model_name = model_name
        self.inputs = inputs
        self.arrival_ns = arrival_ns
        self.model_version = model_version
        self.id = id
        self.outputs = outputs
        self.parameters = parameters
        self.priority = priority
        self.timeout_us = timeout_us
        self.deadline_ns = deadline_ns
        self.form = form
        self.tenant = tenant
        self.warmup = warmup


@dataclass(slots=True, init=False)
class Phases:
    """Where one request's time went, in nanoseconds of the server's monotonic clock.

    The three compute figures are durations measured by the worker for the batch the request shared; `device` is the
    worker's name.
    """

    arrival_ns: int
    queued_ns: int
    dispatched_ns: int
    completed_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    batch_rows: int
    device: str

    def __init__(
        self,
        *,
        arrival_ns: int = 0,
        queued_ns: int = 0,
        dispatched_ns: int = 0,
        completed_ns: int = 0,
        compute_input_ns: int = 0,
        compute_infer_ns: int = 0,
        compute_output_ns: int = 0,
        batch_rows: int = 0,
        device: str = "",
    ) -> None:
        self.arrival_ns = arrival_ns
        self.queued_ns = queued_ns
        self.dispatched_ns = dispatched_ns
        self.completed_ns = completed_ns
        self.compute_input_ns = compute_input_ns
        self.compute_infer_ns = compute_infer_ns
        self.compute_output_ns = compute_output_ns
        self.batch_rows = batch_rows
        self.device = device


@dataclass(slots=True, init=False)
class InferenceResponse:
    """The answer: outputs in the order asked for (the model's own order where none was)."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]
    parameters: Mapping[str, Parameter]
    phases: Phases
    final: bool

    def __init__(
        self,
        *,
        model_name: str,
        model_version: str,
        id: str,  # noqa: A002 (the protocol's name)
        outputs: list[Tensor],
        phases: Phases | None = None,
        parameters: Mapping[str, Parameter] = NO_PARAMETERS,
        final: bool = True,
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.id = id
        self.outputs = outputs
        self.parameters = parameters
        self.phases = Phases() if phases is None else phases
        self.final = final
