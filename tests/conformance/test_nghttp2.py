"""nghttp2's tools, which know HTTP/2 and nothing of gRPC: every frame as they show it, and many streams at once."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest

from tests.conformance.cases import infer, inferred
from tests.conformance.endpoints import KINDS, Endpoint
from tests.conformance.http2_client import INFER, message

pytestmark = pytest.mark.e2e
RUN_S = 120
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
ANSWER = message(inferred(b"abc"))
SHOWN = re.compile(
    rb"^\[ *[\d.]+\] recv (?:\(stream_id=\d+\) (?P<field>.+)|(?P<kind>\w+) frame <length=(?P<length>\d+), "
    rb"flags=0x(?P<flags>\w+), stream_id=(?P<stream>\d+)>)$",
    re.MULTILINE,
)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(message(infer(b"abc")))
    return path


def run(program: str, endpoint: Endpoint, *arguments: str) -> bytes:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on PATH (Debian: nghttp2-client)")
    command = [program, *GRPC, *arguments, f"{endpoint.scheme}://{endpoint.address}{INFER}"]
    done = subprocess.run(command, capture_output=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(endpoint: Endpoint, *arguments: str) -> tuple[list[bytes], list[tuple[bytes, int, int]]]:
    """The header fields that came, and the frames of the call: type, length, flags."""
    printed = run("nghttp", endpoint, "--verbose", "--no-verify-peer", "--null-out", *arguments)
    if endpoint.root_certificate is not None:
        assert b"The negotiated protocol: h2\n" in printed
    found = list(SHOWN.finditer(printed))
    fields = [each["field"] for each in found if each["field"]]
    frames = [
        (each["kind"], int(each["length"]), int(each["flags"], 16))
        for each in found
        if each["kind"] and each["stream"] != b"0"
    ]
    return fields, frames


def test_an_answer_is_headers_a_message_and_trailers_that_end_the_stream(endpoint: Endpoint, body: Path) -> None:
    fields, frames = shown(endpoint, "--data", str(body))
    # Optional fields are a server's own: the encodings that it takes, and a message that is empty.
    fixed = [field for field in fields if not field.startswith((b"grpc-accept-encoding: ", b"grpc-message: "))]
    assert fixed == [b":status: 200", b"content-type: application/grpc", b"grpc-status: 0"]
    assert [(kind, flags) for kind, _, flags in frames] == [(b"HEADERS", 4), (b"DATA", 0), (b"HEADERS", 5)]
    assert frames[1][1] == len(ANSWER)


def test_an_error_is_one_block_that_ends_the_stream(endpoint: Endpoint, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(message(infer(b"", model="gone")))
    fields, frames = shown(endpoint, "--data", str(wrong))
    assert [kind for kind, _, _ in frames] == [b"HEADERS"]
    assert frames[0][2] == 5
    assert fields == [
        b":status: 200",
        b"content-type: application/grpc",
        b"grpc-status: 5",
        b"grpc-message: no model is called 'gone'",
    ]


# gRPC's core takes the padding of HEADERS for a part of its block, so that is Erg's alone.
@pytest.mark.parametrize(
    ("endpoint", "how"),
    [*product(KINDS, ["--window-bits=1", "--no-dep"]), *product([("erg", False), ("erg", True)], ["--padding=200"])],
    indirect=["endpoint"],
    ids=str,
)
def test_padding_windows_of_one_byte_and_priorities_change_nothing(endpoint: Endpoint, body: Path, how: str) -> None:
    fields, frames = shown(endpoint, how, "--data", str(body))
    assert b"grpc-status: 0" in fields
    sizes = [length for kind, length, _ in frames if kind == b"DATA" and length]
    assert sizes == ([1] * len(ANSWER) if how == "--window-bits=1" else [len(ANSWER)])
    assert (frames[-1][0], frames[-1][2]) == (b"HEADERS", 5)


@pytest.mark.parametrize("how", [(), ("--window-bits=4",)], ids=["wide windows", "windows of 15 bytes"])
def test_many_streams_of_many_connections_are_all_answered(
    endpoint: Endpoint, body: Path, how: tuple[str, ...]
) -> None:
    requests = 1000
    before = endpoint.process.metric("nv_inference_request_success", model="echo")
    printed = run("h2load", endpoint, "-n", str(requests), "-c", "8", "-m", "50", "-d", str(body), *how).decode()
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in printed
    assert f"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx" in printed
    # h2load reads no trailers: grpc-status is 0 where every answer has its message, and the server counts as many.
    assert f"({requests * len(ANSWER)}) data" in printed
    assert endpoint.process.metric("nv_inference_request_success", model="echo") - before == requests
    assert f"Application protocol: {'h2c' if endpoint.root_certificate is None else 'h2'}" in printed
