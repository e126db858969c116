"""Many streams of one connection, cut, mixed and held by windows of 0 and 1: both transports keep them apart."""

from __future__ import annotations

import socket
import ssl
from itertools import cycle, islice

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.conformance.cases import HEALTH, SERVICE, SERVING, infer, inferred, streamed
from tests.conformance.endpoints import KINDS, Endpoint
from tests.conformance.http2_client import Http2Client, message, request_fields

pytestmark = pytest.mark.e2e
STREAM, WATCH = f"{SERVICE}/ModelStreamInfer", f"{HEALTH}/Watch"
MAX_WINDOW = (1 << 31) - 1


def raw_of(place: int) -> bytes:
    return b"stream %d " % place * (place + 1)


def open_all(client: Http2Client, count: int) -> list[int]:
    return [client.open(request_fields()) for _ in range(count)]


def due(place: int) -> bytes:
    return message(inferred(raw_of(place)))


def test_requests_interleaved_byte_by_byte_each_get_their_own_answer(endpoint: Endpoint) -> None:
    with Http2Client(endpoint) as client:
        numbers = open_all(client, 6)
        left = {number: message(infer(raw_of(place))) for place, number in enumerate(numbers)}
        while left:
            for number in list(left):
                body = left.pop(number)
                client.send(number, body[:1], end=len(body) == 1)
                if len(body) > 1:
                    left[number] = body[1:]
        for place, number in enumerate(numbers):
            answer = client.wait(number)
            assert (answer.body, answer.status) == (due(place), 0)


@pytest.mark.parametrize("window", [0, 1])
def test_windows_of_nearly_nothing_hold_each_stream_to_what_it_was_granted(endpoint: Endpoint, window: int) -> None:
    with Http2Client(endpoint, settings={SettingCodes.INITIAL_WINDOW_SIZE: window}, returns_credit=False) as client:
        numbers = open_all(client, 4)
        for place, number in enumerate(numbers):
            client.send(number, message(infer(raw_of(place))))
        while not all(client.answers[number].headers for number in numbers):
            client.receive()
        granted = dict.fromkeys(numbers, window)
        # In turns, the later ones more often, and each a byte at a time.
        turns = cycle(number for place, number in enumerate(numbers) for _ in range(place + 1))
        for number in islice(turns, 60):
            while len(client.answers[number].body) < granted[number]:
                client.receive()
            assert len(client.answers[number].body) == granted[number]
            client.grant(1, number)
            granted[number] += 1
        client.settle()
        for place, number in enumerate(numbers):
            answer = client.answers[number]
            assert not answer.done
            assert answer.body == due(place)[: len(answer.body)]
            assert len(answer.body) <= granted[number]
            client.grant(1000, number)
        for place, number in enumerate(numbers):
            answer = client.wait(number)
            assert (answer.body, answer.status, answer.ended_by) == (due(place), 0, "trailers")


def test_the_connections_window_holds_all_streams_together(endpoint: Endpoint) -> None:
    raw = bytes(range(256)) * 160
    with Http2Client(endpoint, settings={SettingCodes.INITIAL_WINDOW_SIZE: MAX_WINDOW}, returns_credit=False) as client:
        numbers = open_all(client, 3)
        for number in numbers:
            client.send(number, message(infer(raw)))

        def received() -> int:
            return sum(len(client.answers[number].body) for number in numbers)

        for most in (65_535, 65_536, 65_537):
            while received() < most:
                client.receive()
            client.settle()
            assert received() == most
            client.grant(1)
        client.grant(1 << 20)
        for number in numbers:
            answer = client.wait(number)
            assert (answer.body, answer.status) == (message(inferred(raw)), 0)


def test_a_stream_that_is_reset_leaves_its_neighbours_alone(endpoint: Endpoint) -> None:
    with Http2Client(endpoint) as client:
        watches = [client.open(request_fields(WATCH)) for _ in range(3)]
        for number in watches:
            client.send(number, message(b""))
        while not all(client.answers[number].body == message(SERVING) for number in watches):
            client.receive()
        half = client.open(request_fields())
        client.send(half, message(infer(b"half"))[:9], end=False)
        for number in (watches[1], half):
            client.connection.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        answer = client.call(request_fields(), message(infer(b"next")))
        assert (answer.body, answer.status) == (message(inferred(b"next")), 0)
        client.settle()
        assert not client.answers[watches[0]].done
        assert not client.answers[watches[2]].done
        assert client.ended is None


def test_a_stream_is_answered_before_its_request_has_ended(endpoint: Endpoint) -> None:
    with Http2Client(endpoint) as client:
        number = client.open(request_fields(STREAM))
        one = message(streamed(inferred(b"again")))
        for count in range(1, 4):
            client.send(number, message(infer(b"again")), end=False)
            while len(client.answers[number].body) < len(one) * count:
                client.receive()
        assert not client.answers[number].done
        client.send(number, b"")
        answer = client.wait(number)
        assert (answer.status, answer.ended_by, answer.body) == (0, "trailers", one * 3)


@pytest.mark.parametrize("endpoint", [kind for kind in KINDS if kind[1]], indirect=True, ids=lambda kind: kind[0])
@pytest.mark.parametrize("offered", [["http/1.1"], []], ids=["http/1.1", "nothing"])
def test_tls_without_http2_in_its_handshake_is_not_served(endpoint: Endpoint, offered: list[str]) -> None:
    context = ssl.create_default_context(cafile=str(endpoint.root_certificate))
    if offered:
        context.set_alpn_protocols(offered)
    host, port = endpoint.address.rsplit(":", 1)
    heard = b""
    try:
        with (
            socket.create_connection((host, int(port)), 60) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            while part := secured.recv(1 << 16):
                heard += part
    except OSError:
        pass
    assert heard == b""
