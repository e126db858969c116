"""The methods of inference.GRPCInferenceService: each reads its message, asks the data plane, writes the answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.shared_memory import cuda_unimplemented
from erg_server.errors import ErgError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceResponse
from erg_server.transports.base import CallContext, Done, Method, StartHandler, UnaryHandler
from erg_server.transports.codec import decode_request, encode_response
from erg_server.transports.infer_wire import RequestReader, ResponseWriter

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
MAX_STREAM_REQUESTS = 256
"""Requests of one stream that may be unanswered; a client that sends more waits for answers first."""
EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"


class InferenceService:
    """Binds messages to the data plane."""

    def __init__(self, plane: DataPlane, *, draining: asyncio.Event) -> None:
        self._plane = plane
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
            client_streaming=True,
        )
        return [*methods, stream]

    async def infer(self, message: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        """Answer one request."""
        request = decode_request(
            message, arrival_ns=context.arrival_ns, deadline_ns=context.deadline_ns, regions=self._plane.memory
        )
        response = await self._plane.infer(request)
        return encode_response(response, request.outputs, self._plane.memory)

    def start_infer(self, raw: bytes | memoryview, context: CallContext, done: Done) -> Callable[[], None]:
        """Start one request; see `transports.base.StartHandler`."""
        request = self._reader.read(raw, context)
        writer = self._writer

        def finished(answer: InferenceResponse | ErgError) -> None:
            if isinstance(answer, ErgError):
                done(None, answer)
                return
            try:
                parts = writer.write(answer, request.outputs)
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
                done(None, error)
            else:
                done(parts, None)

        return self._plane.submit(request, finished)

    async def stream_infer(
        self, messages: AsyncIterator[pb.ModelInferRequest], context: CallContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answer each request of a stream as it is done; an error travels in its message and the stream goes on.

        When the server drains, the stream ends once what it accepted is answered.
        """
        answers: asyncio.Queue[pb.ModelStreamInferResponse | None] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_STREAM_REQUESTS)
        running: set[asyncio.Task[None]] = set()

        async def answer(message: pb.ModelInferRequest) -> None:
            try:
                answers.put_nowait(await self._stream_answer(message, context.deadline_ns))
            finally:
                room.release()

        async def read() -> None:
            try:
                async for message in messages:
                    await room.acquire()
                    task = asyncio.create_task(answer(message))
                    running.add(task)
                    task.add_done_callback(running.discard)
            finally:
                if running:
                    await asyncio.wait(running)
                answers.put_nowait(None)

        async def drained() -> None:
            await self._draining.wait()
            if running:
                await asyncio.wait(running)
            answers.put_nowait(None)

        reader = asyncio.create_task(read())
        helpers = [reader, asyncio.create_task(drained())]
        try:
            while (response := await answers.get()) is not None:
                yield response
            if reader.done():
                reader.result()  # a message that is none ends the stream, and its sender is told
        finally:
            for task in (*helpers, *running):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*helpers, *running, return_exceptions=True)

    async def _stream_answer(
        self, message: pb.ModelInferRequest, deadline_ns: int | None
    ) -> pb.ModelStreamInferResponse:
        context = CallContext(arrival_ns=self._plane.clock.now_ns(), deadline_ns=deadline_ns)
        try:
            response = pb.ModelStreamInferResponse(infer_response=await self.infer(message, context))
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller is told and the stream goes on)
            response = pb.ModelStreamInferResponse(error_message=_told(error))
            # The client finds the request again by its id.
            response.infer_response.id = message.id
        _mark_final(message, response.infer_response)
        return response

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


def _mark_final(message: pb.ModelInferRequest, response: pb.ModelInferResponse) -> None:
    if EMPTY_FINAL in message.parameters and message.parameters[EMPTY_FINAL].bool_param:
        response.parameters[FINAL].bool_param = True


def _told(error: Exception) -> str:
    if isinstance(error, ErgError):
        return error.message
    log.error("a request of a stream failed", exc_info=error)
    return "internal error; the server's log has the cause"
