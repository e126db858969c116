"""The same request bytes to both transports: the answers' bytes are the same where gRPC fixes them."""

from __future__ import annotations

import gzip
import itertools

import pytest

from tests.conformance.cases import HEALTH, ODD_NAME, SERVICE, SERVING, TEXT, infer, inferred
from tests.conformance.endpoints import Endpoint
from tests.conformance.http2_client import INFER, Answer, Fields, Http2Client, message, request_fields

pytestmark = pytest.mark.e2e
STREAM, WATCH = f"{SERVICE}/ModelStreamInfer", f"{HEALTH}/Watch"
GOOD = message(infer(b"abc"))
JUNK = message(b"\xff\xff")
PACKED = message(gzip.compress(infer(TEXT)), compressed=True)
GZIP = ("grpc-encoding", "gzip")
TAKES_GZIP = ("grpc-accept-encoding", "gzip")
Sent = tuple[Fields, bytes]

# Everything that gRPC fixes is compared: the status line, the message's bytes, which block has the status, its code and
# its message's encoding.
SAME: dict[str, Sent] = {
    "a call": (request_fields(), GOOD),
    "a content-type with a format": (request_fields(INFER, ("content-type", "application/grpc+proto")), GOOD),
    "a content-type with a parameter": (request_fields(INFER, ("content-type", "application/grpc;x=1")), GOOD),
    "a deadline in hours": (request_fields(INFER, ("grpc-timeout", "99999999H")), GOOD),
    "plain under an encoding": (request_fields(INFER, GZIP), GOOD),
    "packed, and plain is wanted": (request_fields(INFER, GZIP), PACKED),
    "packed, and packed is taken": (request_fields(INFER, GZIP, TAKES_GZIP), PACKED),
    "a reserved header nobody knows": (request_fields(INFER, ("grpc-new", "1")), GOOD),
    "metadata twice, and binary": (
        request_fields(INFER, ("k", "a"), ("k", "b"), ("r-bin", "AP8"), ("e-bin", "")),
        GOOD,
    ),
    "no such model": (request_fields(), message(infer(b"", model="gone"))),
    "an error in any script": (request_fields(), message(infer(b"", model=ODD_NAME))),
    "bytes that are no message": (request_fields(), JUNK),
    "a stream": (request_fields(STREAM), GOOD * 3),
    "a stream that breaks at once": (request_fields(STREAM), JUNK),
    "a stream that breaks later": (request_fields(STREAM), GOOD + JUNK),
}
# Code, messages and their form are compared; the words are each transport's own.
SAME_BUT_WORDS: dict[str, Sent] = {
    "no such method": (request_fields(f"{SERVICE}/Nothing"), GOOD),
    "no such service": (request_fields("/a.B/C"), GOOD),
    "a path that is none": (request_fields("inference"), GOOD),
    "a path with a query": (request_fields(f"{INFER}?x=1"), GOOD),
    "a deadline that is none": (request_fields(INFER, ("grpc-timeout", "soon")), GOOD),
    "a deadline that has passed": (request_fields(INFER, ("grpc-timeout", "0S")), GOOD),
    "a deadline that passes": (request_fields(INFER, ("grpc-timeout", "50m")), message(infer(b"", model="slow"))),
    "packed and not announced": (request_fields(), PACKED),
    "packed under identity": (request_fields(INFER, ("grpc-encoding", "identity")), PACKED),
    "not what the encoding says": (request_fields(INFER, GZIP), message(b"junk", compressed=True)),
    "over the limit by its prefix": (request_fields(), b"\0\0\xff\xff\xff" + bytes(100)),
    "binary metadata that is not": (request_fields(INFER, ("r-bin", "!!")), GOOD),
}
# What Erg does where grpcio does otherwise, and why that is right: HTTP status, gRPC status, messages, or a reset.
OURS: dict[str, tuple[Sent, int | None, int | None, bytes, int | None]] = {
    # The specification has UNIMPLEMENTED and the list of what is taken; grpcio calls the header unreadable.
    "an encoding nobody knows": ((request_fields(INFER, ("grpc-encoding", "br")), GOOD), 200, 12, b"", None),
    # HTTP's own codes, as the specification has for 415; grpcio serves the second and resets the first as a fault of
    # its own.
    "another method": ((request_fields(INFER, (":method", "GET")), GOOD), 405, 13, b"", None),
    "another content-type": ((request_fields(INFER, ("content-type", "text/html")), GOOD), 415, 13, b"", None),
    # `te` is there to find proxies that drop it, and a proxy that does so harms nobody here; grpcio resets.
    "no te": ((request_fields(INFER, without="te"), GOOD), 200, 0, inferred(b"abc"), None),
    # HTTP/2 has it optional; grpcio resets.
    "no authority": ((request_fields(INFER, without=":authority"), GOOD), 200, 0, inferred(b"abc"), None),
    # Malformed in HTTP/2 (RFC 9113, 8.2 and 8.3): reset with PROTOCOL_ERROR. grpcio answers or serves some of them.
    "another te": ((request_fields(INFER, ("te", "gzip")), GOOD), None, None, b"", 1),
    "no scheme": ((request_fields(INFER, without=":scheme"), GOOD), None, None, b"", 1),
    "no path": ((request_fields(INFER, without=":path"), GOOD), None, None, b"", 1),
    "a name in capitals": ((request_fields(INFER, ("X-Key", "a")), GOOD), None, None, b"", 1),
    "a header of HTTP/1": ((request_fields(INFER, ("connection", "close")), GOOD), None, None, b"", 1),
    # The specification has values joined by commas; grpcio takes them for one.
    "binary metadata joined": ((request_fields(INFER, ("r-bin", "AP8=,AQ")), GOOD), 200, 0, inferred(b"abc"), None),
    # grpcio waits for what never comes, or takes what it has.
    "no message": ((request_fields(), b""), 200, 13, b"", None),
    "half a message": ((request_fields(), GOOD[:-1]), 200, 13, b"", None),
    "half a prefix": ((request_fields(), GOOD[:3]), 200, 13, b"", None),
    "two messages": ((request_fields(), GOOD * 2), 200, 12, b"", None),
    "a message and a half": ((request_fields(), GOOD + GOOD[:7]), 200, 13, b"", None),
    "a watch of nothing": ((request_fields(WATCH), b""), 200, 13, b"", None),
    "a watch of two": ((request_fields(WATCH), message(b"") * 2), 200, 12, b"", None),
    "half a message in a stream": ((request_fields(STREAM), GOOD[:-1]), 200, 13, b"", None),
    # 0 and 1 are all that the prefix's first byte may be; grpcio reads another number as plain.
    "a flag that is none": ((request_fields(), b"\2" + GOOD[1:]), 200, 13, b"", None),
}


def ask(endpoint: Endpoint, sent: Sent) -> Answer:
    """Over a connection of its own, and with the scheme of it."""
    fields, body = sent
    with Http2Client(endpoint) as client:
        return client.call([(name, endpoint.scheme if value == "http" else value) for name, value in fields], body)


def unpacked(answer: Answer) -> bytes:
    """The messages of an answer, whether they were compressed or not; each as it may be by its headers."""
    headers, body, plain = dict(answer.headers), answer.body, b""
    while body:
        flag, size = body[0], int.from_bytes(body[1:5], "big")
        raw, body = body[5 : 5 + size], body[5 + size :]
        assert len(raw) == size
        if flag:
            assert headers["grpc-encoding"] == "gzip"
            raw = gzip.decompress(raw)
        plain += message(raw)
    return plain


def fixed(answer: Answer, *, words: bool) -> dict[str, object]:
    """What gRPC fixes of an answer."""
    headers, last = dict(answer.headers), answer.last
    # Optional: which encodings a server takes, and a message that is empty.
    own = {name for name, _ in answer.headers + answer.trailers} - {"grpc-accept-encoding", "grpc-message"}
    return {
        ":status": headers[":status"],
        "content-type": headers["content-type"],
        "names": own - {"grpc-encoding"},
        "messages": unpacked(answer),
        "code": last["grpc-status"],
        "details": last.get("grpc-message", "") if words else bool(last.get("grpc-message", "")),
        "the block that ends it": answer.ended_by,
        "reset": answer.reset,
    }


@pytest.mark.parametrize("name", [*SAME, *SAME_BUT_WORDS])
def test_equal_requests_have_equal_answers(pair: tuple[Endpoint, Endpoint], name: str) -> None:
    sent = SAME.get(name) or SAME_BUT_WORDS[name]
    ours, theirs = (ask(endpoint, sent) for endpoint in pair)
    assert fixed(ours, words=name in SAME) == fixed(theirs, words=name in SAME)
    # The status is last: in trailers after a message, in the one block of an answer without any.
    assert ours.ended_by == ("trailers" if ours.body else "headers")
    # Answers are compressed for those alone who said that they take it.
    assert ("grpc-encoding" in dict(ours.headers)) == (TAKES_GZIP in sent[0])


def test_a_message_in_any_script_is_percent_encoded_utf8(endpoint: Endpoint) -> None:
    stated = ask(endpoint, SAME["an error in any script"]).last["grpc-message"]
    assert stated == (
        "no model is called 'na%C3%AFve %E2%80%9C%E6%A8%A1%E5%9E%8B%E2%80%9D %F0%9F%99%82 100%25 of%0Alines%09~ %7F'"
    )


def test_an_empty_stream_ends_well_in_both_forms(pair: tuple[Endpoint, Endpoint]) -> None:
    """grpcio says it in one block, Erg in headers and trailers; gRPC has both for a stream without messages."""
    for endpoint in pair:
        answer = ask(endpoint, (request_fields(STREAM), b""))
        assert (answer.body, answer.status, dict(answer.headers)[":status"]) == (b"", 0, "200")


def test_a_deadline_of_a_stream_comes_after_its_answers(pair: tuple[Endpoint, Endpoint]) -> None:
    for endpoint in pair:
        answer = ask(endpoint, (request_fields(WATCH, ("grpc-timeout", "200m")), message(b"")))
        # A busy machine may not have come to the first answer by then.
        assert (answer.body, answer.ended_by) in {(message(SERVING), "trailers"), (b"", "headers")}
        assert answer.status == 4


@pytest.mark.parametrize("name", OURS)
def test_where_the_transports_differ_erg_follows_the_specifications(pair: tuple[Endpoint, Endpoint], name: str) -> None:
    sent, http_status, code, raw, reset = OURS[name]
    answer = ask(pair[0], sent)
    assert dict(answer.headers).get(":status") == (None if http_status is None else str(http_status))
    assert (answer.status, answer.body, answer.reset) == (code, message(raw) if raw else b"", reset)
    assert ("grpc-accept-encoding" in answer.last) == (name == "an encoding nobody knows")


def test_a_request_in_frames_of_one_byte_is_the_same_request(pair: tuple[Endpoint, Endpoint]) -> None:
    answers = []
    for endpoint in pair:
        with Http2Client(endpoint) as client:
            whole = client.call(request_fields(), GOOD)
            answers += [whole, client.call(request_fields(), GOOD, sizes=itertools.repeat(1))]
    assert {answer.body for answer in answers} == {message(inferred(b"abc"))}
    assert {answer.status for answer in answers} == {0}
