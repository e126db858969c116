"""A version that answers: its signature, its queue and its meter."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from erg_server.errors import ErgError, ResourceExhaustedError, UnavailableError
from erg_server.models.signature import Signature
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.repository import ModelDefinition
from erg_server.repository.spec import ModelSpec
from erg_server.request import InferenceRequest, InferenceResponse, Phases
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.scheduling.scheduler import Scheduler
from erg_server.telemetry.meter import ModelMeter
from erg_server.workers.supervisor import Worker


@dataclass(slots=True, kw_only=True, eq=False)
class ServedModel:
    """One loaded version of a model. Requests that hold it finish on it, whatever the registry serves meanwhile."""

    name: str
    version: int
    handle: int
    definition: ModelDefinition
    config: ModelConfig
    spec: ModelSpec
    meter: ModelMeter
    queue: ModelQueue
    scheduler: Scheduler
    workers: tuple[Worker, ...]
    fingerprint: str
    signature: Signature
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def live_workers(self) -> int:
        """Workers that have the model loaded now; 0 while all of them restart."""
        return sum(worker.has_model(self.handle) for worker in self.workers)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Check a request against the signature, queue it, and wait for its answer.

        Cancelling the caller's task takes a waiting request out of the queue.

        Raises:
            ErgError: it does not fit the signature, was refused, expired, or failed in its batch.
        """
        rows = self.signature.check(request)
        queue = self.queue
        inputs = request.inputs
        if queue.spec.padding is not None:
            inputs = request.inputs = queue.layout.complete(inputs, rows)
        key, length = queue.layout.describe(inputs)
        nbytes = 0
        for tensor in inputs:
            nbytes += len(tensor.data)
        if nbytes > queue.batcher.limits.max_bytes:
            raise ResourceExhaustedError(
                f"the request's inputs have {nbytes} bytes; a batch may have {queue.batcher.limits.max_bytes} "
                "(half of --worker-slot-bytes)"
            )
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()

        def on_done(answer: InferenceResponse | ErgError) -> None:
            if future.done():
                return
            if isinstance(answer, ErgError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        entry = QueuedRequest(
            request=request,
            rows=rows,
            key=key,
            length=length,
            nbytes=nbytes,
            on_done=on_done,
            phases=Phases(arrival_ns=request.arrival_ns),
        )
        if all(worker.state == "stopped" for worker in self.workers):
            raise UnavailableError(f"no worker serves model '{self.name}' version {self.version} any more")
        self.scheduler.enqueue(queue, entry)
        try:
            return await future
        except asyncio.CancelledError:
            self.scheduler.cancel(queue, entry)
            raise
