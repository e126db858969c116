"""Whether a request may join the queue, and when it stops being worth running. Pure.

Refusing on arrival what cannot be in time is Clockwork's admission (Gujarati et al., OSDI 2020, arXiv 2006.02464).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from erg_server.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
from erg_server.repository.spec import BatchingPolicy, QueuePolicy
from erg_server.request import InferenceRequest
from erg_server.scheduling.request_queue import RequestQueue

RETRY_TRAILER = "grpc-retry-pushback-ms"


LATE_SHARE = 0.01
"""Of the admitted requests, how many may be late."""
_CAUTION_GAIN = 0.02
_LEAST_CAUTION, _MOST_CAUTION = 0.5, 16.0
_MOST_MISSES = 100
"""At once: the power of many more would be no number."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The server's bounds on every model's queue, for those whose configuration states none or a larger one."""

    max_requests: int = 10_000
    max_bytes: int = 1 << 30


Admission = tuple[int, int | None, bool]
"""Level, expiry in nanoseconds or None, and whether an expired request only loses its place. Each request makes one,
and without names it costs compiled code nothing."""


def admit(
    request: InferenceRequest,
    *,
    nbytes: int,
    queue: RequestQueue,
    policy: BatchingPolicy | None,
    limits: QueueLimits,
    now_ns: int,
) -> Admission:
    """Decide about one request.

    Raises:
        DeadlineExceededError: its deadline is over already.
        InvalidArgumentError: its priority is not one the model has.
        ResourceExhaustedError: the queue is full; the message says how long it is.
    """
    if request.deadline_ns is not None and request.deadline_ns <= now_ns:
        raise DeadlineExceededError(f"the request's deadline passed before model '{request.model_name}' queued it")
    level, queue_policy = _level(request, policy)
    bound = queue_policy.max_queue_size if queue_policy is not None else 0
    if bound and queue.level_size(level) >= bound:
        raise _full(request, queue.level_size(level), f"max_queue_size of priority level {level} is {bound}")
    if len(queue) >= limits.max_requests:
        raise _full(request, len(queue), f"the server's --max-queue-requests is {limits.max_requests}")
    if queue.nbytes + nbytes > limits.max_bytes and len(queue):
        raise _full(request, len(queue), f"the server's --max-queue-bytes is {limits.max_bytes}")
    timeout_us, delayable = _timeout(request, queue_policy)
    expires_ns = request.deadline_ns
    if timeout_us:
        timeout_ns = now_ns + timeout_us * 1000
        if expires_ns is None or timeout_ns < expires_ns:
            return level, timeout_ns, delayable
    return level, expires_ns, False


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is predicted for a request that joins a queue now, in nanoseconds from now.

    `wait_ns` until its batch starts, `batch_ns` for its batch, and `alone_ns` for the request by itself.
    """

    wait_ns: float
    batch_ns: float
    alone_ns: float
    waiting_requests: int


class Caution:
    """How much longer a request waits than the account of waiting work says, learnt from what became of those admitted.

    More urgent ones come yet, and batches are not full. The factor grows with each request that was late and shrinks
    with each that was not, so that one in a hundred is late: a multiplicative quantile estimate as `LatencyCurve`'s.
    A full batch that the first one's deadline cut counts as one that was late: those who wait too long cost capacity.
    The more `devices` answer, the more requests one forecast's error concerns and the less each counts: else the factor
    would swing from one bound to the other while those admitted by it still wait.
    """

    __slots__ = ("devices", "factor")

    def __init__(self) -> None:
        self.factor = 1.0
        self.devices = 1

    def met(self, count: int) -> None:
        """So many admitted requests were answered in time."""
        if self.factor > _LEAST_CAUTION:
            self.factor *= (1 - _CAUTION_GAIN * LATE_SHARE) ** (count / self.devices)

    def missed(self, count: int) -> None:
        """So many were dropped or late, or forced a small batch."""
        if count and self.factor < _MOST_CAUTION:
            grown = self.factor * (1 + _CAUTION_GAIN * (1 - LATE_SHARE)) ** min(count / self.devices, _MOST_MISSES)
            self.factor = min(grown, _MOST_CAUTION)


def check_in_time(request: InferenceRequest, left_ns: int, forecast: Forecast) -> None:
    """Refuse what cannot be answered within `left_ns`.

    Raises:
        DeadlineExceededError: not even an empty server could; the message says what it would take.
        ResourceExhaustedError: because of those that wait; the message has the predicted wait, and the trailers tell
            when to try again.
    """
    if forecast.alone_ns > left_ns:
        raise DeadlineExceededError(
            f"model '{request.model_name}' takes about {forecast.alone_ns / 1e6:.1f} ms for this request, "
            f"which has {left_ns / 1e6:.1f} ms left"
        )
    late_ns = forecast.wait_ns + forecast.batch_ns - left_ns
    if late_ns > 0:
        retry_ms = math.ceil(late_ns / 1e6)
        raise ResourceExhaustedError(
            f"model '{request.model_name}' would start this request in about {forecast.wait_ns / 1e6:.1f} ms and "
            f"answer it {late_ns / 1e6:.1f} ms too late, behind {forecast.waiting_requests} of its requests and other "
            f"models'. Retry in {retry_ms} ms.",
            # What gRPC clients with a retry policy wait for: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
            trailers=((RETRY_TRAILER, str(retry_ms)),),
        )


def _level(request: InferenceRequest, policy: BatchingPolicy | None) -> tuple[int, QueuePolicy | None]:
    if policy is None:
        return 1, None
    levels = policy.priority_levels
    if not levels:
        return 1, policy.policy(0)
    level = request.priority or policy.default_priority
    if level > levels:
        raise InvalidArgumentError(
            f"priority {level} is not one of model '{request.model_name}'s levels, 1 (most urgent) to {levels}"
        )
    return level, policy.policy(level)


def _timeout(request: InferenceRequest, policy: QueuePolicy | None) -> tuple[int, bool]:
    if policy is None:
        return request.timeout_us, False
    timeout_us = policy.default_timeout_us
    if policy.allow_timeout_override and request.timeout_us:
        # A caller may shorten the model's timeout and never lengthen it.
        timeout_us = min(timeout_us, request.timeout_us) if timeout_us else request.timeout_us
    return timeout_us, policy.timeout_action == "DELAY"


def _full(request: InferenceRequest, waiting: int, bound: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"model '{request.model_name}' has {waiting} requests waiting and takes no more: {bound}. Retry later."
    )
