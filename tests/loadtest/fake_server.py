"""A tiny v2 server in the test's own event loop: echoes inputs, counts, and fails when told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from erg_server.pb import inference_pb2, model_config_pb2

SERVICE = "inference.GRPCInferenceService"


class FakeServer:
    def __init__(self) -> None:
        self.port = 0
        self.ready = True
        self.infer_requests: list[Any] = []
        self.failure: Callable[[int], grpc.StatusCode | None] = lambda _: None
        self.statistics_supported = True
        self.config = model_config_pb2.ModelConfig(name="echo", max_batch_size=8)
        self.config.input.add(name="ids")
        self.config.input.add(name="mask", optional=True)
        self.config_supported = True
        self.spoil: Callable[[int, Any], None] = lambda number, response: None
        self.inputs: tuple[str, ...] = ("ids", "mask")

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def ModelReady(self, request, context):  # noqa: N802
        return inference_pb2.ModelReadyResponse(ready=self.ready)

    async def ModelMetadata(self, request, context):  # noqa: N802
        if request.name != "echo":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model '{request.name}'")
        response = inference_pb2.ModelMetadataResponse(name="echo", versions=["1"], platform="fake")
        for name in self.inputs:
            response.inputs.add(name=name, datatype="INT64", shape=[-1, -1])
            response.outputs.add(name=name, datatype="INT64", shape=[-1, -1])
        return response

    async def ModelConfig(self, request, context):  # noqa: N802
        if not self.config_supported:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such extension")
        return inference_pb2.ModelConfigResponse(config=self.config)

    async def ModelStatistics(self, request, context):  # noqa: N802
        if not self.statistics_supported:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such extension")
        rows = sum(message.inputs[0].shape[0] for message in self.infer_requests)
        count = len(self.infer_requests)
        response = inference_pb2.ModelStatisticsResponse()
        entry = response.model_stats.add(name="echo", version="1", inference_count=rows, execution_count=count)
        for phase, ns in (("success", 4000), ("queue", 1000), ("compute_infer", 2000)):
            duration = getattr(entry.inference_stats, phase)
            duration.count, duration.ns = count, count * ns
        if count:
            entry.batch_stats.add(batch_size=2).compute_infer.count = count
        return response

    async def ModelInfer(self, request, context):  # noqa: N802
        number = len(self.infer_requests)
        self.infer_requests.append(request)
        code = self.failure(number)
        if code is not None:
            await context.abort(code, "as told")
        response = inference_pb2.ModelInferResponse(model_name="echo", model_version="1", id=request.id)
        for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            response.outputs.add(name=entry.name, datatype=entry.datatype, shape=entry.shape)
            response.raw_output_contents.append(raw)
        self.spoil(number, response)
        return response


@asynccontextmanager
async def running(*, extensions: bool = True) -> AsyncIterator[FakeServer]:
    """Without extensions it has the open protocol's methods and no others, as MLServer has."""
    fake = FakeServer()
    names = ["ModelReady", "ModelMetadata", "ModelInfer"]
    if extensions:
        names += ["ModelConfig", "ModelStatistics"]
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(fake, name),
            request_deserializer=getattr(inference_pb2, f"{name}Request").FromString,
            response_serializer=getattr(inference_pb2, f"{name}Response").SerializeToString,
        )
        for name in names
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    fake.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)
