"""gRPC server reflection, v1 and v1alpha, so that grpcurl and the like need no .proto files."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from types import ModuleType

from google.protobuf.descriptor import FileDescriptor

from erg_server.errors import StatusCode
from erg_server.pb import reflection_pb2, reflection_v1alpha_pb2
from erg_server.pb.pool import POOL
from erg_server.transports.base import CallContext, Method

VERSIONS: tuple[tuple[str, ModuleType], ...] = (
    ("grpc.reflection.v1.ServerReflection", reflection_pb2),
    ("grpc.reflection.v1alpha.ServerReflection", reflection_v1alpha_pb2),
)


class ReflectionService:
    """Answers from the descriptor pool. The two versions differ in their package only."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = sorted({*services, *(name for name, _ in VERSIONS)})

    def methods(self) -> list[Method]:
        """One stream a version."""
        return [self._method(name, module) for name, module in VERSIONS]

    def _method(self, name: str, module: ModuleType) -> Method:
        async def info(
            messages: AsyncIterator[reflection_pb2.ServerReflectionRequest], _: CallContext
        ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
            async for message in messages:
                # The wire format of both versions is the same, so one implementation serves them.
                answer = self._answer(reflection_pb2.ServerReflectionRequest.FromString(message.SerializeToString()))
                yield module.ServerReflectionResponse.FromString(answer.SerializeToString())

        return Method(
            path=f"/{name}/ServerReflectionInfo",
            request=module.ServerReflectionRequest,
            response=module.ServerReflectionResponse,
            stream=info,
            client_streaming=True,
        )

    def _answer(self, message: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        answer = reflection_pb2.ServerReflectionResponse(valid_host=message.host, original_request=message)
        asked = message.WhichOneof("message_request")
        try:
            if asked == "list_services":
                answer.list_services_response.service.extend(
                    reflection_pb2.ServiceResponse(name=name) for name in self._services
                )
            elif asked == "file_by_filename":
                _add_files(answer, POOL.FindFileByName(message.file_by_filename))
            elif asked == "file_containing_symbol":
                _add_files(answer, _file_of(message.file_containing_symbol))
            elif asked == "all_extension_numbers_of_type":
                POOL.FindMessageTypeByName(message.all_extension_numbers_of_type)
                answer.all_extension_numbers_response.base_type_name = message.all_extension_numbers_of_type
            elif asked == "file_containing_extension":
                _refuse(answer, StatusCode.NOT_FOUND, "there are no extensions")
            else:
                _refuse(answer, StatusCode.INVALID_ARGUMENT, "the request asks nothing")
        except KeyError as error:
            _refuse(answer, StatusCode.NOT_FOUND, str(error.args[0]))
        return answer


def _file_of(symbol: str) -> FileDescriptor:
    """The file that declares `symbol`; raises KeyError where none does. The pool knows services, not their methods."""
    try:
        return POOL.FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        with contextlib.suppress(KeyError):
            found = POOL.FindServiceByName(service)
            if method in found.methods_by_name:
                return found.file
        raise


def _refuse(answer: reflection_pb2.ServerReflectionResponse, code: StatusCode, message: str) -> None:
    answer.error_response.error_code = code
    answer.error_response.error_message = message


def _add_files(answer: reflection_pb2.ServerReflectionResponse, file: FileDescriptor) -> None:
    """The file and everything it imports, so that one question is enough."""
    seen: dict[str, bytes] = {}

    def visit(item: FileDescriptor) -> None:
        if item.name not in seen:
            seen[item.name] = item.serialized_pb
            for dependency in item.dependencies:
                visit(dependency)

    visit(file)
    answer.file_descriptor_response.file_descriptor_proto.extend(seen.values())
