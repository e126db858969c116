"""A stream of inferences over a data plane that answers when the test says so, in messages and in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from erg_server.clock import ManualClock
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.errors import ErgError, InvalidArgumentError, ResourceExhaustedError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest, InferenceResponse
from erg_server.transports.base import CallContext
from erg_server.transports.infer_stream import (
    EMPTY_FINAL,
    FINAL,
    MAX_STREAM_REQUESTS,
    BytesCodec,
    InferStream,
    MessageCodec,
)
from erg_server.transports.infer_wire import RequestReader, ResponseWriter

from tests.server.transports.grpc.served import until

CONTEXT = CallContext(arrival_ns=1)


class FakePlane:
    """Keeps what is submitted until it is answered."""

    def __init__(self) -> None:
        self.clock = ManualClock(5)
        self.submitted: list[tuple[InferenceRequest, Callable[[InferenceResponse | ErgError], None]]] = []
        self.cancelled: list[str] = []
        self.refusal: Exception | None = None

    def submit(self, request: InferenceRequest, on_done: Any) -> Callable[[], None]:
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append((request, on_done))
        return lambda: self.cancelled.append(request.id)

    def answer(self, at: int) -> None:
        request, on_done = self.submitted[at]
        on_done(InferenceResponse(model_name="m", model_version="1", id=request.id, outputs=list(request.inputs)))


class Client:
    """The other end of a stream, whichever form its messages have."""

    def __init__(self, form: str) -> None:
        self.plane = FakePlane()
        self.draining = asyncio.Event()
        self.raw = form == "bytes"
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        regions = SharedMemory(allowed=False)
        codec: Any = BytesCodec(RequestReader(regions), ResponseWriter(regions)) if self.raw else MessageCodec(regions)
        self.stream: InferStream[Any, Any] = InferStream(self.plane, codec, draining=self.draining)  # type: ignore[arg-type]
        self.answers = self.stream.answer(self._messages(), CONTEXT)

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self._sent.get()) is not None:
            yield message

    def send(self, request_id: str, *, final: bool = False) -> None:
        message = pb.ModelInferRequest(model_name="m", id=request_id, raw_input_contents=[bytes(8)])
        message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        if final:
            message.parameters[EMPTY_FINAL].bool_param = True
        self._sent.put_nowait(message.SerializeToString() if self.raw else message)

    def send_nonsense(self) -> None:
        self._sent.put_nowait(b"\xff\xff\xff")

    def end(self) -> None:
        self._sent.put_nowait(None)

    async def read(self) -> pb.ModelStreamInferResponse:
        answer: pb.ModelStreamInferResponse | Sequence[bytes] = await anext(self.answers)
        return pb.ModelStreamInferResponse.FromString(b"".join(answer)) if self.raw else answer  # type: ignore[return-value, arg-type]


@pytest.fixture(params=["messages", "bytes"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


async def test_answers_come_as_they_are_done_with_their_tensors(client: Client) -> None:
    for name in ("a", "b"):
        client.send(name)
    reading = asyncio.ensure_future(client.read())
    await until(lambda: len(client.plane.submitted) == 2)
    client.plane.answer(1)
    client.plane.answer(0)
    client.end()
    first, second = await reading, await client.read()
    assert [first.infer_response.id, second.infer_response.id] == ["b", "a"]
    assert first.infer_response.raw_output_contents[0] == bytes(8)
    assert FINAL not in first.infer_response.parameters
    with pytest.raises(StopAsyncIteration):
        await client.read()


async def test_an_answer_and_an_error_are_marked_final_where_that_was_asked_for(client: Client) -> None:
    client.send("a", final=True)
    reading = asyncio.ensure_future(client.read())
    await until(lambda: client.plane.submitted)
    client.plane.answer(0)
    assert (await reading).infer_response.parameters[FINAL].bool_param
    client.plane.refusal = ResourceExhaustedError("full")
    client.send("b", final=True)
    answer = await client.read()
    assert (answer.error_message, answer.infer_response.id) == ("full", "b")
    assert answer.infer_response.parameters[FINAL].bool_param


async def test_no_more_requests_are_taken_than_may_be_unanswered(client: Client) -> None:
    for number in range(MAX_STREAM_REQUESTS + 1):
        client.send(str(number))
    reading = asyncio.ensure_future(client.read())
    submitted = client.plane.submitted
    await until(lambda: len(submitted) == MAX_STREAM_REQUESTS)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(submitted) == MAX_STREAM_REQUESTS
    client.plane.answer(7)
    await until(lambda: len(submitted) == MAX_STREAM_REQUESTS + 1)
    assert (await reading).infer_response.id == "7"


async def test_a_stream_that_is_left_cancels_what_is_under_way(client: Client) -> None:
    for name in ("a", "b"):
        client.send(name)
    reading = asyncio.ensure_future(client.read())
    await until(lambda: len(client.plane.submitted) == 2)
    client.plane.answer(0)
    await reading
    await client.answers.aclose()  # type: ignore[attr-defined]
    assert client.plane.cancelled == ["b"]


async def test_bytes_that_are_no_request_end_the_stream_after_what_was_accepted() -> None:
    client = Client("bytes")
    client.send("a")
    client.send_nonsense()
    client.send("never")
    reading = asyncio.ensure_future(client.read())
    await until(lambda: client.plane.submitted)
    client.plane.answer(0)
    assert (await reading).infer_response.id == "a"
    with pytest.raises(InvalidArgumentError, match=r"not a valid inference\.ModelInferRequest"):
        await client.read()
    assert len(client.plane.submitted) == 1


async def test_a_drained_stream_ends_when_its_requests_are_answered(client: Client) -> None:
    client.send("a")
    reading = asyncio.ensure_future(client.read())
    await until(lambda: client.plane.submitted)
    client.draining.set()
    client.plane.answer(0)
    assert (await reading).infer_response.id == "a"
    with pytest.raises(StopAsyncIteration):
        await client.read()


async def test_a_tensor_that_contradicts_its_shape_is_an_error_of_its_request_alone(client: Client) -> None:
    message = pb.ModelInferRequest(model_name="m", id="bad", raw_input_contents=[bytes(7)])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    client._sent.put_nowait(message.SerializeToString() if client.raw else message)
    answer = await client.read()
    assert answer.infer_response.id == "bad"
    assert "x" in answer.error_message
