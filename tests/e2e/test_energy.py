"""What a real server books under load, against the CPU time that the system says its processes took."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_aio
from erg_server.energy.sources import server_cores

from tests.e2e.server_process import ServerProcess, write_identity, write_mlp
from tests.e2e.test_lifecycle import fp32, until

pytestmark = pytest.mark.e2e

IDLE_W, BUSY_W = 20.0, 95.0
STATED = ("--power-source", "modelled", "--power-watts", f"cpu={IDLE_W:g}:{BUSY_W:g}")
MLP = """platform: "onnxruntime_onnx" max_batch_size: 32
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]
dynamic_batching { }"""


def repository(root: Path) -> Path:
    for name in ("one", "two"):
        write_mlp(root / name / "1")
        (root / name / "config.pbtxt").write_text(MLP)
    return root


async def load(server: ServerProcess, seconds: float) -> int:
    """Calls of both models, four times as many of the first; how many."""
    calls = 0
    x = fp32(np.ones((8, 16), np.float32))
    async with triton_aio.InferenceServerClient(server.grpc_address) as client:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await asyncio.gather(*(client.infer("one", [x]) for _ in range(4)), client.infer("two", [x]))
            calls += 5
    return calls


def expected_joules(server: ServerProcess) -> float:
    """What the model of power says until now, from a start of its own."""
    processes = [psutil.Process(pid) for pid in (server.process.pid, *server.workers())]
    cpu_s = sum(sum(process.cpu_times()[:2]) for process in processes)
    return IDLE_W * time.monotonic() + (BUSY_W - IDLE_W) * cpu_s / server_cores()


def counter(server: ServerProcess) -> float:
    return server.metric("erg_energy_counter_joules_total", domain="cpu", source="modelled")


def test_the_books_of_a_server_under_load_agree_with_what_its_processes_took(tmp_path: Path) -> None:
    flags = ("--model-repository", str(repository(tmp_path)), "--cpu-workers", "2", *STATED, "--energy-sample-ms", "20")
    with ServerProcess(*flags) as server:
        # Independent of the server: the operating system's figures and the stated watts. Reading the counter takes
        # time and energy too, so what it says is between what was taken without and with that.
        began_s = time.monotonic()
        before = expected_joules(server), counter(server), expected_joules(server)
        calls = asyncio.run(load(server, 5.0))
        after = expected_joules(server), counter(server), expected_joules(server)
        took_s, counted = time.monotonic() - began_s, after[1] - before[1]
        assert calls > 100
        assert 0.99 * (after[0] - before[2]) <= counted <= 1.01 * (after[2] - before[0])
        until(lambda: server.metric("erg_energy_pending_joules") == 0)
        samples = server.http("/metrics")[1]
        counted = figure(samples, "erg_energy_counter_joules_total")
        assert figure(samples, "erg_energy_joules_total") == pytest.approx(counted, rel=1e-9)
        assert server.metric("erg_energy_drift_joules") == 0
        one, two = (
            server.metric("erg_energy_joules_total", model=name, account="inference") for name in ("one", "two")
        )
        assert 0 < two < one
        busy = server.metric("erg_device_busy_seconds_total", account="inference")
        assert 0 < busy < took_s * 2
        for account in ("front", "idle", "worker", "warmup"):
            assert server.metric("erg_energy_joules_total", account=account) > 0, account
        assert 'source="measured"' not in samples


def figure(text: str, name: str) -> float:
    """The sum of a family's samples in one scrape."""
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_padding_has_an_account_of_its_own(tmp_path: Path) -> None:
    write_identity(tmp_path, "echo", datatype="TYPE_FP32", dims="-1", extra=PADDED)
    with ServerProcess("--model-repository", str(tmp_path), "--cpu-workers", "1", *STATED) as server:
        async with triton_aio.InferenceServerClient(server.grpc_address) as client:
            short, long_ = (fp32(np.ones((1, length), np.float32), "INPUT0") for length in (1_000, 200_000))
            for _ in range(50):
                await asyncio.gather(*(client.infer("echo", [short]) for _ in range(2)), client.infer("echo", [long_]))
        until(lambda: server.metric("erg_energy_pending_joules") == 0)
        padding = server.metric("erg_energy_joules_total", model="echo", account="padding")
        inference = server.metric("erg_energy_joules_total", model="echo", account="inference")
        assert padding > 0
        assert inference > 0
        assert server.metric("erg_device_busy_seconds_total", account="padding") > 0


PADDED = 'erg { padding { bucket_step: 1000000 input { name: "INPUT0" axis: 1 } output { name: "OUTPUT0" axis: 1 } } }'


def test_metering_that_is_off_books_nothing(tmp_path: Path) -> None:
    with ServerProcess(
        "--model-repository", str(repository(tmp_path)), "--cpu-workers", "1", "--no-metering"
    ) as server:
        assert asyncio.run(load(server, 0.2)) > 0
        assert "erg_energy" not in server.http("/metrics")[1]
        assert "erg_device_busy" not in server.http("/metrics")[1]


def test_a_source_that_is_not_there_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="--power-source nvml: this server uses no GPU"):
        ServerProcess("--model-repository", str(tmp_path), "--power-source", "nvml", "--devices", "cpu")
