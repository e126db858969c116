"""A client without .proto files finds out what there is, and calls it: by raw reflection, and by grpcurl itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import grpc
import pytest
from erg_server.pb import reflection_pb2, reflection_v1alpha_pb2
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from tests.conformance.grpcurl import grpcurl
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.e2e

INFERENCE = "inference.GRPCInferenceService"
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    INFERENCE,
]
Request = reflection_pb2.ServerReflectionRequest
Response = reflection_pb2.ServerReflectionResponse
Ask = Callable[..., list[Response]]


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield channel


@pytest.fixture(params=[("v1", reflection_pb2), ("v1alpha", reflection_v1alpha_pb2)], ids=["v1", "v1alpha"])
def ask(request: pytest.FixtureRequest, channel: grpc.Channel) -> Ask:
    """Put questions on one stream; the two versions are the same on the wire."""
    version, module = request.param
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=module.ServerReflectionResponse.FromString,
    )

    def put(*questions: Request) -> list[Response]:
        return [Response.FromString(answer.SerializeToString()) for answer in method(iter(questions), timeout=30)]

    return put


def files(answer: Response) -> list[descriptor_pb2.FileDescriptorProto]:
    return [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answer.file_descriptor_response.file_descriptor_proto
    ]


def test_the_services_are_listed(ask: Ask) -> None:
    (answer,) = ask(Request(list_services="*", host="h"))
    assert [service.name for service in answer.list_services_response.service] == SERVICES
    assert (answer.valid_host, answer.original_request.list_services) == ("h", "*")


@pytest.mark.parametrize(
    "symbol",
    [INFERENCE, f"{INFERENCE}.ModelInfer", "inference.ModelInferRequest.InferInputTensor", "grpc.health.v1.Health"],
)
def test_a_symbol_comes_with_its_file_and_everything_that_it_imports(ask: Ask, symbol: str) -> None:
    (answer,) = ask(Request(file_containing_symbol=symbol))
    found = files(answer)
    names = {file.name for file in found}
    assert all(set(file.dependency) <= names for file in found)
    assert symbol.startswith(found[0].package)
    (again,) = ask(Request(file_by_filename=found[0].name))
    assert files(again) == found


@pytest.mark.parametrize(
    "question",
    [
        Request(file_by_filename="gone.proto"),
        Request(file_by_filename="../../etc/passwd"),
        Request(file_containing_symbol="inference.Gone"),
        Request(file_containing_symbol=""),
        Request(all_extension_numbers_of_type="inference.Gone"),
        Request(
            file_containing_extension=reflection_pb2.ExtensionRequest(
                containing_type="inference.ModelInferRequest", extension_number=1
            )
        ),
    ],
)
def test_what_is_not_there_is_an_error_in_the_answer_and_the_stream_goes_on(ask: Ask, question: Request) -> None:
    wrong, right = ask(question, Request(list_services=""))
    assert wrong.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert wrong.error_response.error_message
    assert wrong.original_request == question
    assert len(right.list_services_response.service) == len(SERVICES)


def test_a_question_that_asks_nothing_is_an_invalid_argument(ask: Ask) -> None:
    (answer,) = ask(Request())
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_messages_have_no_extensions(ask: Ask) -> None:
    (answer,) = ask(Request(all_extension_numbers_of_type="inference.ModelInferRequest"))
    assert answer.all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert not answer.all_extension_numbers_response.extension_number


def test_a_client_that_knows_nothing_else_can_infer(ask: Ask, channel: grpc.Channel) -> None:
    (answer,) = ask(Request(file_containing_symbol=INFERENCE))
    pool = DescriptorPool()
    for file in reversed(files(answer)):
        pool.Add(file)
    method = pool.FindServiceByName(INFERENCE).methods_by_name["ModelInfer"]
    request = GetMessageClass(method.input_type)()
    tensor = {"name": "INPUT0", "datatype": "INT64", "shape": [1, 2], "contents": {"int64_contents": [7, -8]}}
    json_format.ParseDict({"model_name": "identity_int64", "inputs": [tensor]}, request)
    call = channel.unary_unary(
        f"/{INFERENCE}/ModelInfer",
        request_serializer=request.__class__.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    response = call(request, timeout=30)
    assert response.raw_output_contents[0] == (7).to_bytes(8, "little") + (-8).to_bytes(8, "little", signed=True)


def test_grpcurl_lists_describes_and_calls(server: ServerProcess) -> None:
    def run(*arguments: str) -> str:
        status, printed, complaint = grpcurl("-plaintext", *arguments)
        assert status == 0, complaint
        return printed

    assert run(server.grpc_address, "list").split() == SERVICES
    assert "rpc ModelInfer " in run(server.grpc_address, "describe", INFERENCE)
    ready = run("-d", '{"name": "mlp"}', server.grpc_address, f"{INFERENCE}/ModelReady")
    assert json.loads(ready) == {"ready": True}
