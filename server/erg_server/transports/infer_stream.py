"""ModelStreamInfer: the requests of one stream that are under way, and their answers as they are done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError

from erg_server.dataplane.dataplane import DataPlane
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse, RequestedOutput
from erg_server.transports.base import CallContext
from erg_server.transports.codec import Regions, decode_request, encode_response
from erg_server.transports.infer_wire import RequestReader, ResponseWriter, varint

log = logging.getLogger(__name__)

MAX_STREAM_REQUESTS = 256
"""Requests of one stream that may be unanswered; a client that sends more waits for answers first."""
EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"

_INFER_RESPONSE = b"\x12"
"""Tag of ModelStreamInferResponse's answer."""

M = TypeVar("M")
A = TypeVar("A")
M_contra = TypeVar("M_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)


class StreamCodec(Protocol[M_contra, A_co]):
    """How a transport's messages become requests and answers."""

    def read(self, message: M_contra, context: CallContext) -> InferenceRequest:
        """One request; raises ErgError for one that contradicts itself."""
        ...

    def message_of(self, message: M_contra) -> pb.ModelInferRequest:
        """What was sent, to name it in an error; raises InvalidArgumentError where it is no request at all."""
        ...

    def write(self, response: InferenceResponse, asked: Sequence[RequestedOutput]) -> A_co:
        """One answer; raises ErgError where it does not fit what was asked."""
        ...

    def wrap(self, response: pb.ModelStreamInferResponse) -> A_co:
        """An answer that is an error."""
        ...


class MessageCodec:
    """For transports that parse messages themselves."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def read(self, message: pb.ModelInferRequest, context: CallContext) -> InferenceRequest:
        """See StreamCodec."""
        return decode_request(
            message, arrival_ns=context.arrival_ns, deadline_ns=context.deadline_ns, regions=self._regions
        )

    def message_of(self, message: pb.ModelInferRequest) -> pb.ModelInferRequest:
        """See StreamCodec."""
        return message

    def write(self, response: InferenceResponse, asked: Sequence[RequestedOutput]) -> pb.ModelStreamInferResponse:
        """See StreamCodec."""
        return pb.ModelStreamInferResponse(infer_response=encode_response(response, asked, self._regions))

    def wrap(self, response: pb.ModelStreamInferResponse) -> pb.ModelStreamInferResponse:
        """See StreamCodec."""
        return response


class BytesCodec:
    """For transports that hand over bytes: without protobuf where the form is known (see `infer_wire`)."""

    def __init__(self, reader: RequestReader, writer: ResponseWriter) -> None:
        self._reader = reader
        self._writer = writer

    def read(self, message: bytes | memoryview, context: CallContext) -> InferenceRequest:
        """See StreamCodec."""
        return self._reader.read(message, context)

    def message_of(self, message: bytes | memoryview) -> pb.ModelInferRequest:
        """See StreamCodec."""
        try:
            return pb.ModelInferRequest.FromString(message)  # type: ignore[arg-type]  # it takes any buffer
        except DecodeError:
            raise InvalidArgumentError("the message is not a valid inference.ModelInferRequest") from None

    def write(self, response: InferenceResponse, asked: Sequence[RequestedOutput]) -> Sequence[bytes | memoryview]:
        """See StreamCodec."""
        parts = self._writer.write(response, asked)
        return [_INFER_RESPONSE + varint(sum(map(len, parts))), *parts]

    def wrap(self, response: pb.ModelStreamInferResponse) -> Sequence[bytes | memoryview]:
        """See StreamCodec."""
        return (response.SerializeToString(),)


class InferStream(Generic[M, A]):
    """One stream. An error of a request travels in its answer, and the stream goes on."""

    def __init__(
        self, plane: DataPlane, codec: StreamCodec[M, A], *, draining: asyncio.Event, tenant: str = ""
    ) -> None:
        self._plane = plane
        self._tenant = tenant
        self._codec = codec
        self._draining = draining
        self._answers: asyncio.Queue[A | None] = asyncio.Queue()
        # What cancels each request that is not answered yet.
        self._running: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    async def answer(self, messages: AsyncIterator[M], context: CallContext) -> AsyncIterator[A]:
        """Answers in the order in which they are done.

        When the server drains, the stream ends once what it accepted is answered.

        Raises:
            InvalidArgumentError: a message is no request at all, after the answers to those before it.
        """
        helpers = (asyncio.create_task(self._read(messages, context)), asyncio.create_task(self._drain()))
        try:
            while (answer := await self._answers.get()) is not None:
                yield answer
            if self._error is not None:
                raise self._error
        finally:
            for task in helpers:
                task.cancel()
            for cancel in list(self._running.values()):
                cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*helpers, return_exceptions=True)

    async def _read(self, messages: AsyncIterator[M], context: CallContext) -> None:
        try:
            async for message in messages:
                while len(self._running) >= MAX_STREAM_REQUESTS:
                    await self._change()
                self._start(message, context)
        except Exception as error:  # noqa: BLE001 (it ends the stream, and its sender is told)
            self._error = error
        await self._end()

    async def _drain(self) -> None:
        await self._draining.wait()
        await self._end()

    async def _end(self) -> None:
        while self._running:
            await self._change()
        self._answers.put_nowait(None)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _start(self, message: M, context: CallContext) -> None:
        number = self._count
        self._count += 1
        codec = self._codec
        try:
            arrived = CallContext(arrival_ns=self._plane.clock.now_ns(), deadline_ns=context.deadline_ns)
            request = codec.read(message, arrived)
            request.tenant = self._tenant
            final = bool(request.parameters.get(EMPTY_FINAL))

            def done(answer: InferenceResponse | ErgError) -> None:
                self._running.pop(number, None)
                self._changed.set()
                self._answers.put_nowait(self._written(answer, request, final=final))

            self._running[number] = lambda: None  # `done` may be called at once
            cancel = self._plane.submit(request, done)
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller is told and the stream goes on)
            self._running.pop(number, None)
            sent = codec.message_of(message)
            self._answers.put_nowait(self._failed(error, sent.id, final=sent.parameters[EMPTY_FINAL].bool_param))
        else:
            if number in self._running:
                self._running[number] = cancel

    def _written(self, answer: InferenceResponse | ErgError, request: InferenceRequest, *, final: bool) -> A:
        if isinstance(answer, ErgError):
            return self._failed(answer, request.id, final=final)
        if final:
            answer.parameters = {**answer.parameters, FINAL: True}
        try:
            return self._codec.write(answer, request.outputs)
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller is told and the stream goes on)
            return self._failed(error, request.id, final=final)

    def _failed(self, error: Exception, request_id: str, *, final: bool) -> A:
        response = pb.ModelStreamInferResponse(error_message=_told(error))
        # The client finds the request again by its id.
        response.infer_response.id = request_id
        if final:
            response.infer_response.parameters[FINAL].bool_param = True
        return self._codec.wrap(response)


def _told(error: Exception) -> str:
    if isinstance(error, ErgError):
        return error.message
    log.error("a request of a stream failed", exc_info=error)
    return "internal error; the server's log has the cause"
