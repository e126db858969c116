"""grpc.health.v1: Check and Watch for the server, the inference service, and each model by its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from erg_server.dataplane.dataplane import DataPlane
from erg_server.errors import NotFoundError
from erg_server.pb import health_pb2 as pb
from erg_server.transports.base import CallContext, Method
from erg_server.transports.inference_service import SERVICE as INFERENCE

SERVICE = "grpc.health.v1.Health"
Status = pb.HealthCheckResponse


class HealthService:
    """Asks the data plane; told of changes by the registry's notifications."""

    def __init__(self, plane: DataPlane, *, draining: asyncio.Event) -> None:
        self._plane = plane
        self._draining = draining
        self._watchers: set[asyncio.Event] = set()
        plane.registry.subscribe(self._changed)

    def methods(self) -> list[Method]:
        """Check and Watch."""
        request, response = pb.HealthCheckRequest, pb.HealthCheckResponse
        return [
            Method(path=f"/{SERVICE}/Check", request=request, response=response, unary=self.check),
            Method(path=f"/{SERVICE}/Watch", request=request, response=response, stream=self.watch),
        ]

    async def check(self, message: pb.HealthCheckRequest, _: CallContext) -> pb.HealthCheckResponse:
        """The status now; raises NotFoundError for a service nobody knows."""
        status = self._status(message.service)
        if status == Status.SERVICE_UNKNOWN:
            raise NotFoundError(f"no service or model is called '{message.service}'")
        return pb.HealthCheckResponse(status=status)

    async def watch(
        self, messages: AsyncIterator[pb.HealthCheckRequest], _: CallContext
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """The status now and whenever it changes; ends after NOT_SERVING when the server drains."""
        message = await anext(messages)
        changed = asyncio.Event()
        self._watchers.add(changed)
        last: int | None = None
        try:
            while True:
                changed.clear()
                # Read before the status: if it is set while an answer is sent, NOT_SERVING is still to be told.
                draining = self._draining.is_set()
                status = self._status(message.service)
                if status != last:
                    last = status
                    yield pb.HealthCheckResponse(status=status)
                if draining:
                    return
                await changed.wait()
        finally:
            self._watchers.discard(changed)

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus.ValueType:
        plane = self._plane
        if service in {"", INFERENCE, SERVICE}:
            return Status.SERVING if plane.ready() else Status.NOT_SERVING
        if plane.model_ready(service, ""):
            return Status.SERVING
        return Status.NOT_SERVING if plane.registry.known(service) else Status.SERVICE_UNKNOWN

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher.set()
