"""What a real server books under load, against the CPU time that the system says its processes took."""

from __future__ import annotations

import asyncio
import os
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


def cpu_s(server: ServerProcess) -> float:
    processes = [psutil.Process(pid) for pid in (server.process.pid, *server.workers())]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def counter(server: ServerProcess) -> float:
    return server.metric("erg_energy_counter_joules_total", domain="cpu", source="modelled")


def test_the_books_of_a_server_under_load_agree_with_what_its_processes_took(tmp_path: Path) -> None:
    flags = ("--model-repository", str(repository(tmp_path)), "--cpu-workers", "2", *STATED)
    with ServerProcess(*flags) as server:
        began_s, cpu_before_s, before = time.monotonic(), cpu_s(server), counter(server)
        calls = asyncio.run(load(server, 4.0))
        took_s, cpu_took_s, counted = time.monotonic() - began_s, cpu_s(server) - cpu_before_s, counter(server) - before
        # Independent of the server: the operating system's figures and the stated watts.
        expected = IDLE_W * took_s + (BUSY_W - IDLE_W) * cpu_took_s / server_cores()
        assert calls > 100
        # A sample more or less of 100 ms at either end, on top of one hundredth.
        assert counted == pytest.approx(expected, rel=0.01, abs=0.2 * BUSY_W)
        until(lambda: server.metric("erg_energy_pending_joules") == 0)
        samples = server.http("/metrics")[1]
        booked, counted = (
            figure(samples, name) for name in ("erg_energy_joules_total", "erg_energy_counter_joules_total")
        )
        assert booked == pytest.approx(counted, rel=1e-9)
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


async def test_late_cancelled_and_padded_work_have_accounts_of_their_own(tmp_path: Path) -> None:
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
    with pytest.raises(AssertionError, match="--power-source rapl") as failure:
        ServerProcess("--model-repository", str(tmp_path), "--power-source", "rapl")
    if os.path.isdir("/sys/class/powercap/intel-rapl:0"):
        pytest.skip("this machine has RAPL")
    assert "there is no RAPL" in str(failure.value)
