"""Between the protocol's messages and the server's own requests: bytes become tensors only after they are checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from erg_server.datatype import DATATYPES, DataType
from erg_server.errors import InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from erg_server.tensor import Buffer, Tensor, count_bytes_elements, pack_bytes_elements

MAX_TENSORS: Final = 1024
MAX_DIMENSIONS: Final = 16
MAX_DIMENSION: Final = (1 << 31) - 1
MAX_EMPTY_VOLUME: Final = 1 << 40
"""Product of the axes of a zero-size tensor that are not 0."""

MAX_REGION_BYTES: Final = 1 << 30
"""What one request's inputs may copy out of shared memory; no message limit bounds that."""


class Regions(Protocol):
    """The registered shared memory regions; every method raises InvalidArgumentError for a part that is not there."""

    def check(self, name: str, offset: int, byte_size: int) -> None:
        """Return if the part is within a registered region."""
        ...

    def read(self, name: str, offset: int, byte_size: int) -> Buffer:
        """A copy of a part of a region."""
        ...

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Put `data` into a region."""
        ...


REGION: Final = "shared_memory_region"
REGION_OFFSET: Final = "shared_memory_offset"
REGION_BYTES: Final = "shared_memory_byte_size"

_BY_NAME: Final = {datatype.value: datatype for datatype in DATATYPES}
_CONTENTS: Mapping[DataType, str] = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}


def decode_request(
    message: pb.ModelInferRequest, *, arrival_ns: int, deadline_ns: int | None, regions: Regions
) -> InferenceRequest:
    """Read a request; every tensor's datatype, shape and byte count agree when it returns.

    Raises:
        InvalidArgumentError: they do not, or the message contradicts itself; the message names the tensor.
    """
    raw = message.raw_input_contents
    given = message.inputs
    if len(given) > MAX_TENSORS or len(message.outputs) > MAX_TENSORS:
        raise InvalidArgumentError(f"a request may have {MAX_TENSORS} inputs and as many outputs")
    inputs: list[Tensor] = []
    used = shared_bytes = 0
    for item in given:
        datatype = _BY_NAME.get(item.datatype) or DataType.parse(item.datatype)
        shape = tuple(item.shape)
        data: Buffer
        if item.parameters and REGION in item.parameters:
            name, offset, size = _region_part(_parameters(item.parameters), f"input '{item.name}'")
            shared_bytes += size
            if shared_bytes > MAX_REGION_BYTES:
                raise InvalidArgumentError(f"a request may take {MAX_REGION_BYTES} bytes from shared memory")
            if item.HasField("contents"):
                raise InvalidArgumentError(f"input '{item.name}' has contents beside its shared memory")
            with _naming(f"input '{item.name}'"):
                data = regions.read(name, offset, size)
        elif raw:
            if used >= len(raw):
                raise InvalidArgumentError(
                    f"input '{item.name}' has no entry in raw_input_contents, which holds {len(raw)} entries"
                )
            data = raw[used]
            used += 1
            if item.HasField("contents"):
                raise InvalidArgumentError(f"input '{item.name}' has contents beside raw_input_contents")
        else:
            data = _typed(item, datatype)
        _check_size(item.name, datatype, shape, data)
        inputs.append(Tensor(item.name, datatype, shape, data))
    if used < len(raw):
        raise InvalidArgumentError(f"raw_input_contents holds {len(raw)} entries for {used} inputs")
    request = InferenceRequest(
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        inputs=inputs,
        arrival_ns=arrival_ns,
        deadline_ns=deadline_ns,
    )
    if message.outputs:
        request.outputs = tuple(_requested(item, regions) for item in message.outputs)
    if message.parameters:
        _take_parameters(request, message.parameters)
    return request


def encode_response(
    response: InferenceResponse, outputs: Sequence[RequestedOutput], regions: Regions
) -> pb.ModelInferResponse:
    """Write an answer: one raw entry for each output, empty for one delivered in shared memory.

    Raises:
        InvalidArgumentError: an output does not fit the part of the region it was asked to go to.
    """
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    raw = message.raw_output_contents
    for number, tensor in enumerate(response.outputs):
        entry = message.outputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        wanted = outputs[number] if outputs else None
        if wanted is not None and REGION in wanted.parameters:
            _deliver(tensor, wanted, regions, entry)
            raw.append(b"")
        else:
            raw.append(tensor.data if type(tensor.data) is bytes else bytes(tensor.data))
    for name, value in response.parameters.items():
        _set_parameter(message.parameters[name], value)
    return message


def _check_size(name: str, datatype: DataType, shape: tuple[int, ...], data: Buffer) -> None:
    # First, so that neither the product nor a message about the shape can grow with what came.
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidArgumentError(f"input '{name}' has {len(shape)} axes; a tensor may have {MAX_DIMENSIONS}")
    elements = volume = 1
    for size in shape:
        if not 0 <= size <= MAX_DIMENSION:
            raise InvalidArgumentError(f"input '{name}' has shape {list(shape)}: {size} is not the size of an axis")
        elements *= size
        volume *= size or 1
    if not elements and volume > MAX_EMPTY_VOLUME:
        # Numpy refuses it although there is nothing in it.
        raise InvalidArgumentError(f"input '{name}' has shape {list(shape)}: its axes are too large")
    if datatype is DataType.BYTES:
        try:
            count = count_bytes_elements(data)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"input '{name}': {error.message}") from None
        if count != elements:
            raise InvalidArgumentError(
                f"input '{name}' of shape {list(shape)} needs {elements} strings, and {count} came"
            )
    elif len(data) != elements * datatype.itemsize:
        raise InvalidArgumentError(
            f"input '{name}' of shape {list(shape)} and datatype {datatype.value} needs "
            f"{elements * datatype.itemsize} bytes, and {len(data)} came"
        )


def _typed(item: pb.ModelInferRequest.InferInputTensor, datatype: DataType) -> bytes:
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidArgumentError(f"input '{item.name}': {datatype.value} comes in raw_input_contents only")
    stated = {descriptor.name for descriptor, _ in item.contents.ListFields()}
    if stated - {field}:
        raise InvalidArgumentError(
            f"input '{item.name}' of datatype {datatype.value} takes {field}, and {', '.join(sorted(stated))} came"
        )
    values = getattr(item.contents, field)
    if datatype is DataType.BYTES:
        return pack_bytes_elements(values)
    try:
        return np.array(values, dtype=datatype.numpy).tobytes()
    except OverflowError as error:
        raise InvalidArgumentError(
            f"input '{item.name}': a value is out of {datatype.value}'s range: {error}"
        ) from None


def _requested(item: pb.ModelInferRequest.InferRequestedOutputTensor, regions: Regions) -> RequestedOutput:
    parameters = _parameters(item.parameters)
    count = parameters.get("classification", 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise InvalidArgumentError(f"output '{item.name}': classification takes a number of classes, not {count!r}")
    if REGION in parameters:
        if count:
            raise InvalidArgumentError(f"output '{item.name}': classes are not delivered in shared memory")
        what = f"output '{item.name}'"
        part = _region_part(parameters, what)
        # Told before the model runs for nothing; it is looked up again when the answer is there.
        with _naming(what):
            regions.check(*part)
    return RequestedOutput(item.name, count, parameters)


def _take_parameters(request: InferenceRequest, stated: Mapping[str, pb.InferParameter]) -> None:
    parameters = _parameters(stated)
    request.parameters = parameters
    request.priority = _whole(parameters, "priority")
    request.timeout_us = _whole(parameters, "timeout")


def _whole(parameters: Mapping[str, Parameter], name: str) -> int:
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError(f"parameter '{name}' takes a whole number that is not negative, not {value!r}")
    return value


def _parameters(stated: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for name, value in stated.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgumentError(f"parameter '{name}' has no value")
        parameters[name] = getattr(value, choice)
    return parameters


def _set_parameter(message: pb.InferParameter, value: Parameter) -> None:
    if isinstance(value, bool):
        message.bool_param = value
    elif isinstance(value, int):
        message.int64_param = value
    elif isinstance(value, float):
        message.double_param = value
    else:
        message.string_param = value


def _region_part(parameters: Mapping[str, Any], what: str) -> tuple[str, int, int]:
    """Name, offset and size in bytes of the part of a region that parameters state."""
    name = parameters[REGION]
    offset, size = parameters.get(REGION_OFFSET, 0), parameters.get(REGION_BYTES)
    if not isinstance(name, str) or type(offset) is not int or type(size) is not int:
        raise InvalidArgumentError(f"{what}: {REGION} takes a name, {REGION_BYTES} and {REGION_OFFSET} whole numbers")
    return name, offset, size


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{what}: {error.message}") from None


def _deliver(
    tensor: Tensor, wanted: RequestedOutput, regions: Regions, entry: pb.ModelInferResponse.InferOutputTensor
) -> None:
    what = f"output '{tensor.name}'"
    name, offset, room = _region_part(wanted.parameters, what)
    size = len(tensor.data)
    if size > room:
        raise InvalidArgumentError(f"{what} has {size} bytes, and its part of the shared memory region has {room}")
    with _naming(what):
        regions.write(name, offset, tensor.data)
    _set_parameter(entry.parameters[REGION], name)
    _set_parameter(entry.parameters[REGION_BYTES], size)
    if offset:
        _set_parameter(entry.parameters[REGION_OFFSET], offset)
