"""A front end alone: ModelInfer answered by its own input, over Erg's or grpcio's transport. Prints its port.

    python -m bench.echo_server erg|grpcio [ANSWER_BYTES]

The heap is set as in `erg serve`, and each transport reads and writes messages as it does there: Erg's by `infer_wire`,
grpcio's by protobuf.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import uvloop
from erg_server import heap
from erg_server.clock import MonotonicClock
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse
from erg_server.tensor import Tensor
from erg_server.transports.base import CallContext, Done, Method, Transport
from erg_server.transports.grpc.server import Address, GrpcTransport
from erg_server.transports.grpcio.server import GrpcioTransport
from erg_server.transports.infer_stream import BytesCodec
from erg_server.transports.infer_wire import RequestReader, ResponseWriter

SERVICE = "/inference.GRPCInferenceService"
MESSAGE_BYTES = 64 << 20


class Echo:
    """Answers with a request's inputs, cut to `answer_bytes` (0: whole)."""

    def __init__(self, answer_bytes: int) -> None:
        self._answer_bytes = answer_bytes
        regions = SharedMemory(allowed=False)
        self._writer = ResponseWriter(regions)
        self._codec = BytesCodec(RequestReader(regions), self._writer)

    def start(self, raw: bytes | memoryview, context: CallContext, done: Done) -> Callable[[], None]:
        """One request as Erg's own transport hands it over."""
        done(self._writer.write(self._respond(self._codec.read(raw, context)), ()), None)
        return lambda: None

    async def stream_bytes(
        self, messages: AsyncIterator[bytes | memoryview], context: CallContext
    ) -> AsyncIterator[Sequence[bytes | memoryview]]:
        """A stream of them."""
        async for raw in messages:
            yield self._codec.write(self._respond(self._codec.read(raw, context)), ())

    def _respond(self, request: InferenceRequest) -> InferenceResponse:
        cut = self._answer_bytes
        outputs = [
            Tensor("y", item.datatype, item.shape, item.data[:cut] if cut else item.data) for item in request.inputs
        ]
        return InferenceResponse(model_name=request.model_name, model_version="1", id=request.id, outputs=outputs)

    async def infer(self, message: Any, _: CallContext) -> pb.ModelInferResponse:
        """One request as grpcio hands it over."""
        return self._answer(message)

    async def stream(self, messages: AsyncIterator[Any], _: CallContext) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """A stream of what grpcio hands over."""
        async for message in messages:
            yield pb.ModelStreamInferResponse(infer_response=self._answer(message))

    def _answer(self, message: Any) -> pb.ModelInferResponse:
        cut = self._answer_bytes
        response = pb.ModelInferResponse(model_name=message.model_name, model_version="1", id=message.id)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
            response.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
            response.raw_output_contents.append(raw[:cut] if cut else raw)
        return response

    def methods(self) -> list[Method]:
        """Both infer methods."""
        return [
            Method(
                path=f"{SERVICE}/ModelInfer",
                request=pb.ModelInferRequest,
                response=pb.ModelInferResponse,
                unary=self.infer,
                start=self.start,
            ),
            Method(
                path=f"{SERVICE}/ModelStreamInfer",
                request=pb.ModelInferRequest,
                response=pb.ModelStreamInferResponse,
                stream=self.stream,
                stream_bytes=self.stream_bytes,
                client_streaming=True,
            ),
        ]


async def serve(kind: str, answer_bytes: int) -> None:
    """Answer until the process is ended."""
    heap.keep_freed_memory()
    methods, clock = Echo(answer_bytes).methods(), MonotonicClock()
    transport: Transport
    if kind == "grpcio":
        transport = GrpcioTransport(methods, address="127.0.0.1", port=0, max_message_bytes=MESSAGE_BYTES, clock=clock)
    else:
        transport = GrpcTransport(methods, addresses=(Address(host="127.0.0.1"),), clock=clock)
    await transport.start()
    heap.collect_seldom()
    print(transport.addresses[0].rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
