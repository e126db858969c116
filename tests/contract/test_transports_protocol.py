"""The server's own methods through every transport: streams of inferences, health, queued requests, every RPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from erg_server.bootstrap import build_methods
from erg_server.clock import MonotonicClock
from erg_server.dataplane.dataplane import DataPlane
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.pb import health_pb2, inference_pb2
from erg_server.pb import inference_pb2 as pb
from erg_server.telemetry.logs import ROOT, LogControl, LogSettings
from erg_server.telemetry.trace import Tracer
from erg_server.transports.base import Transport
from google.protobuf.message import Message

from tests.contract.transports import TRANSPORTS, Client, refused, running
from tests.server.models.harness import FakeWorker, Harness

SERVICE = "/inference.GRPCInferenceService"
SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


@dataclass(kw_only=True)
class Served:
    harness: Harness
    client: Client
    transport: Transport
    leaving: asyncio.Event
    draining: asyncio.Event

    @property
    def worker(self) -> FakeWorker:
        return self.harness.worker

    def infer(self, message: pb.ModelInferRequest, **how: float):
        return self.client.call(message, f"{SERVICE}/ModelInfer", **how)

    def stream(self):
        return self.client.stream(f"{SERVICE}/ModelStreamInfer", pb.ModelStreamInferResponse)

    def health(self, name: str, service: str = ""):
        message, path = health_pb2.HealthCheckRequest(service=service), f"/grpc.health.v1.Health/{name}"
        ask = self.client.watch if name == "Watch" else self.client.call
        return ask(message, path, health_pb2.HealthCheckResponse)


@pytest.fixture(params=list(TRANSPORTS.values()), ids=list(TRANSPORTS))
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    harness = Harness(root=tmp_path / "repo")
    harness.write()
    await harness.registry.start(["m"])
    harness.worker.batches.clear()
    leaving, draining, logs = asyncio.Event(), asyncio.Event(), LogControl(LogSettings())
    plane = DataPlane(
        registry=harness.registry,
        meter=harness.meter,
        tracer=Tracer(),
        logs=logs,
        memory=SharedMemory(allowed=False),
        clock=MonotonicClock(),
        leaving=leaving.is_set,
        strict_readiness=True,
    )
    async with running(request.param, *build_methods(plane, draining, reflection=True)) as (transport, client):
        yield Served(harness=harness, client=client, transport=transport, leaving=leaving, draining=draining)
    logs.close()
    logging.getLogger(ROOT).propagate = True


def message(number: float = 1.0, name: str = "m", **fields: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, raw_input_contents=[np.full(2, number, np.float32).tobytes()])
    request.id = fields.get("id", "")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return request


async def test_every_rpc_answers_or_tells_why_not(served: Served) -> None:
    descriptor = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert len(descriptor.methods) == 20
    outcomes = {}
    for method in descriptor.methods:
        request: Message = getattr(pb, method.input_type.name)()
        if "model_name" in method.input_type.fields_by_name and not method.name.endswith("Setting"):
            setattr(request, "model_name", "gone")  # noqa: B010 (one of many messages)
        if method.client_streaming:
            call = served.client.stream(f"{SERVICE}/{method.name}", getattr(pb, method.output_type.name))
            await call.write(request)
            outcomes[method.name] = (await call.read()).error_message
            await call.done_writing()
            continue
        call = served.client.call(request, f"{SERVICE}/{method.name}", getattr(pb, method.output_type.name))
        try:
            await call
            outcomes[method.name] = "OK"
        except grpc.aio.AioRpcError as error:
            outcomes[method.name] = error.code().name
    failing = {name: outcome for name, outcome in outcomes.items() if outcome != "OK"}
    assert failing == {
        "ModelMetadata": "NOT_FOUND",
        "ModelConfig": "NOT_FOUND",
        "ModelInfer": "NOT_FOUND",
        "ModelStreamInfer": "no model is called 'gone'",
        "RepositoryModelLoad": "NOT_FOUND",
        "RepositoryModelUnload": "NOT_FOUND",
        "SystemSharedMemoryRegister": "FAILED_PRECONDITION",
        "CudaSharedMemoryRegister": "UNIMPLEMENTED",
    }


async def test_a_stream_carries_errors_in_its_messages_and_goes_on(served: Served) -> None:
    call = served.stream()
    await call.write(message(id="bad", name="gone"))
    failed = await call.read()
    assert (failed.error_message, failed.infer_response.id) == ("no model is called 'gone'", "bad")
    assert "triton_final_response" not in failed.infer_response.parameters
    for name in ("m", "gone"):
        asking = message(id="last", name=name)
        asking.parameters["triton_enable_empty_final_response"].bool_param = True
        await call.write(asking)
        answer = await call.read()
        assert bool(answer.error_message) == (name == "gone")
        assert answer.infer_response.id == "last"
        assert answer.infer_response.parameters["triton_final_response"].bool_param
    await call.done_writing()
    assert await call.rest() == []


async def test_a_stream_answers_each_request_when_it_is_done(served: Served) -> None:
    served.worker.may_run = False
    call = served.stream()
    await call.write(message(1.0, id="slow"))
    await served.worker.until(lambda: bool(served.worker.batches))
    await call.write(message(id="quick", name="gone"))
    assert (await call.read()).infer_response.id == "quick"
    await call.done_writing()
    served.worker.run()
    assert [answer.infer_response.id for answer in await call.rest()] == ["slow"]


@pytest.mark.interpreted
async def test_an_unforeseen_error_in_a_stream_is_told_with_the_requests_id(served: Served) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("/secret")

    served.harness.registry.resolve("m", "").signature.check = fail  # type: ignore[assignment, method-assign]
    call = served.stream()
    await call.write(message(id="7"))
    answer = await call.read()
    assert answer.infer_response.id == "7"
    assert answer.error_message.startswith("internal error")
    await call.done_writing()


async def test_bytes_that_are_no_request_end_a_stream_with_an_error_after_what_was_accepted(served: Served) -> None:
    call = served.stream()
    await call.write(message(id="good"))
    await call.write(b"\xff\xff")
    assert (await call.read()).infer_response.id == "good"
    code, _details = await refused(call.read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_draining_server_ends_streams_when_their_requests_are_answered(served: Served) -> None:
    served.worker.may_run = False
    call = served.stream()
    await call.write(message(id="accepted"))
    await served.worker.until(lambda: bool(served.worker.batches))
    served.draining.set()
    served.worker.run()
    assert [answer.infer_response.id for answer in await call.rest()] == ["accepted"]
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("gone", ["deadline", "cancel"])
async def test_a_caller_that_is_gone_takes_its_waiting_request_out_of_the_queue(served: Served, gone: str) -> None:
    worker = served.worker
    worker.may_run = False
    holding = []
    for held in range(1, worker.slots + 1):
        holding.append(asyncio.ensure_future(served.infer(message(float(held)))))
        await worker.until(lambda held=held: len(worker.batches) == held)  # type: ignore[misc]
    meter = served.harness.registry.resolve("m", "").meter
    call = served.infer(message(99.0), timeout=0.5 if gone == "deadline" else 60)
    while not meter.pending:
        assert not call.done(), "its deadline was over before it reached the queue"
        await asyncio.wait([asyncio.ensure_future(served.health("Check"))])
    if gone == "cancel":
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    else:
        code, _details = await refused(call)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    while meter.pending:
        await asyncio.wait([asyncio.ensure_future(served.health("Check"))])
    worker.run()
    answers = await asyncio.gather(*holding)
    assert [np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for answer in answers] == [1.0, 2.0]
    await served.infer(message(5.0))
    assert len(worker.batches) == 3, "the request of the caller that went away reached a worker"
    assert meter.pending == 0


async def test_a_refusal_carries_its_status(served: Served) -> None:
    wrong = message()
    wrong.raw_input_contents[0] = b"1234567"
    code, details = await refused(served.infer(wrong))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "input 'x' of shape [1, 2] and datatype FP32 needs 8 bytes, and 7 came"


async def test_health_is_known_for_the_server_its_services_and_each_model(served: Served) -> None:
    for service in ("", "inference.GRPCInferenceService", "grpc.health.v1.Health", "m"):
        assert (await served.health("Check", service)).status == SERVING
    code, details = await refused(served.health("Check", "other"))
    assert (code, "'other'" in details) == (grpc.StatusCode.NOT_FOUND, True)
    await served.harness.registry.unload("m")
    assert (await served.health("Check", "m")).status == NOT_SERVING


async def test_watchers_are_told_of_every_change_and_of_the_end(served: Served) -> None:
    served.harness.write("late")
    model, unknown, server = (served.health("Watch", name) for name in ("m", "late", ""))
    assert [(await watch.read()).status for watch in (model, unknown, server)] == [SERVING, UNKNOWN, SERVING]
    await served.harness.load("late")
    assert (await unknown.read()).status == SERVING
    await served.harness.registry.unload("m")
    assert (await model.read()).status == NOT_SERVING
    await served.harness.load("m")
    assert (await model.read()).status == SERVING
    served.leaving.set()
    served.draining.set()
    served.harness.registry.notify()
    for watch in (model, unknown, server):
        assert [answer.status for answer in await watch.rest()] == [NOT_SERVING]


async def test_a_server_told_to_stop_says_so_at_once_and_takes_requests_until_it_drains(served: Served) -> None:
    watch, stream = served.health("Watch"), served.stream()
    assert (await watch.read()).status == SERVING
    await stream.write(message(id="before"))
    assert (await stream.read()).infer_response.id == "before"
    served.leaving.set()
    served.harness.registry.notify()
    assert (await watch.read()).status == NOT_SERVING
    assert (await served.health("Check")).status == NOT_SERVING
    assert (await served.health("Check", "m")).status == NOT_SERVING
    ready = served.client.call(pb.ServerReadyRequest(), f"{SERVICE}/ServerReady", pb.ServerReadyResponse)
    assert not (await ready).ready
    assert (await served.infer(message(id="new"))).id == "new"
    await stream.write(message(id="on an open stream"))
    assert (await stream.read()).infer_response.id == "on an open stream"
    assert (await served.health("Check")).status == NOT_SERVING
    # Its watchers are not sent away before its callers are: they would take the end for a lost server.
    served.draining.set()
    served.harness.registry.notify()
    assert await watch.rest() == []
    assert await stream.rest() == []


async def test_a_watcher_that_leaves_is_forgotten(served: Served) -> None:
    watch = served.health("Watch", "m")
    assert (await watch.read()).status == SERVING
    watch.cancel()
    await served.harness.registry.unload("m")
    assert (await served.health("Check", "m")).status == NOT_SERVING
