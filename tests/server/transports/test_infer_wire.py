"""The short way through ModelInfer's bytes says what protobuf says, whatever comes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from erg_server.datatype import DataType
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse, RequestedOutput
from erg_server.tensor import Tensor
from erg_server.transports.base import CallContext
from erg_server.transports.codec import decode_request, encode_response
from erg_server.transports.infer_wire import RequestReader, ResponseWriter
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.server.transports.builders import FakeRegions, add_input, infer_message

CONTEXT = CallContext(arrival_ns=5, deadline_ns=9)
KINDS = st.sampled_from([kind for kind in DataType if kind is not DataType.BYTES])


@st.composite
def messages(draw: st.DrawFn) -> pb.ModelInferRequest:
    """Messages of few forms, so that many are read the short way."""
    message = pb.ModelInferRequest(
        model_name=draw(st.sampled_from(["m", "much_longer_name", "", "n" * 130])),
        model_version=draw(st.sampled_from(["", "1"])),
        id=draw(st.sampled_from(["", "a", "\u00e9t\u00e9", "x" * 127, "x" * 128])),
    )
    for number in range(draw(st.integers(0, 2))):
        kind = draw(KINDS)
        shape = draw(st.sampled_from([[1], [2, 2], [0], [40, 4]]))
        add_input(message, f"x{number}", kind.value, shape)
        size = int(np.prod(shape)) * kind.itemsize
        message.raw_input_contents.append(bytes(draw(st.integers(0, 255)) for _ in range(1)) * size)
    if draw(st.booleans()):
        message.parameters["priority"].int64_param = draw(st.integers(0, 2))
    if draw(st.booleans()):
        message.outputs.add(name="y").parameters["classification"].int64_param = 2
    return message


def plain(raw: bytes) -> InferenceRequest:
    return decode_request(pb.ModelInferRequest.FromString(raw), arrival_ns=5, deadline_ns=9, regions=FakeRegions())


def comparable(request: InferenceRequest) -> InferenceRequest:
    tensors = [Tensor(item.name, item.datatype, item.shape, bytes(item.data)) for item in request.inputs]
    return replace(request, inputs=tensors, form=None)


@given(st.lists(messages(), min_size=1, max_size=6), st.booleans())
def test_messages_read_as_protobuf_reads_them_the_first_time_and_every_later_one(
    sent: list[pb.ModelInferRequest], as_view: bool
) -> None:
    reader = RequestReader(FakeRegions())
    for message in [*sent, *sent]:
        raw = message.SerializeToString()
        request = reader.read(memoryview(raw) if as_view else raw, CONTEXT)
        assert comparable(request) == plain(raw)


@pytest.mark.interpreted
def test_the_second_message_of_a_form_is_read_without_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = RequestReader(FakeRegions())
    message = infer_message(b"\1" * 8)
    add_input(message, "x", "FP32", [1, 2])
    first = reader.read(message.SerializeToString(), CONTEXT)
    message.raw_input_contents[0] = b"\2" * 8
    message.id = "another"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("protobuf was asked")

    monkeypatch.setattr("erg_server.transports.infer_wire.decode_request", refuse)
    second = reader.read(message.SerializeToString(), CONTEXT)
    assert (second.id, bytes(second.inputs[0].data)) == ("another", b"\2" * 8)
    assert second.form is not None
    assert second.form is first.form


@given(messages(), st.data())
def test_damaged_messages_end_as_protobuf_ends_them(message: pb.ModelInferRequest, data: st.DataObject) -> None:
    raw = bytearray(message.SerializeToString())
    reader = RequestReader(FakeRegions())
    reader.read(bytes(raw), CONTEXT)  # the form is known, the damaged one is close to it
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(raw)
    try:
        expected: InferenceRequest | None = plain(damaged)
    except (ErgError, DecodeError):
        expected = None
    if expected is None:
        with pytest.raises(ErgError):
            reader.read(damaged, CONTEXT)
    else:
        assert comparable(reader.read(damaged, CONTEXT)) == expected


@given(st.binary(max_size=64))
def test_any_bytes_are_a_request_or_a_typed_error(raw: bytes) -> None:
    reader = RequestReader(FakeRegions())
    try:
        reader.read(raw, CONTEXT)
    except ErgError:
        return


def test_a_field_that_swallows_what_looks_like_a_tensor_keeps_no_form() -> None:
    honest = infer_message(b"\1" * 8)
    add_input(honest, "x", "FP32", [1, 2])
    raw = honest.SerializeToString()
    tail = raw[-10:]
    # The tensor first, then an unknown field (15, bytes) whose content is a copy of the tensor's bytes.
    crafted = raw[:-10] + tail + b"\x7a" + bytes((len(tail),)) + tail
    reader = RequestReader(FakeRegions())
    assert reader.read(crafted, CONTEXT).form is None


def test_strings_and_shared_memory_are_left_to_protobuf() -> None:
    reader = RequestReader(FakeRegions())
    strings = infer_message(b"\1\0\0\0a")
    add_input(strings, "x", "BYTES", [1])
    assert reader.read(strings.SerializeToString(), CONTEXT).form is None


def test_a_request_without_a_raw_tensor_for_each_input_is_refused() -> None:
    reader = RequestReader(FakeRegions())
    message = infer_message(b"\1" * 8)
    add_input(message, "x", "FP32", [1, 2])
    reader.read(message.SerializeToString(), CONTEXT)
    del message.raw_input_contents[:]
    with pytest.raises(InvalidArgumentError):
        reader.read(message.SerializeToString(), CONTEXT)


@st.composite
def answers(draw: st.DrawFn) -> InferenceResponse:
    outputs = []
    for number in range(draw(st.integers(0, 2))):
        kind = draw(KINDS)
        shape = draw(st.sampled_from([(1,), (0, 3), (2, 100)]))
        outputs.append(Tensor(f"y{number}", kind, shape, bytes(int(np.prod(shape)) * kind.itemsize)))
    return InferenceResponse(
        model_name=draw(st.sampled_from(["m", "n"])),
        model_version="1",
        id=draw(st.sampled_from(["", "a", "x" * 200])),
        outputs=outputs,
    )


@given(st.lists(answers(), min_size=1, max_size=5))
def test_answers_are_written_as_protobuf_writes_them(sent: list[InferenceResponse]) -> None:
    writer = ResponseWriter(FakeRegions())
    for response in [*sent, *sent]:
        written = pb.ModelInferResponse.FromString(b"".join(writer.write(response, ())))
        assert written == encode_response(response, (), FakeRegions())


def test_an_answer_with_parameters_carries_them() -> None:
    response = InferenceResponse(model_name="m", model_version="1", id="", outputs=[], parameters={"a": 1})
    parts = ResponseWriter(FakeRegions()).write(response, (RequestedOutput("y"),))
    assert pb.ModelInferResponse.FromString(b"".join(parts)).parameters["a"].int64_param == 1
