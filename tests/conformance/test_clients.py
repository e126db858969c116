"""One table of calls, by clients of different makes, to both transports: each as it must be, and both the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance import cpp_client, grpc_js, grpcio_client
from tests.conformance.cases import CASES, Result
from tests.conformance.endpoints import KINDS, Endpoint, Endpoints

pytestmark = pytest.mark.e2e
CLIENTS: dict[str, Callable[..., dict[str, Result]]] = {
    "grpcio": grpcio_client.run,
    "grpc-js": grpc_js.run,
    "grpc++": cpp_client.run,
}
Runs = Callable[[tuple[str, bool], bool], dict[str, Result]]
PLAIN_AND_TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
HOW = pytest.mark.parametrize("together", [False, True], ids=["in turn", "at once"])


@pytest.fixture(scope="module", params=list(CLIENTS))
def runs(request: pytest.FixtureRequest, endpoints: Endpoints) -> Runs:
    """What a client saw of every case, asked once for each server."""
    seen: dict[tuple[tuple[str, bool], bool], dict[str, Result]] = {}
    calls = {name: case.call for name, case in CASES.items()}

    def run(kind: tuple[str, bool], together: bool) -> dict[str, Result]:
        if (kind, together) not in seen:
            seen[kind, together] = CLIENTS[request.param](endpoints[kind], calls, together=together)
        return seen[kind, together]

    return run


@HOW
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}-{'tls' if kind[1] else 'plain'}")
def test_every_call_has_the_outcome_that_it_must(runs: Runs, kind: tuple[str, bool], together: bool) -> None:
    results = runs(kind, together)
    assert list(results) == list(CASES)
    for name, case in CASES.items():
        try:
            case.check(results[name])
        except AssertionError as error:
            error.add_note(name)
            raise


@HOW
@PLAIN_AND_TLS
def test_both_transports_answer_the_same(runs: Runs, tls: bool, together: bool) -> None:
    ours, theirs = runs(("erg", tls), together), runs(("grpcio", tls), together)
    for name, case in CASES.items():
        assert case.meaning(ours[name]) == case.meaning(theirs[name]), name


def test_a_javascript_client_of_the_projects_protos_is_served_by_both(endpoint: Endpoint) -> None:
    file, service = "erg_server/pb/inference.proto", "inference.GRPCInferenceService"
    tensor = {"name": "INPUT0", "datatype": "INT64", "shape": ["1", "2"], "contents": {"int64_contents": ["7", "-8"]}}

    def loaded(name: str, method: str, request: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "file": file, "service": service, "method": method, "request": request}

    calls = [
        loaded("infer", "ModelInfer", {"model_name": "typed", "id": "js", "inputs": [tensor]}),
        loaded("ready", "ModelReady", {"name": "mlp"}),
        loaded("gone", "ModelInfer", {"model_name": "gone"}),
    ]
    infer, ready, gone = grpc_js.start(endpoint, {}, loaded=calls)
    raw = (7).to_bytes(8, "little") + (-8).to_bytes(8, "little", signed=True)
    assert infer["answer"]["raw_output_contents"] == [raw.hex()]
    assert (infer["answer"]["id"], infer["answer"]["outputs"][0]["shape"]) == ("js", ["1", "2"])
    assert ready["answer"] == {"ready": True}
    assert (gone["code"], gone["details"]) == (5, "no model is called 'gone'")
