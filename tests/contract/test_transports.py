"""What every transport does with calls, whatever the methods mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from erg_server import errors
from erg_server.clock import MonotonicClock
from erg_server.errors import ErgError, NotFoundError, ResourceExhaustedError, UnavailableError
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext
from erg_server.transports.grpcio.server import GrpcioTransport

from tests.contract.transports import (
    MAX_MESSAGE_BYTES,
    TRANSPORTS,
    TransportFactory,
    create,
    echo,
    refused,
    running,
    stream,
    unary,
)

ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ErgError)]
UTF8_MESSAGE = "naïve “模型” 🙂 100% of\nlines\tand \\"
ENDLESS = 3600


@pytest.fixture(params=list(TRANSPORTS.values()), ids=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> TransportFactory:
    factory: TransportFactory = request.param
    return factory


def message(**fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(**fields)


async def test_a_unary_call_is_answered(transport: TransportFactory) -> None:
    async with running(transport, unary(echo)) as (_, client):
        answer = await client.call(message(model_name="m", id="1", raw_input_contents=[b"\0\xff"]))
        assert (answer.model_name, answer.id, list(answer.raw_output_contents)) == ("m", "1", [b"\0\xff"])
        assert await client.call(b"") == pb.ModelInferResponse()


async def test_every_typed_error_becomes_its_status_and_message(transport: TransportFactory) -> None:
    async def fail(request: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
        raise next(kind for kind in ERRORS if kind.__name__ == request.id)(UTF8_MESSAGE)

    async with running(transport, unary(fail)) as (_, client):
        for kind in ERRORS:
            code, details = await refused(client.call(message(id=kind.__name__)))
            assert (code.value[0], details) == (kind.code, UTF8_MESSAGE)


async def test_an_errors_trailers_reach_the_caller(transport: TransportFactory) -> None:
    error = ResourceExhaustedError("busy", trailers=(("grpc-retry-pushback-ms", "12"),))

    async def fail(_: object, __: CallContext) -> pb.ModelInferResponse:
        raise error

    async def fail_late(_: object, __: CallContext) -> AsyncIterator[pb.ModelInferResponse]:
        yield pb.ModelInferResponse()
        raise error

    async with running(transport, unary(fail), stream(fail_late)) as (_, client):
        calls = [client.call(message())]
        streamed = client.stream()
        assert await streamed.read() == pb.ModelInferResponse()
        for call in (*calls, streamed.read()):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            trailers: list[Any] = list(raised.value.trailing_metadata())
            assert ("grpc-retry-pushback-ms", "12") in trailers


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_an_answers_trailers_reach_the_caller_with_it(
    transport: TransportFactory, compression: grpc.Compression
) -> None:
    async def priced(request: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        if request.id:
            context.trailers = (("erg-queue-us", "12"), ("erg-usd", "1e-06"))
        return pb.ModelInferResponse(id=request.id, raw_output_contents=[bytes(4096)])

    async with running(transport, unary(priced)) as (_, client):
        for asked in ("yes", "", "again"):
            call = client.call(message(id=asked), compression=compression)
            assert (await call).id == asked
            assert await call.code() is grpc.StatusCode.OK
            trailers: list[Any] = list(await call.trailing_metadata() or ())
            assert [pair for pair in trailers if pair[0].startswith("erg-")] == (
                [("erg-queue-us", "12"), ("erg-usd", "1e-06")] if asked else []
            )


@pytest.mark.parametrize("text", ["x" * 100_000, "%" * 100_000, "🙂" * 50_000, "bad \udcff byte", ""])
async def test_a_message_of_any_length_arrives_as_far_as_a_status_can_carry_it(
    transport: TransportFactory, text: str
) -> None:
    async def fail(_: object, __: CallContext) -> pb.ModelInferResponse:
        raise NotFoundError(text)

    async with running(transport, unary(fail)) as (_, client):
        code, details = await refused(client.call(message()))
        assert code is grpc.StatusCode.NOT_FOUND
        assert details.startswith(text[:4])
        assert len(details) <= errors.MAX_MESSAGE_BYTES + 1


async def test_an_unforeseen_error_is_internal_and_tells_nothing(
    transport: TransportFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object, __: CallContext) -> pb.ModelInferResponse:
        raise RuntimeError("/secret/path")

    async def fail_late(_: object, __: CallContext) -> AsyncIterator[pb.ModelInferResponse]:
        yield pb.ModelInferResponse()
        raise RuntimeError("/secret/path")

    async with running(transport, unary(fail), stream(fail_late)) as (_, client):
        code, details = await refused(client.call(message()))
        assert (code, "secret" in details) == (grpc.StatusCode.INTERNAL, False)
        call = client.stream()
        assert await call.read() == pb.ModelInferResponse()
        code, details = await refused(call.read())
        assert (code, "secret" in details) == (grpc.StatusCode.INTERNAL, False)


async def test_unknown_methods_are_unimplemented(transport: TransportFactory) -> None:
    async with running(transport, unary(echo)) as (_, client):
        for path in ("/test.Service/Other", "/other.Service/Call", "/", "/test.Service/Call/", "/test.service/call"):
            code, _details = await refused(client.call(message(), path))
            assert code is grpc.StatusCode.UNIMPLEMENTED, path
        assert await client.call(message(id="still here"))


async def test_bytes_that_are_no_message_are_an_invalid_argument(transport: TransportFactory) -> None:
    async def each(requests: AsyncIterator[Any], _: CallContext) -> AsyncIterator[pb.ModelInferResponse]:
        async for request in requests:
            yield await echo(request, _)

    async with running(transport, unary(echo), stream(each)) as (_, client):
        code, details = await refused(client.call(b"\xff\xff"))
        assert (code, "ModelInferRequest" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        call = client.stream()
        await call.write(message(id="good"))
        assert (await call.read()).id == "good"
        await call.write(b"\xff\xff")
        code, _details = await refused(call.read())
        assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_handler_learns_the_callers_deadline(transport: TransportFactory) -> None:
    contexts: list[CallContext] = []

    async def note(_: object, context: CallContext) -> pb.ModelInferResponse:
        contexts.append(context)
        return pb.ModelInferResponse()

    async with running(transport, unary(note)) as (_, client):
        before_ns = MonotonicClock.now_ns()
        await client.call(message(), timeout=ENDLESS)
        await client.call(message())
        after_ns = MonotonicClock.now_ns()
    stated, without = contexts
    assert before_ns <= stated.arrival_ns <= without.arrival_ns <= after_ns
    assert stated.deadline_ns is not None
    # A client may round what it states, by 1 % or so.
    assert before_ns + ENDLESS * 0.9e9 < stated.deadline_ns <= after_ns + ENDLESS * 1.1e9
    assert without.deadline_ns is None


@pytest.mark.parametrize("gone", ["deadline", "cancel"])
async def test_a_caller_that_is_gone_cancels_the_handler(transport: TransportFactory, gone: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_: object, __: CallContext) -> pb.ModelInferResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with running(transport, unary(wait), unary(echo, "/test.Service/Echo")) as (_, client):
        call = client.call(message(), timeout=0.2 if gone == "deadline" else None)
        await started.wait()
        if gone == "cancel":
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            code, _details = await refused(call)
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await cancelled.wait()
        assert await client.call(message(), "/test.Service/Echo") == pb.ModelInferResponse()


async def test_a_stream_answers_while_it_is_still_sent(transport: TransportFactory) -> None:
    async def twice(requests: AsyncIterator[Any], _: CallContext) -> AsyncIterator[pb.ModelInferResponse]:
        async for request in requests:
            for part in "ab":
                yield pb.ModelInferResponse(id=request.id + part)

    async with running(transport, stream(twice)) as (_, client):
        call = client.stream()
        for number in range(50):
            await call.write(message(id=str(number)))
            assert [(await call.read()).id for _ in range(2)] == [f"{number}a", f"{number}b"]
        await call.done_writing()
        assert await call.rest() == []
        assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_may_be_asked_once_and_answered_often_and_fail_at_its_end(transport: TransportFactory) -> None:
    async def count(requests: AsyncIterator[Any], _: CallContext) -> AsyncIterator[pb.ModelInferResponse]:
        request = await anext(requests)
        for number in range(3):
            yield pb.ModelInferResponse(id=f"{request.id}{number}")
        raise UnavailableError("no more")

    async with running(transport, stream(count, client_streaming=False)) as (_, client):
        call = client.watch(message(id="x"), "/test.Service/Stream")
        assert [(await call.read()).id for _ in range(3)] == ["x0", "x1", "x2"]
        assert await refused(call.read()) == (grpc.StatusCode.UNAVAILABLE, "no more")


async def test_a_stream_whose_caller_is_gone_is_closed(transport: TransportFactory) -> None:
    closed = asyncio.Event()

    async def endless(requests: AsyncIterator[Any], _: CallContext) -> AsyncIterator[pb.ModelInferResponse]:
        try:
            async for request in requests:
                yield await echo(request, _)
        finally:
            closed.set()

    async with running(transport, stream(endless)) as (_, client):
        call = client.stream()
        await call.write(message(id="1"))
        assert (await call.read()).id == "1"
        call.cancel()
        await closed.wait()


async def test_a_message_over_the_limit_is_refused_and_the_next_is_served(transport: TransportFactory) -> None:
    async def grow(request: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
        return pb.ModelInferResponse(raw_output_contents=[bytes(int(request.id))])

    async with running(transport, unary(grow)) as (_, client):
        fits = MAX_MESSAGE_BYTES - 1000
        answer = await client.call(message(id=str(fits), raw_input_contents=[bytes(fits)]))
        assert len(answer.raw_output_contents[0]) == fits
        code, _details = await refused(client.call(message(id="0", raw_input_contents=[bytes(MAX_MESSAGE_BYTES)])))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        code, _details = await refused(client.call(message(id=str(2 * MAX_MESSAGE_BYTES))))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await client.call(message(id="1"))


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_calls_are_answered_and_their_true_size_is_bounded(
    transport: TransportFactory, compression: grpc.Compression
) -> None:
    async with running(transport, unary(echo)) as (_, client):
        raw = bytes(100_000)
        answer = await client.call(message(raw_input_contents=[raw]), compression=compression)
        assert list(answer.raw_output_contents) == [raw]
        bomb = message(raw_input_contents=[bytes(4 * MAX_MESSAGE_BYTES)])
        code, _details = await refused(client.call(bomb, compression=compression))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_callers_own_metadata_reaches_the_handler(transport: TransportFactory) -> None:
    contexts: list[CallContext] = []

    async def note(request: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        contexts.append(context)
        return await echo(request, context)

    async with running(transport, unary(note)) as (_, client):
        metadata = (("key", "value"), ("key", "again"), ("raw-bin", b"\0\xff"), ("long", "x" * 4000))
        call = client.call(message(id="1"), metadata=metadata)
        assert (await call).id == "1"
        assert await call.code() is grpc.StatusCode.OK
    assert [pair for pair in contexts[0].metadata if pair in metadata] == list(metadata)


async def test_concurrent_calls_each_get_their_own_answer(transport: TransportFactory) -> None:
    waiting = 0
    all_there = asyncio.Event()

    async def wait(request: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
        nonlocal waiting
        waiting += 1
        if waiting == 64:
            all_there.set()
        await all_there.wait()
        return await echo(request, _)

    async with running(transport, unary(wait)) as (_, client):
        answers = await asyncio.gather(*(client.call(message(id=str(number))) for number in range(64)))
        assert [answer.id for answer in answers] == [str(number) for number in range(64)]


async def test_draining_answers_what_was_accepted_and_takes_nothing_new(transport: TransportFactory) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
        started.set()
        await go_on.wait()
        return await echo(request, _)

    async with running(transport, unary(wait), unary(echo, "/test.Service/Echo")) as (subject, client):
        accepted = asyncio.ensure_future(client.call(message(id="accepted")))
        await started.wait()
        draining = asyncio.create_task(subject.drain(ENDLESS))
        await asyncio.sleep(0)
        # It crosses the GOAWAY, or its client has read that and finds nobody who listens.
        crossing = client.call(message(id="crossing"), "/test.Service/Echo")
        try:
            assert (await crossing).id == "crossing"
        except grpc.aio.AioRpcError as error:
            # gRPC's C core cancels a call that crosses its own.
            lost = {grpc.StatusCode.CANCELLED} if isinstance(subject, GrpcioTransport) else set()
            assert error.code() in lost | {grpc.StatusCode.UNAVAILABLE}  # noqa: PT017 (an answer is as good)
        code, _details = await refused(client.call(message(), "/test.Service/Echo"))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert not draining.done()
        go_on.set()
        assert (await accepted).id == "accepted"
        await draining


async def test_an_address_that_is_taken_is_told_with_the_way_out(transport: TransportFactory) -> None:
    async with running(transport, unary(echo)) as (subject, _):
        host, port = subject.addresses[0].rsplit(":", 1)
        second = create(transport, unary(echo), port=int(port))
        with pytest.raises(UnavailableError, match=rf"{host}:{port}.*--grpc-address and --grpc-port"):
            await second.start()
        await second.stop()
