"""What a server process does when workers die, models change, queues fill and SIGTERM comes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, mlp_weights, write_identity, write_mlp

pytestmark = pytest.mark.e2e


def fp32(array: np.ndarray, name: str = "x") -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def until(condition, timeout_s: float = 30.0) -> None:
    """Wait for a condition of another process, which no event here can tell of."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.02)


def slow_identity(root: Path, delay_ms: int, name: str = "slow", batching: str = "", max_batch: int = 1) -> None:
    write_identity(
        root,
        name,
        datatype="TYPE_FP32",
        dims="1",
        batching=batching,
        extra=f'parameters {{ key: "execution_delay_ms" value {{ string_value: "{delay_ms}" }} }}',
    )


async def test_a_killed_worker_fails_only_what_it_held_and_comes_back(own_repository: Path) -> None:
    slow_identity(own_repository, 300)
    with ServerProcess("--model-repository", str(own_repository), "--cpu-workers", "2") as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            x = np.ones((1, 1), np.float32)
            tasks = [asyncio.create_task(client.infer("slow", [fp32(x, "INPUT0")])) for _ in range(6)]
            await asyncio.to_thread(until, lambda: server.metric("erg_worker_held_batches") >= 2)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            failed = [item for item in results if isinstance(item, InferenceServerException)]
            assert 1 <= len(failed) <= 2
            assert all(item.status() == "StatusCode.UNAVAILABLE" for item in failed)
            await asyncio.to_thread(until, lambda: len(server.workers()) == 2)
            await asyncio.to_thread(until, lambda: server.metric("erg_worker_restarts_total") == 1)
            result = await client.infer("slow", [fp32(x, "INPUT0")])
            assert result.as_numpy("OUTPUT0")[0, 0] == 1


async def test_sigterm_finishes_what_was_accepted_and_exits_with_0(own_repository: Path) -> None:
    slow_identity(own_repository, 400)
    with ServerProcess("--model-repository", str(own_repository), "--cpu-workers", "1") as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            x = np.ones((1, 1), np.float32)
            tasks = [asyncio.create_task(client.infer("slow", [fp32(x, "INPUT0")])) for _ in range(3)]
            await asyncio.to_thread(
                until, lambda: server.metric("nv_inference_pending_request_count", model="slow") >= 1
            )
            server.process.send_signal(signal.SIGTERM)
            results = await asyncio.gather(*tasks)
            assert [result.as_numpy("OUTPUT0")[0, 0] for result in results] == [1, 1, 1]
        assert await asyncio.to_thread(server.process.wait, 20) == 0


async def test_a_full_queue_refuses_with_its_length(own_repository: Path) -> None:
    slow_identity(own_repository, 300, batching="dynamic_batching { default_queue_policy { max_queue_size: 2 } }")
    config = own_repository / "slow" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 64", "max_batch_size: 1"))
    with ServerProcess("--model-repository", str(own_repository), "--cpu-workers", "1") as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            x = np.ones((1, 1), np.float32)
            results = await asyncio.gather(
                *(client.infer("slow", [fp32(x, "INPUT0")]) for _ in range(10)), return_exceptions=True
            )
    refused = [item for item in results if isinstance(item, InferenceServerException)]
    assert len(refused) >= 5
    assert {item.status() for item in refused} == {"StatusCode.RESOURCE_EXHAUSTED"}
    assert "requests waiting" in refused[0].message()


async def test_cancelled_and_expired_requests_never_reach_a_worker(own_repository: Path) -> None:
    slow_identity(own_repository, 200)
    config = own_repository / "slow" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 64", "max_batch_size: 1"))
    with ServerProcess("--model-repository", str(own_repository), "--cpu-workers", "1") as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            x = np.ones((1, 1), np.float32)
            first = [asyncio.create_task(client.infer("slow", [fp32(x, "INPUT0")])) for _ in range(3)]
            await asyncio.to_thread(
                until, lambda: server.metric("nv_inference_pending_request_count", model="slow") >= 1
            )
            late = [
                asyncio.create_task(client.infer("slow", [fp32(x, "INPUT0")], client_timeout=0.1)) for _ in range(4)
            ]
            gone = [asyncio.create_task(client.infer("slow", [fp32(x, "INPUT0")])) for _ in range(4)]
            await asyncio.sleep(0)
            results = await asyncio.gather(*late, return_exceptions=True)
            for task in gone:
                task.cancel()
            await asyncio.gather(*first, *gone, return_exceptions=True)
        assert all(isinstance(item, InferenceServerException) for item in results)
        until(lambda: server.metric("nv_inference_pending_request_count", model="slow") == 0)
        with triton.InferenceServerClient(server.grpc_address) as client:
            assert client.get_inference_statistics("slow").model_stats[0].execution_count <= 5


def test_a_new_version_takes_over_and_a_broken_one_does_not(own_repository: Path) -> None:
    flags = ["--model-control-mode", "poll", "--repository-poll-secs", "0.2"]
    with (
        ServerProcess("--model-repository", str(own_repository), *flags) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        x = np.ones((1, 16), np.float32)

        def version() -> str:
            return str(client.infer("mlp", [fp32(x)]).get_response().model_version)

        assert version() == "1"
        staging = own_repository.parent / "aside"
        write_mlp(staging, seed=2)
        staging.rename(own_repository / "mlp" / "2")
        until(lambda: version() == "2")
        assert np.allclose(client.infer("mlp", [fp32(x)]).as_numpy("y"), np.maximum(x @ mlp_weights(2), 0), rtol=1e-4)
        broken = own_repository.parent / "broken"
        broken.mkdir()
        (broken / "model.onnx").write_bytes(b"not an ONNX file")
        broken.rename(own_repository / "mlp" / "3")
        until(lambda: any("mlp" in line and "not reloaded" in line for line in server.log))
        assert version() == "2"
        assert client.is_server_ready()
        shutil.rmtree(own_repository / "mlp" / "3")


async def test_a_reload_loses_no_request(own_repository: Path) -> None:
    flags = ["--model-control-mode", "explicit", "--load-model", "mlp"]
    with ServerProcess("--model-repository", str(own_repository), *flags) as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            stop = asyncio.Event()
            versions: list[str] = []

            async def caller(value: float) -> None:
                x = np.full((1, 16), value, np.float32)
                while not stop.is_set():
                    result = await client.infer("mlp", [fp32(x)])
                    seed = 0 if result.get_response().model_version == "1" else 2
                    assert np.allclose(result.as_numpy("y"), np.maximum(x @ mlp_weights(seed), 0), rtol=1e-4)
                    versions.append(result.get_response().model_version)

            callers = [asyncio.create_task(caller(float(number))) for number in range(8)]
            await asyncio.to_thread(until, lambda: len(versions) > 100)
            write_mlp(own_repository / "mlp" / "2", seed=2)
            await client.load_model("mlp")
            seen = len(versions)
            await asyncio.to_thread(until, lambda: len(versions) > seen + 200)
            stop.set()
            await asyncio.gather(*callers)
            assert versions[0] == "1"
            assert versions[-1] == "2"


def test_probes_and_grpc_health_tell_the_same(server: ServerProcess) -> None:
    assert server.http("/livez")[0] == 200
    assert server.http("/readyz")[0] == 200
    assert server.http("/nothing")[0] == 404
    from erg_server.pb import health_pb2

    with grpc.insecure_channel(server.grpc_address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "inference.GRPCInferenceService", "mlp"):
            assert check(health_pb2.HealthCheckRequest(service=service)).status == 1
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="unknown"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_statistics_metrics_and_the_clients_own_count_agree(own_repository: Path) -> None:
    with (
        ServerProcess("--model-repository", str(own_repository)) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        for number in range(20):
            client.infer("mlp", [fp32(np.ones((number % 3 + 1, 16), np.float32))])
        sent_rows = sum(number % 3 + 1 for number in range(20))
        stats = client.get_inference_statistics("mlp", "1").model_stats[0]
        assert stats.inference_stats.success.count == 20
        assert stats.inference_count == sent_rows
        assert sum(item.batch_size * item.compute_infer.count for item in stats.batch_stats) == sent_rows
        assert sum(item.compute_infer.count for item in stats.batch_stats) == stats.execution_count
        labels = {"model": "mlp", "version": "1"}
        assert server.metric("nv_inference_request_success", **labels) == 20
        assert server.metric("nv_inference_count", **labels) == sent_rows
        assert server.metric("nv_inference_exec_count", **labels) == stats.execution_count
        duration_us = server.metric("nv_inference_request_duration_us", **labels)
        assert duration_us == pytest.approx(stats.inference_stats.success.ns / 1000, abs=20)
