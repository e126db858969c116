"""The gRPC client against grpcio's server: real HTTP/2 on the other side, flow control included."""

import asyncio

import grpc
import numpy as np
import pytest
from bench.published.grpc_client import LoadClient
from erg_loadtest.errors import ServerError
from erg_loadtest.samples import OK, STATUS_NAMES
from erg_server.pb import inference_pb2

from tests.loadtest.fake_server import SERVICE, running


def message(number, nbytes):
    request = inference_pb2.ModelInferRequest(model_name="echo", id=str(number))
    values = np.full(nbytes // 8, number, dtype=np.int64)
    request.inputs.add(name="ids", datatype="INT64", shape=[1, len(values)])
    request.raw_input_contents.append(values.tobytes())
    return request.SerializeToString()


def client(fake, messages, connections=2):
    return LoadClient(
        "127.0.0.1",
        fake.port,
        method=f"/{SERVICE}/ModelInfer",
        messages=messages,
        connections=connections,
        timeout_s=30,
    )


@pytest.mark.parametrize("nbytes", [0, 64, 65_536, 1_000_000])
async def test_every_answer_is_its_request_s_own(nbytes):
    # A megabyte is many times the window that a server opens with: without flow control it would end the connection.
    messages = tuple(message(number, nbytes) for number in range(12))
    async with running() as fake, client(fake, messages) as calls:
        answers = await asyncio.gather(*(calls.ask(number) for number in range(12)))
    for number, answer in enumerate(answers):
        response = inference_pb2.ModelInferResponse.FromString(answer)
        assert response.id == str(number)
        assert response.raw_output_contents[0] == np.full(nbytes // 8, number, dtype=np.int64).tobytes()


async def test_a_failure_has_the_server_s_status_and_words():
    async with running() as fake, client(fake, (message(0, 64),)) as calls:
        fake.failure = lambda _: grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await calls.sender()(0) == STATUS_NAMES.index("RESOURCE_EXHAUSTED")
        with pytest.raises(ServerError, match="RESOURCE_EXHAUSTED: as told"):
            await calls.ask(0)
        fake.failure = lambda _: None
        assert await calls.sender()(0) == OK


async def test_an_unknown_method_is_a_status_not_a_hang():
    async with running() as fake:
        calls = LoadClient(
            "127.0.0.1", fake.port, method=f"/{SERVICE}/Nothing", messages=(b"",), connections=1, timeout_s=30
        )
        async with calls:
            assert await calls.sender()(0) == STATUS_NAMES.index("UNIMPLEMENTED")


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 60_000])
async def test_a_server_that_hangs_up_or_speaks_something_else_fails_every_call(reply):
    async def handle(reader, writer):
        await reader.readexactly(24)
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    calls = LoadClient("127.0.0.1", port, method="/x/y", messages=(b"",), connections=1, timeout_s=30)
    async with server, calls:
        found = await asyncio.gather(*(asyncio.ensure_future(calls.sender()(0)) for _ in range(3)))
        assert found == [STATUS_NAMES.index("UNAVAILABLE")] * 3
        assert await calls.sender()(0) == STATUS_NAMES.index("UNAVAILABLE")


async def test_nobody_listening_is_an_error_that_says_so():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ServerError, match=r"refused|Connect"):
        await LoadClient("127.0.0.1", port, method="/x/y", messages=(b"",), connections=1, timeout_s=30).__aenter__()
