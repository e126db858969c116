"""A Go client that learns everything by reflection: both transports list, describe, answer and refuse alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.cases import ODD_NAME
from tests.conformance.endpoints import Endpoint
from tests.conformance.grpcurl import grpcurl

pytestmark = pytest.mark.e2e
PROTOS = Path(__file__).parents[2] / "protos"
INFERENCE = "inference.GRPCInferenceService"
FAILED = 64
TENSOR = {"name": "INPUT0", "datatype": "INT64", "shape": [1, 2], "contents": {"int64_contents": [7, -8]}}
TYPED = {"model_name": "typed", "id": "go", "inputs": [TENSOR]}


def ask(endpoint: Endpoint, *arguments: str, method: str = "", request: object = None) -> tuple[int, str, str]:
    """Run it against an endpoint; the request is read from its input, as many as are there."""
    trust = ("-plaintext",) if endpoint.root_certificate is None else ("-cacert", str(endpoint.root_certificate))
    data = ("-d", "@") if request is not None else ()
    requests = request if isinstance(request, list) else [request]
    stdin = "\n".join(map(json.dumps, requests)) if request is not None else ""
    verbs = [method] if method else []
    at = next((place for place, argument in enumerate(arguments) if argument in {"list", "describe"}), len(arguments))
    return grpcurl(*trust, *data, *arguments[:at], endpoint.address, *arguments[at:], *verbs, stdin=stdin)


def objects(printed: str) -> list[object]:
    """The JSON values that follow each other."""
    found, decoder = [], json.JSONDecoder()
    while printed := printed.strip():
        value, end = decoder.raw_decode(printed)
        found.append(value)
        printed = printed[end:]
    return found


def same(pair: tuple[Endpoint, Endpoint], *arguments: str, method: str = "", request: object = None):
    """What both transports had it print; they must agree."""
    ours, theirs = (ask(endpoint, *arguments, method=method, request=request) for endpoint in pair)
    assert ours == theirs
    return ours


def test_services_and_types_are_listed_and_described(pair: tuple[Endpoint, Endpoint]) -> None:
    status, listed, _ = same(pair, "list")
    assert (status, INFERENCE in listed.split(), "grpc.health.v1.Health" in listed.split()) == (0, True, True)
    status, methods, _ = same(pair, "list", INFERENCE)
    assert (status, len(methods.split())) == (0, 20)
    for symbol in (INFERENCE, "inference.ModelInferRequest.InferInputTensor", "grpc.health.v1.Health.Watch"):
        status, described, _ = same(pair, "describe", symbol)
        assert (status, symbol in described) == (0, True)
    status, _, complaint = same(pair, "describe", "inference.Gone")
    assert (status, "inference.Gone" in complaint) == (1, True)


def test_a_model_is_asked_in_json(pair: tuple[Endpoint, Endpoint]) -> None:
    status, printed, _ = same(pair, method=f"{INFERENCE}/ModelInfer", request=TYPED)
    (answer,) = objects(printed)
    assert status == 0
    assert answer == {
        "model_name": "typed",
        "model_version": "1",
        "id": "go",
        "outputs": [{"name": "OUTPUT0", "datatype": "INT64", "shape": ["1", "2"]}],
        "raw_output_contents": ["BwAAAAAAAAD4/////////w=="],
    }


def test_a_stream_is_asked_in_json_and_goes_on_after_an_error(pair: tuple[Endpoint, Endpoint]) -> None:
    requests = [TYPED | {"id": "1"}, TYPED | {"id": "2", "model_name": "gone"}, TYPED | {"id": "3"}]
    seen = []
    for endpoint in pair:
        status, printed, _ = ask(endpoint, method=f"{INFERENCE}/ModelStreamInfer", request=requests)
        assert status == 0
        # Each comes as it is done, so in any order.
        seen.append(sorted(json.dumps(answer, sort_keys=True) for answer in objects(printed)))
    assert seen[0] == seen[1]
    assert [name in text for name, text in zip(("2", "1", "3"), seen[0], strict=True)] == [True] * 3
    assert "no model is called 'gone'" in seen[0][0]


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("ModelInfer", {"model_name": "gone"}, 5, "Code: NotFound\n  Message: no model is called 'gone'"),
        ("ModelInfer", {"model_name": ODD_NAME}, 5, f"no model is called '{ODD_NAME}'"),
        ("ModelInfer", {"model_name": "echo"}, 3, "Code: InvalidArgument"),
        ("SystemSharedMemoryRegister", {"name": "r"}, 9, "Code: FailedPrecondition"),
        ("CudaSharedMemoryRegister", {"name": "r"}, 12, "Code: Unimplemented"),
    ],
)
def test_errors_have_their_code_and_message(
    pair: tuple[Endpoint, Endpoint], method: str, request_: object, code: int, words: str
) -> None:
    status, printed, complaint = same(pair, method=f"{INFERENCE}/{method}", request=request_)
    assert (status, printed) == (FAILED + code, "")
    assert words in complaint


def test_a_method_that_the_server_does_not_have_is_unimplemented(
    pair: tuple[Endpoint, Endpoint], tmp_path: Path
) -> None:
    text = 'syntax = "proto3"; package a; message M {} service B { rpc C(M) returns (M); }'
    (tmp_path / "absent.proto").write_text(text)
    for endpoint in pair:
        files = ("-import-path", str(tmp_path), "-proto", "absent.proto")
        status, _, complaint = ask(endpoint, *files, method="a.B/C", request={})
        # The words are each transport's own.
        assert (status, "Code: Unimplemented" in complaint) == (FAILED + 12, True)


def test_metadata_is_taken_and_none_is_added(pair: tuple[Endpoint, Endpoint]) -> None:
    headers = ("-v", "-rpc-header", "key: value", "-rpc-header", "raw-bin: AP8=")
    for endpoint in pair:
        status, printed, _ = ask(endpoint, *headers, method=f"{INFERENCE}/ModelInfer", request=TYPED)
        received = printed.split("Response headers received:\n")[1].split("\n\n")[0].splitlines()
        # Which encodings a server takes is its own to say or not.
        assert [line for line in received if "accept-encoding" not in line] == ["content-type: application/grpc"]
        assert "Response trailers received:\n(empty)" in printed
        assert (status, "key: value" in printed) == (0, True)


def test_a_deadline_ends_a_watch(pair: tuple[Endpoint, Endpoint]) -> None:
    files = ("-import-path", str(PROTOS), "-proto", "erg_server/pb/health.proto")
    for endpoint in pair:
        status, printed, complaint = ask(
            endpoint, *files, "-max-time", "0.3", method="grpc.health.v1.Health/Watch", request={}
        )
        assert (status, "Code: DeadlineExceeded" in complaint) == (FAILED + 4, True)
        # A busy machine may not have come to the first answer by then.
        assert objects(printed) in ([{"status": "SERVING"}], [])


def test_health_is_told(pair: tuple[Endpoint, Endpoint]) -> None:
    status, printed, _ = same(pair, method="grpc.health.v1.Health/Check", request={"service": "mlp"})
    assert (status, objects(printed)) == (0, [{"status": "SERVING"}])
    status, _, complaint = same(pair, method="grpc.health.v1.Health/Check", request={"service": "x"})
    assert (status, "no service or model is called 'x'" in complaint) == (FAILED + 5, True)
