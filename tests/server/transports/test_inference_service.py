"""What the service makes of a call's metadata and of what an answer cost, in messages and in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from erg_server.clock import ManualClock
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse, Parameter
from erg_server.transports.base import CallContext
from erg_server.transports.inference_service import InferenceService
from erg_server.transports.tenants import Tenants

# A compiled service takes the data plane itself, which tests/e2e/test_cost.py calls through it.
pytestmark = pytest.mark.interpreted


class FakePlane:
    """Answers at once, with the parameters that the test states."""

    def __init__(self, parameters: dict[str, Parameter] | None = None) -> None:
        self.clock = ManualClock(5)
        self.memory = SharedMemory(allowed=False)
        self.parameters = parameters or {}
        self.seen: list[InferenceRequest] = []

    def submit(self, request: InferenceRequest, on_done: Any) -> Callable[[], None]:
        on_done(self._answer(request))
        return lambda: None

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        return self._answer(request)

    def _answer(self, request: InferenceRequest) -> InferenceResponse:
        self.seen.append(request)
        return InferenceResponse(
            model_name="m", model_version="1", id=request.id, outputs=list(request.inputs), parameters=self.parameters
        )


def message() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="a", raw_input_contents=[bytes(8)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return request


def context(*tenants: str) -> CallContext:
    return CallContext(arrival_ns=1, metadata=tuple(("x-tenant", tenant) for tenant in tenants))


def service(plane: FakePlane, *, tenants: bool = True) -> InferenceService:
    names = Tenants("x-tenant") if tenants else None
    return InferenceService(plane, draining=asyncio.Event(), tenants=names)  # type: ignore[arg-type]


async def one(item: Any) -> AsyncIterator[Any]:
    yield item


async def in_every_way(served: InferenceService, told: Callable[[], CallContext]) -> list[CallContext]:
    """Send a request as a message, as bytes, twice (the second is read by its form), and in both kinds of streams."""
    contexts = [told() for _ in range(5)]
    await served.infer(message(), contexts[0])
    raw = message().SerializeToString()
    answers: list[tuple[Sequence[bytes | memoryview] | None, BaseException | None]] = []
    for each in contexts[1:3]:
        served.start_infer(raw, each, lambda parts, error: answers.append((parts, error)))
    assert [(parts is not None, error) for parts, error in answers] == [(True, None)] * 2
    async for _ in served.stream_infer(one(message()), contexts[3]):
        pass
    async for _ in served.stream_infer_bytes(one(raw), contexts[4]):
        pass
    return contexts


async def test_a_request_has_its_calls_tenant_whichever_way_it_came() -> None:
    plane = FakePlane()
    await in_every_way(service(plane), lambda: context("team-a"))
    assert [request.tenant for request in plane.seen] == ["team-a"] * 5
    await in_every_way(service(plane), context)
    assert [request.tenant for request in plane.seen[5:]] == [""] * 5


async def test_metadata_means_nothing_while_tenants_are_off() -> None:
    plane = FakePlane()
    await in_every_way(service(plane, tenants=False), lambda: context("a", "\0"))
    assert [request.tenant for request in plane.seen] == [""] * 5


async def test_a_bad_tenant_is_refused_before_anything_runs() -> None:
    plane = FakePlane()
    served = service(plane)
    bad = context("\0")
    with pytest.raises(InvalidArgumentError, match="x-tenant"):
        await served.infer(message(), bad)
    with pytest.raises(InvalidArgumentError, match="x-tenant"):
        served.start_infer(message().SerializeToString(), bad, lambda *_: None)
    with pytest.raises(InvalidArgumentError, match="x-tenant"):
        await anext(aiter(served.stream_infer(one(message()), bad)))
    with pytest.raises(InvalidArgumentError, match="x-tenant"):
        await anext(aiter(served.stream_infer_bytes(one(b""), bad)))
    assert plane.seen == []


async def test_a_unary_answers_cost_is_in_its_trailers_too_and_a_streams_is_not() -> None:
    plane = FakePlane({"erg_queue_us": 3, "erg_joules": 0.5})
    contexts = await in_every_way(service(plane), context)
    trailers = (("erg-queue-us", "3"), ("erg-joules", "0.5"))
    assert [each.trailers for each in contexts] == [trailers] * 3 + [()] * 2


async def test_an_answer_without_cost_has_no_trailers() -> None:
    for each in await in_every_way(service(FakePlane()), context):
        assert each.trailers == ()


async def test_an_error_that_a_plane_tells_later_reaches_the_caller() -> None:
    class Failing(FakePlane):
        def submit(self, request: InferenceRequest, on_done: Any) -> Callable[[], None]:
            on_done(ErgError("no"))
            return lambda: None

    errors: list[BaseException | None] = []
    service(Failing()).start_infer(
        message().SerializeToString(), context(), lambda parts, error: errors.append(error if parts is None else None)
    )
    assert [str(error) for error in errors] == ["no"]
