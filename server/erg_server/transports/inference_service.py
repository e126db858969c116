"""The methods of inference.GRPCInferenceService: each reads its message, asks the data plane, writes the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.shared_memory import cuda_unimplemented
from erg_server.errors import ErgError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceResponse
from erg_server.transports.base import CallContext, Done, Method, StartHandler, UnaryHandler
from erg_server.transports.codec import decode_request, encode_response
from erg_server.transports.cost_trailers import cost_trailers
from erg_server.transports.infer_stream import A, BytesCodec, InferStream, M, MessageCodec, StreamCodec
from erg_server.transports.infer_wire import RequestReader, ResponseWriter
from erg_server.transports.tenants import Tenants

log = logging.getLogger(__name__)

SERVICE: Final = "inference.GRPCInferenceService"


class InferenceService:
    """Binds messages to the data plane."""

    def __init__(self, plane: DataPlane, *, draining: asyncio.Event, tenants: Tenants | None = None) -> None:
        self._plane = plane
        self._tenants = tenants
        self._draining = draining
        self._reader = RequestReader(plane.memory)
        self._writer = ResponseWriter(plane.memory)

    def methods(self) -> list[Method]:
        """Every method, in the order of the protocol."""
        plane, memory = self._plane, self._plane.memory

        def cuda(_: object) -> Message:
            raise cuda_unimplemented()

        plain: tuple[tuple[str, Callable[[Any], Message]], ...] = (
            ("ServerLive", lambda _: pb.ServerLiveResponse(live=plane.live())),
            ("ServerReady", lambda _: pb.ServerReadyResponse(ready=plane.ready())),
            ("ModelReady", lambda m: pb.ModelReadyResponse(ready=plane.model_ready(m.name, m.version))),
            ("ServerMetadata", lambda _: plane.server_metadata()),
            ("ModelMetadata", lambda m: plane.model_metadata(m.name, m.version)),
            ("ModelConfig", lambda m: plane.model_config(m.name, m.version)),
            ("ModelStatistics", lambda m: plane.model_statistics(m.name, m.version)),
            ("RepositoryIndex", lambda m: plane.repository_index(m.repository_name, m.ready)),
            ("SystemSharedMemoryStatus", lambda m: memory.status(m.name)),
            ("SystemSharedMemoryRegister", self._register),
            ("SystemSharedMemoryUnregister", self._unregister),
            ("CudaSharedMemoryStatus", lambda _: pb.CudaSharedMemoryStatusResponse()),
            ("CudaSharedMemoryRegister", cuda),
            # perf_analyzer unregisters everything of both kinds before it starts, GPU or not.
            ("CudaSharedMemoryUnregister", lambda _: pb.CudaSharedMemoryUnregisterResponse()),
            ("TraceSetting", plane.trace_settings),
            ("LogSettings", plane.log_settings),
        )
        methods = [_method(name, _unary(answer)) for name, answer in plain]
        methods += [
            _method("ModelInfer", self.infer, start=self.start_infer),
            _method("RepositoryModelLoad", self._load),
            _method("RepositoryModelUnload", self._unload),
        ]
        stream = Method(
            path=f"/{SERVICE}/ModelStreamInfer",
            request=pb.ModelInferRequest,
            response=pb.ModelStreamInferResponse,
            stream=self.stream_infer,
            stream_bytes=self.stream_infer_bytes,
            client_streaming=True,
        )
        return [*methods, stream]

    async def infer(self, message: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        """Answer one request."""
        request = decode_request(
            message, arrival_ns=context.arrival_ns, deadline_ns=context.deadline_ns, regions=self._plane.memory
        )
        if self._tenants is not None:
            request.tenant = self._tenants.of(context.metadata)
        response = await self._plane.infer(request)
        if response.parameters:
            context.trailers = cost_trailers(response.parameters)
        return encode_response(response, request.outputs, self._plane.memory)

    def start_infer(self, raw: bytes | memoryview, context: CallContext, done: Done) -> Callable[[], None]:
        """Start one request; see `transports.base.StartHandler`."""
        request = self._reader.read(raw, context)
        if self._tenants is not None:
            request.tenant = self._tenants.of(context.metadata)
        writer = self._writer

        def finished(answer: InferenceResponse | ErgError) -> None:
            if isinstance(answer, ErgError):
                done(None, answer)
                return
            try:
                if answer.parameters:
                    context.trailers = cost_trailers(answer.parameters)
                parts = writer.write(answer, request.outputs)
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
                done(None, error)
            else:
                done(parts, None)

        return self._plane.submit(request, finished)

    def stream_infer(
        self, messages: AsyncIterator[pb.ModelInferRequest], context: CallContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answer each request of a stream as it is done."""
        codec = MessageCodec(self._plane.memory)
        return self._stream(codec, context).answer(messages, context)

    def stream_infer_bytes(
        self, messages: AsyncIterator[bytes | memoryview], context: CallContext
    ) -> AsyncIterator[Sequence[bytes | memoryview]]:
        """The same for transports that hand over bytes."""
        codec = BytesCodec(self._reader, self._writer)
        return self._stream(codec, context).answer(messages, context)

    def _stream(self, codec: StreamCodec[M, A], context: CallContext) -> InferStream[M, A]:
        tenant = "" if self._tenants is None else self._tenants.of(context.metadata)
        return InferStream(self._plane, codec, draining=self._draining, tenant=tenant)

    async def _load(self, message: pb.RepositoryModelLoadRequest, _: CallContext) -> pb.RepositoryModelLoadResponse:
        await self._plane.load_model(message)
        return pb.RepositoryModelLoadResponse()

    async def _unload(
        self, message: pb.RepositoryModelUnloadRequest, _: CallContext
    ) -> pb.RepositoryModelUnloadResponse:
        await self._plane.unload_model(message.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _register(self, message: pb.SystemSharedMemoryRegisterRequest) -> pb.SystemSharedMemoryRegisterResponse:
        self._plane.memory.register(message.name, message.key, message.offset, message.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def _unregister(self, message: pb.SystemSharedMemoryUnregisterRequest) -> pb.SystemSharedMemoryUnregisterResponse:
        self._plane.memory.unregister(message.name)
        return pb.SystemSharedMemoryUnregisterResponse()


def _method(name: str, unary: UnaryHandler, *, start: StartHandler | None = None) -> Method:
    return Method(
        path=f"/{SERVICE}/{name}",
        request=getattr(pb, f"{name}Request"),
        response=getattr(pb, f"{name}Response"),
        unary=unary,
        start=start,
    )


def _unary(answer: Callable[[Any], Message]) -> UnaryHandler:
    async def handler(message: Any, _: CallContext) -> Message:
        return answer(message)

    return handler
