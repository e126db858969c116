"""A front end alone: ModelInfer answered by its own input, over Erg's or grpcio's transport. Prints its port.

python -m bench.echo_server erg|grpcio [ANSWER_BYTES]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from erg_server.clock import MonotonicClock
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext, Done, Method, Transport
from erg_server.transports.grpc.server import Address, GrpcTransport
from erg_server.transports.grpcio.server import GrpcioTransport

SERVICE = "/inference.GRPCInferenceService"
MESSAGE_BYTES = 64 << 20


def answer(message: Any, answer_bytes: int) -> pb.ModelInferResponse:
    """The request's inputs as outputs, cut to `answer_bytes` (0: whole)."""
    response = pb.ModelInferResponse(model_name=message.model_name, model_version="1", id=message.id)
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        response.outputs.add(name="y", datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(raw[:answer_bytes] if answer_bytes else raw)
    return response


async def serve(kind: str, answer_bytes: int) -> None:
    """Answer until the process is ended."""

    async def infer(message: Any, _: CallContext) -> pb.ModelInferResponse:
        return answer(message, answer_bytes)

    def start(raw: bytes | memoryview, _: CallContext, done: Done) -> Callable[[], None]:
        message = pb.ModelInferRequest.FromString(raw)  # type: ignore[arg-type]  # it takes any buffer
        done((answer(message, answer_bytes).SerializeToString(),), None)
        return lambda: None

    async def stream(messages: AsyncIterator[Any], _: CallContext) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for message in messages:
            yield pb.ModelStreamInferResponse(infer_response=answer(message, answer_bytes))

    methods = [
        Method(
            path=f"{SERVICE}/ModelInfer",
            request=pb.ModelInferRequest,
            response=pb.ModelInferResponse,
            unary=infer,
            start=start,
        ),
        Method(
            path=f"{SERVICE}/ModelStreamInfer",
            request=pb.ModelInferRequest,
            response=pb.ModelStreamInferResponse,
            stream=stream,
            client_streaming=True,
        ),
    ]
    clock = MonotonicClock()
    transport: Transport
    if kind == "grpcio":
        transport = GrpcioTransport(methods, address="127.0.0.1", port=0, max_message_bytes=MESSAGE_BYTES, clock=clock)
    else:
        transport = GrpcTransport(methods, addresses=(Address(host="127.0.0.1"),), clock=clock)
    await transport.start()
    print(transport.addresses[0].rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
