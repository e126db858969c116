"""The HTTP client finds the end of an answer however it arrives, and never takes one for another request's."""

import asyncio
import contextlib

import pytest
from bench.published.http_client import Answer, HttpClient, request_bytes, take_answer
from erg_loadtest.errors import ServerError
from erg_loadtest.samples import OK, STATUS_NAMES
from hypothesis import given
from hypothesis import strategies as st

ANSWER = b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 5\r\n\r\n"


@given(bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=4), cuts=st.lists(st.integers(1, 30)))
def test_answers_are_the_same_in_whatever_pieces_they_come(bodies, cuts):
    wire = b"".join(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body for body in bodies)
    received, found, at = bytearray(), [], 0
    for size in [*cuts, len(wire)]:
        received += wire[at : at + size]
        at += size
        while (answer := take_answer(received)) is not None:
            found.append(answer)
    assert found == [Answer(status=200, body=body) for body in bodies]
    assert not received


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_answer_with_a_length_is_refused(wire):
    with pytest.raises(ServerError):
        take_answer(bytearray(wire))


def test_a_request_states_its_length():
    assert request_bytes("/inference", "h:1", b"abc").endswith(b"Content-Length: 3\r\n\r\nabc")


async def _served(answer):
    """A server that answers every request's head by what `answer` makes of its number; closes on None."""
    count = 0

    async def handle(reader, writer):
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                reply = answer(count)
                count += 1
                if reply is None:
                    break
                writer.write(reply)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


async def _statuses(answer, calls):
    server = await _served(answer)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient("127.0.0.1", port, path="/", bodies=(b"",)) as client:
        send = client.sender()
        return [await send(0) for _ in range(calls)]


async def test_statuses_are_told_apart():
    replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 429 Full\r\nContent-Length: 0\r\n\r\n"]
    assert await _statuses(lambda number: replies[number], 2) == [OK, STATUS_NAMES.index("RESOURCE_EXHAUSTED")]


async def test_a_lost_connection_fails_its_request_and_the_next_gets_another():
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    found = await _statuses(lambda number: None if number == 0 else reply, 2)
    assert found == [STATUS_NAMES.index("UNAVAILABLE"), OK]


async def test_a_cancelled_request_s_answer_is_not_taken_for_the_next_one_s():
    arrived, late = asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(int(head.rsplit(b": ", 1)[1]))
                if body == b"slow":
                    arrived.set()
                    await late.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient("127.0.0.1", port, path="/", bodies=(b"slow", b"fast")) as client:
        slow = asyncio.create_task(client.ask(0))
        await arrived.wait()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        late.set()
        assert (await client.ask(1)).body == b"fast"
