"""Request parameters, requested outputs and shared memory through the codec."""

from __future__ import annotations

import pytest
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceResponse, RequestedOutput
from erg_server.tensor import Tensor
from erg_server.transports import codec
from erg_server.transports.codec import encode_response

from tests.server.transports.builders import FakeRegions, add_input, decode, infer_message, set_parameters


def with_region(name: str = "r", **values: bool | float | str) -> pb.ModelInferRequest:
    message = infer_message()
    add_input(message, "x", "INT32", [2])
    set_parameters(message.inputs[0].parameters, **{"shared_memory_region": name} | values)
    return message


def asking(**values: bool | float | str) -> pb.ModelInferRequest:
    message = infer_message()
    set_parameters(message.outputs.add(name="y").parameters, **values)
    return message


def test_id_version_priority_timeout_and_times_are_taken_over() -> None:
    message = infer_message(model_version="3", id="abc")
    message.parameters["priority"].uint64_param = 2
    message.parameters["timeout"].int64_param = 1500
    set_parameters(message.parameters, own="text", flag=True)
    request = codec.decode_request(message, arrival_ns=5, deadline_ns=9, regions=FakeRegions())
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "abc")
    assert (request.priority, request.timeout_us, request.arrival_ns, request.deadline_ns) == (2, 1500, 5, 9)
    assert request.parameters == {"priority": 2, "timeout": 1500, "own": "text", "flag": True}


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", ["1", 1.0, True, -1])
def test_priority_and_timeout_take_whole_numbers_only(name: str, value: bool | float | str) -> None:
    message = infer_message()
    set_parameters(message.parameters, **{name: value})
    with pytest.raises(InvalidArgumentError, match=f"parameter '{name}' takes a whole number"):
        decode(message)


def test_a_parameter_without_a_value_is_refused() -> None:
    message = infer_message()
    message.parameters["priority"].SetInParent()
    with pytest.raises(InvalidArgumentError, match="parameter 'priority' has no value"):
        decode(message)


@pytest.mark.parametrize("value", ["3", 2.0, True, -1])
def test_classification_takes_a_number_of_classes(value: bool | float | str) -> None:
    with pytest.raises(InvalidArgumentError, match="output 'y': classification takes a number"):
        decode(asking(classification=value))


def test_requested_outputs_keep_their_order_and_their_classes() -> None:
    message = asking(classification=3)
    message.outputs.add(name="z")
    # Whether an output may be asked for twice is the signature's to say.
    message.outputs.add(name="z")
    outputs = decode(message).outputs
    assert [(output.name, output.classification) for output in outputs] == [("y", 3), ("z", 0), ("z", 0)]


def test_an_input_in_shared_memory_takes_no_raw_entry() -> None:
    message = with_region(shared_memory_byte_size=8, shared_memory_offset=4)
    add_input(message, "raw", "UINT8", [3])
    message.raw_input_contents.append(b"abc")
    regions = FakeRegions(r=bytearray(range(16)))
    request = decode(message, regions)
    assert [bytes(tensor.data) for tensor in request.inputs] == [bytes(range(4, 12)), b"abc"]
    regions.regions["r"][:] = bytes(16)
    assert bytes(request.inputs[0].data) == bytes(range(4, 12)), "a checked tensor must not change any more"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "takes a name, shared_memory_byte_size"),
        ({"shared_memory_byte_size": "8"}, "whole numbers"),
        ({"shared_memory_byte_size": True}, "whole numbers"),
        ({"shared_memory_byte_size": 8, "shared_memory_offset": 1.0}, "whole numbers"),
        ({"shared_memory_byte_size": 7}, "needs 8 bytes, and 7 came"),
        ({"shared_memory_byte_size": 32}, "no bytes 0 to 32"),
        ({"shared_memory_byte_size": 8, "shared_memory_offset": -8}, "no bytes -8 to 0"),
        ({"shared_memory_byte_size": -8}, "no bytes 0 to -8"),
        ({"shared_memory_byte_size": 8, "shared_memory_offset": (1 << 63) - 1}, "no bytes"),
        ({"shared_memory_byte_size": 8, "name": "other"}, "'other'"),
    ],
)
def test_a_wrong_part_of_a_region_names_the_input(values: dict[str, bool | int | float | str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"input 'x'.*{message}"):
        decode(with_region(**values), FakeRegions(r=bytearray(16)))  # type: ignore[arg-type]


def test_a_region_is_named_by_a_string() -> None:
    message = with_region(shared_memory_byte_size=8)
    message.inputs[0].parameters["shared_memory_region"].int64_param = 1
    with pytest.raises(InvalidArgumentError, match="takes a name"):
        decode(message)


def test_shared_memory_and_contents_do_not_mix() -> None:
    message = with_region(shared_memory_byte_size=8)
    message.inputs[0].contents.int_contents.extend([1, 2])
    with pytest.raises(InvalidArgumentError, match="'x' has contents beside its shared memory"):
        decode(message, FakeRegions(r=bytearray(16)))


@pytest.mark.interpreted
def test_a_request_cannot_have_more_copied_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_REGION_BYTES", 15)
    message = with_region(shared_memory_byte_size=8)
    message.inputs.add().CopyFrom(message.inputs[0])
    with pytest.raises(InvalidArgumentError, match="15 bytes from shared memory"):
        decode(message, FakeRegions(r=bytearray(16)))


def test_an_output_goes_to_its_region_and_leaves_an_empty_raw_entry() -> None:
    regions = FakeRegions(r=bytearray(8))
    message = asking(shared_memory_region="r", shared_memory_byte_size=6, shared_memory_offset=2)
    outputs = (*decode(message, regions).outputs, RequestedOutput("z"))
    tensors = [Tensor("y", DataType.UINT8, (3,), b"abc"), Tensor("z", DataType.UINT8, (1,), memoryview(b"d"))]
    answer = encode_response(
        InferenceResponse(model_name="m", model_version="1", id="", outputs=tensors), outputs, regions
    )
    assert bytes(regions.regions["r"]) == b"\0\0abc\0\0\0"
    assert list(answer.raw_output_contents) == [b"", b"d"]
    parameters = answer.outputs[0].parameters
    assert parameters["shared_memory_region"].string_param == "r"
    assert parameters["shared_memory_byte_size"].int64_param == 3
    assert parameters["shared_memory_offset"].int64_param == 2


def test_an_output_larger_than_its_part_is_refused() -> None:
    regions = FakeRegions(r=bytearray(8))
    outputs = decode(asking(shared_memory_region="r", shared_memory_byte_size=2), regions).outputs
    tensor = Tensor("y", DataType.UINT8, (3,), b"abc")
    response = InferenceResponse(model_name="m", model_version="1", id="", outputs=[tensor])
    with pytest.raises(InvalidArgumentError, match=r"output 'y' has 3 bytes, and its part .* has 2"):
        encode_response(response, outputs, regions)
    assert not any(regions.regions["r"])


def test_an_output_for_a_region_that_is_not_there_is_refused_before_the_model_runs() -> None:
    with pytest.raises(InvalidArgumentError, match=r"output 'y'.*'gone'"):
        decode(asking(shared_memory_region="gone", shared_memory_byte_size=2))


def test_classes_are_not_delivered_in_shared_memory() -> None:
    with pytest.raises(InvalidArgumentError, match="output 'y': classes"):
        decode(asking(classification=1, shared_memory_region="r", shared_memory_byte_size=2))
