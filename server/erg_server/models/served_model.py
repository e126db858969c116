"""A version that answers: its signature, its queue and its meter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from erg_server.errors import ErgError, ResourceExhaustedError, UnavailableError
from erg_server.models.placer import ModelPlacer
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

MAX_CHECKED: Final = 4096
"""Forms of requests that a version remembers; they come from callers, so a full table starts again."""


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
    # Those that may have the model; which of them have it now is the placer's to say.
    workers: tuple[Worker, ...]
    placer: ModelPlacer
    fingerprint: str
    signature: Signature
    # What of the version runs: the artifact's name and its backend.
    variant: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # What the signature said of each form of request: rows, batch key, length, bytes.
    _checked: dict[object, tuple[int, Hashable, int, int]] = field(default_factory=dict)

    @property
    def live_workers(self) -> int:
        """Workers that have the model loaded now; 0 while all of them restart, and while it is evicted."""
        return sum(worker.has_model(self.handle) for worker in self.workers)

    @property
    def available(self) -> bool:
        """Whether a request would be served now, be it after the model is brought back."""
        return self.live_workers > 0 or self.placer.reachable(self.handle)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Check a request against the signature, queue it, and wait for its answer.

        Cancelling the caller's task takes a waiting request out of the queue.

        Raises:
            ErgError: it does not fit the signature, was refused, expired, or failed in its batch.
        """
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()

        def on_done(answer: InferenceResponse | ErgError) -> None:
            if future.done():
                return
            if isinstance(answer, ErgError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        cancel = self.submit(request, on_done)
        try:
            return await future
        except asyncio.CancelledError:
            cancel()
            raise

    def submit(
        self, request: InferenceRequest, on_done: Callable[[InferenceResponse | ErgError], None]
    ) -> Callable[[], None]:
        """Check a request against the signature and queue it; `on_done` is called once, later.

        Returns:
            What takes it out of the queue again, for a caller that went away.

        Raises:
            ErgError: it does not fit the signature or was refused; `on_done` is then never called.
        """
        checked = self._checked.get(request.form)
        rows, key, length, nbytes = self._check(request) if checked is None else checked
        if self.workers[0].state == "stopped" and all(worker.state == "stopped" for worker in self.workers):
            raise UnavailableError(f"no worker serves model '{self.name}' version {self.version} any more")
        entry = QueuedRequest(
            request=request,
            rows=rows,
            key=key,
            length=length,
            nbytes=nbytes,
            on_done=on_done,
            phases=Phases(arrival_ns=request.arrival_ns),
        )
        self.scheduler.enqueue(self.queue, entry)
        if self.placer.limited:
            self.placer.used(self.handle)
        return partial(self.scheduler.cancel, self.queue, entry)

    def _check(self, request: InferenceRequest) -> tuple[int, Hashable, int, int]:
        queue = self.queue
        rows = self.signature.check(request)
        sent = inputs = request.inputs
        if queue.spec.padding is not None:
            inputs = request.inputs = queue.layout.complete(inputs, rows)
        key, length = queue.layout.describe(inputs)
        nbytes = sum(len(tensor.data) for tensor in inputs)
        if nbytes > queue.batcher.limits.max_bytes:
            raise ResourceExhaustedError(
                f"the request's inputs have {nbytes} bytes; a batch may have {queue.batcher.limits.max_bytes} "
                "(half of --worker-slot-bytes)"
            )
        checked = rows, key, length, nbytes
        # A mask that was made here would be missing from the next request of the form.
        if request.form is not None and inputs is sent:
            if len(self._checked) >= MAX_CHECKED:
                self._checked.clear()
            self._checked[request.form] = checked
        return checked
