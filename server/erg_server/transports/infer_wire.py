"""ModelInfer's messages between bytes and the server's own requests, without protobuf where the form is known.

Callers send the same message again and again: the same model, tensors, datatypes and shapes around other bytes. What
such messages have in common is read by protobuf and checked once; after that a message of the same form costs a few
comparisons, and its tensors are parts of the bytes that came. Soundness: a serialized message is a sequence of whole
fields (https://protobuf.dev/programming-guides/encoding/). A form is kept only if the bytes before its tensors parse
alone as a message without tensors, so bytes that start with them are at a field's beginning after them; what follows
is compared with the tag and length of each raw tensor. Everything else is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from erg_server.tensor import Buffer, Tensor
from erg_server.transports.base import CallContext
from erg_server.transports.codec import REGION, Regions, decode_request, encode_response

MAX_FORMS: Final = 4096
"""Of each kind. Shapes and names come from callers, so a full table starts again."""

_NAME, _VERSION, _ID, _RAW_INPUT, _RAW_OUTPUT = 0x0A, 0x12, 0x1A, b"\x3a", b"\x32"
"""Tags of the fields of ModelInferRequest and ModelInferResponse that are read and written here."""

_RAW_OUTPUT_SIZES: Final = [_RAW_OUTPUT + bytes((size,)) for size in range(128)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestForm:
    """What messages of one form have in common. `tensors` are tag and length, name, datatype, shape, bytes."""

    rest: bytes
    """The fields between the id and the tensors."""
    model_name: str
    model_version: str
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, Parameter]
    priority: int
    timeout_us: int
    tensors: tuple[tuple[bytes, str, DataType, tuple[int, ...], int], ...]


class RequestReader:
    """Reads requests. Owns the forms it has seen."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        # By the bytes before the id and the number of bytes after it.
        self._forms: dict[tuple[bytes, int], RequestForm] = {}

    def read(self, raw: bytes | memoryview, context: CallContext) -> InferenceRequest:
        """Read one message; its tensors may be views of `raw`.

        Raises:
            InvalidArgumentError: the bytes are no ModelInferRequest, or it contradicts itself.
        """
        before, after = _id_bounds(raw)
        form = self._forms.get((bytes(raw[:before]), len(raw) - after)) if before else None
        if form is not None:
            inputs = _tensors(raw, after, form)
            if inputs is not None:
                try:
                    number = str(raw[before + 2 : after], "utf-8") if after > before else ""
                except UnicodeDecodeError:
                    raise InvalidArgumentError("the request's id is not UTF-8") from None
                return InferenceRequest(
                    model_name=form.model_name,
                    model_version=form.model_version,
                    id=number,
                    inputs=inputs,
                    outputs=form.outputs,
                    parameters=form.parameters,
                    priority=form.priority,
                    timeout_us=form.timeout_us,
                    arrival_ns=context.arrival_ns,
                    deadline_ns=context.deadline_ns,
                    form=form,
                )
        return self._read_slowly(raw, before, after, context)

    def _read_slowly(self, raw: bytes | memoryview, before: int, after: int, context: CallContext) -> InferenceRequest:
        try:
            message = pb.ModelInferRequest.FromString(raw)  # type: ignore[arg-type]  # it takes any buffer
        except DecodeError:
            raise InvalidArgumentError("the message is not a valid inference.ModelInferRequest") from None
        request = decode_request(
            message, arrival_ns=context.arrival_ns, deadline_ns=context.deadline_ns, regions=self._regions
        )
        if before:
            self._learn(raw, before, after, message, request)
        return request

    def _learn(
        self,
        raw: bytes | memoryview,
        before: int,
        after: int,
        message: pb.ModelInferRequest,
        request: InferenceRequest,
    ) -> None:
        """Keep the message's form, if it has one that tells all but its tensors' bytes."""
        inputs = request.inputs
        if len(message.raw_input_contents) != len(inputs) or _uses_regions(message):
            return
        if any(tensor.datatype is DataType.BYTES for tensor in inputs):
            return  # Whether strings fit their shape depends on their bytes.
        tensors = tuple(
            (_RAW_INPUT + varint(len(tensor.data)), tensor.name, tensor.datatype, tensor.shape, len(tensor.data))
            for tensor in inputs
        )
        start = len(raw) - sum(len(prefix) + size for prefix, *_, size in tensors)
        if start < after or not _stands_alone(bytes(raw[after:start])):
            return
        if len(self._forms) >= MAX_FORMS:
            self._forms.clear()
        form = RequestForm(
            rest=bytes(raw[after:start]),
            model_name=request.model_name,
            model_version=request.model_version,
            outputs=request.outputs,
            parameters=request.parameters,
            priority=request.priority,
            timeout_us=request.timeout_us,
            tensors=tensors,
        )
        if _tensors(raw, after, form) is not None:
            self._forms[bytes(raw[:before]), len(raw) - after] = form
            request.form = form


class ResponseWriter:
    """Writes answers. Owns the heads of those it has written."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._heads: dict[tuple[object, ...], bytes] = {}

    def write(self, response: InferenceResponse, asked: Sequence[RequestedOutput]) -> list[bytes | memoryview]:
        """The message in parts that follow each other; a tensor's bytes are a part of their own.

        Raises:
            InvalidArgumentError: an output does not fit the part of the region it was asked to go to.
        """
        if response.parameters or (asked and any(REGION in output.parameters for output in asked)):
            return [encode_response(response, asked, self._regions).SerializeToString()]
        outputs = response.outputs
        key: tuple[object, ...] = response.model_name, response.model_version
        for tensor in outputs:
            key += tensor.name, tensor.datatype.wire_id, tensor.shape
        head = self._heads.get(key)
        if head is None:
            head = self._keep_head(key, response)
        parts: list[bytes | memoryview] = [head]
        if response.id:
            number = response.id.encode()
            parts.append(b"\x1a" + varint(len(number)) + number)
        for tensor in outputs:
            data: Buffer = tensor.data
            size = len(data)
            parts.append(_RAW_OUTPUT_SIZES[size] if size < 128 else _RAW_OUTPUT + varint(size))
            parts.append(data if type(data) is bytes else memoryview(data))
        return parts

    def _keep_head(self, key: tuple[object, ...], response: InferenceResponse) -> bytes:
        message = pb.ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
        for tensor in response.outputs:
            message.outputs.add(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape)
        if len(self._heads) >= MAX_FORMS:
            self._heads.clear()
        head = self._heads[key] = message.SerializeToString()
        return head


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _id_bounds(raw: bytes | memoryview) -> tuple[int, int]:
    """Where the id field begins and ends in a message that states name, version and id first and short, else (0, 0)."""
    size = len(raw)
    if size < 2 or raw[0] != _NAME or raw[1] >= 128:
        return 0, 0
    before = 2 + raw[1]
    if before + 1 < size and raw[before] == _VERSION and raw[before + 1] < 128:
        before += 2 + raw[before + 1]
    after = before
    if before + 1 < size and raw[before] == _ID and raw[before + 1] < 128:
        after += 2 + raw[before + 1]
    return (before, after) if after < size else (0, 0)


def _tensors(raw: bytes | memoryview, at: int, form: RequestForm) -> list[Tensor] | None:
    """The tensors of a message of this form, None if it has another. Its size is known to be the form's."""
    start = at + len(form.rest)
    if raw[at:start] != form.rest:
        return None
    at = start
    tensors: list[Tensor] = []
    for prefix, name, datatype, shape, size in form.tensors:
        start = at + len(prefix)
        if raw[at:start] != prefix:
            return None
        at = start + size
        tensors.append(Tensor(name, datatype, shape, raw[start:at]))
    return tensors


def _stands_alone(rest: bytes) -> bool:
    """Whether the fields between id and tensors are whole, and none of them is name, version, id or a tensor."""
    try:
        message = pb.ModelInferRequest.FromString(rest)
    except DecodeError:
        return False
    return not (message.model_name or message.model_version or message.id or message.raw_input_contents)


def _uses_regions(message: pb.ModelInferRequest) -> bool:
    return any(REGION in tensor.parameters for tensor in message.inputs) or any(
        REGION in output.parameters for output in message.outputs
    )
