"""Real processes under a memory budget, and around a worker that dies."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc.aio as triton_aio
from onnx import TensorProto, helper, numpy_helper

from tests.e2e.server_process import ServerProcess, write_identity
from tests.e2e.test_lifecycle import fp32, until

pytestmark = pytest.mark.e2e

WIDTH = 1 << 11
FACTORS = {"a": 2.0, "b": 3.0, "c": 5.0}


def write_scaling(root: Path, name: str, factor: float) -> None:
    """y = x · factor · identity for x fp32[batch, WIDTH]: 16 MiB of weights, and an answer that tells whose it is."""
    weights = (np.eye(WIDTH) * factor).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder = root / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))


async def test_three_models_under_a_budget_of_two_answer_without_a_break(tmp_path: Path) -> None:
    for name, factor in FACTORS.items():
        write_scaling(tmp_path, name, factor)
    budget = 50_000_000
    assert sum(path.stat().st_size for path in tmp_path.rglob("model.onnx")) > budget
    flags = ("--model-repository", str(tmp_path), "--cpu-workers", "2", "--memory-budget", f"cpu={budget}")
    with ServerProcess(*flags) as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:

            async def caller(number: int) -> None:
                for turn in range(12):
                    name = "abc"[(number + turn) % 3]
                    x = np.full((1, WIDTH), number + 1, np.float32)
                    answer = await client.infer(name, [fp32(x)], client_timeout=30)
                    assert np.array_equal(answer.as_numpy("y"), x * FACTORS[name])
                    assert await client.is_model_ready(name)

            await asyncio.gather(*(caller(number) for number in range(6)))
        assert server.metric("erg_models_resident_bytes", pool="cpu") <= budget
        assert server.metric("erg_memory_budget_bytes", pool="cpu") == budget
        assert server.metric("erg_model_evictions_total") >= 2
        assert server.metric("erg_model_loads_total") >= 5
        assert server.http("/readyz")[0] == 200


async def test_a_model_of_one_instance_is_served_elsewhere_while_its_worker_is_away(tmp_path: Path) -> None:
    write_identity(tmp_path, "one", datatype="TYPE_FP32", dims="1", extra="instance_group { kind: KIND_CPU count: 1 }")
    with ServerProcess("--model-repository", str(tmp_path), "--cpu-workers", "2") as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            x = np.ones((1, 1), np.float32)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(until, lambda: server.metric("erg_model_loads_total", model="one") == 2)
            answer = await client.infer("one", [fp32(x, "INPUT0")], client_timeout=30)
            assert answer.as_numpy("OUTPUT0")[0, 0] == 1
            await asyncio.to_thread(until, lambda: server.metric("erg_worker_ready") == 2)
            assert (await client.infer("one", [fp32(x, "INPUT0")], client_timeout=30)) is not None
