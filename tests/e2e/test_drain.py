"""What a server process does between SIGTERM and its end, while callers have not heard of it yet."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from erg_server.pb import health_pb2
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, write_identity
from tests.e2e.test_lifecycle import fp32, until

pytestmark = pytest.mark.e2e
X = np.ones((1, 1), np.float32)
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(params=["erg", "grpcio"])
def leaving_late(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that takes requests for an hour after it is told to stop."""
    write_identity(tmp_path, "m", datatype="TYPE_FP32", dims="1")
    flags = ["--model-repository", str(tmp_path), "--cpu-workers", "1", "--drain-delay-secs", "3600"]
    with ServerProcess(*flags, "--grpc-transport", request.param) as server:
        yield server


def infer(client: triton.InferenceServerClient) -> float:
    return float(client.infer("m", [fp32(X, "INPUT0")]).as_numpy("OUTPUT0")[0, 0])


def test_after_sigterm_health_is_off_at_once_and_requests_are_taken_until_a_second_one(
    leaving_late: ServerProcess,
) -> None:
    server = leaving_late
    with (
        grpc.insecure_channel(server.grpc_address) as channel,
        triton.InferenceServerClient(server.grpc_address) as old,
    ):
        kinds: dict[str, Any] = {
            "request_serializer": health_pb2.HealthCheckRequest.SerializeToString,
            "response_deserializer": health_pb2.HealthCheckResponse.FromString,
        }
        watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch", **kinds)(health_pb2.HealthCheckRequest())
        check = channel.unary_unary("/grpc.health.v1.Health/Check", **kinds)
        assert next(watch).status == SERVING
        assert infer(old) == 1
        assert server.http("/readyz?model=m") == (200, "ready\n")
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert check(health_pb2.HealthCheckRequest()).status == NOT_SERVING
        assert check(health_pb2.HealthCheckRequest(service="m")).status == NOT_SERVING
        assert server.http("/readyz") == server.http("/readyz?model=m") == (503, "not ready: told to stop\n")
        assert server.http("/livez")[0] == 200
        assert not old.is_server_ready()
        assert infer(old) == 1
        with triton.InferenceServerClient(server.grpc_address) as new:
            assert infer(new) == 1
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert list(watch) == []
    assert server.process.wait(20) == 0
    assert "requests are still taken for 3600 s" in "".join(server.log)


def test_the_delay_ends_by_itself(tmp_path: Path) -> None:
    write_identity(tmp_path, "m", datatype="TYPE_FP32", dims="1")
    flags = ["--model-repository", str(tmp_path), "--cpu-workers", "1", "--drain-delay-secs", "0.5"]
    with ServerProcess(*flags) as server, triton.InferenceServerClient(server.grpc_address) as client:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.process.poll() == 0)
        with pytest.raises(InferenceServerException):
            infer(client)


def test_readiness_is_told_by_model(tmp_path: Path) -> None:
    write_identity(tmp_path, "m", datatype="TYPE_FP32", dims="1")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "config.pbtxt").write_text("nonsense")
    flags = ["--model-repository", str(tmp_path), "--cpu-workers", "1", "--no-strict-readiness"]
    with ServerProcess(*flags) as server:
        assert server.http("/readyz?model=m") == (200, "ready\n")
        status, reason = server.http("/readyz?model=m&model=broken")
        assert status == 503
        assert "model 'broken' does not serve" in reason
        assert server.http("/readyz?model=gone") == (503, "not ready\nno model is called 'gone'\n")
        assert server.http("/readyz?models=m")[0] == 400
