"""Objectives and deadlines with real processes: what is measured, promised, refused and counted."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
import tritonclient.grpc.aio as triton_aio
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, write_identity
from tests.e2e.test_lifecycle import fp32

pytestmark = pytest.mark.e2e

WIDTH = 1024
LAYERS = 60


def write_slow(root: Path, name: str, extra: str) -> None:
    """x fp32[batch, WIDTH] through LAYERS products: tens of milliseconds a row on one core."""
    weights = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w")
    ends = ["x", *(f"h{number}" for number in range(LAYERS - 1)), "y"]
    nodes = [helper.make_node("MatMul", [ends[at], "w"], [ends[at + 1]]) for at in range(LAYERS)]
    sides = [helper.make_tensor_value_info(side, TensorProto.FLOAT, ["batch", WIDTH]) for side in ("x", "y")]
    graph = helper.make_graph(nodes, name, sides[:1], sides[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder = root / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))
    (root / name / "config.pbtxt").write_text(f"max_batch_size: 4\ndynamic_batching {{ }}\n{extra}")


async def test_an_objective_is_measured_kept_and_counted(tmp_path: Path) -> None:
    root, cache = tmp_path / "repo", tmp_path / "latency.json"
    write_identity(root, "quick", datatype="TYPE_FP32", dims="1", extra="erg { slo { p99_ms: 5000 } }")
    flags = ("--model-repository", str(root), "--cpu-workers", "1", "--latency-cache", str(cache))
    with ServerProcess(*flags) as server:
        assert server.metric("erg_predicted_batch_seconds", model="quick", rows="1", statistic="p99") > 0
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            for _ in range(5):
                await client.infer("quick", [fp32(np.ones((1, 1), np.float32), "INPUT0")])
        assert server.metric("erg_deadline_requests_total", model="quick", outcome="met") == 5
        # Five requests of less than a millisecond: next to nothing of one server, and time to spare.
        assert 0 < server.metric("erg_replicas_needed") < 0.1
        assert server.metric("erg_queue_seconds", model="quick") == 0
        assert 4 < server.metric("erg_slack_seconds", model="quick") < 5
        assert server.terminate() == 0
    assert len(json.loads(cache.read_text())["entries"]) == 1


async def test_a_deadline_that_the_model_cannot_keep_is_told_at_once(tmp_path: Path) -> None:
    write_slow(tmp_path, "slow", "erg { slo { p99_ms: 60000 } }")
    with ServerProcess("--model-repository", str(tmp_path), "--cpu-workers", "1") as server:
        alone_s = server.metric("erg_predicted_batch_seconds", model="slow", rows="1", statistic="mean")
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            x = np.ones((1, WIDTH), np.float32)
            assert np.array_equal((await client.infer("slow", [fp32(x)])).as_numpy("y"), x)
            with pytest.raises(InferenceServerException) as raised:
                await client.infer("slow", [fp32(x)], client_timeout=alone_s / 4)
            assert raised.value.status() == str(grpc.StatusCode.DEADLINE_EXCEEDED)
        assert server.metric("erg_request_refusals_total", model="slow", reason="deadline") == 1
