"""A real worker process: batches, faults, and coming back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import ErgError, ResourceExhaustedError, UnavailableError
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec
from erg_server.scheduling.batch import ConcatenatedInput
from erg_server.workers.memory_reading import read_memory
from erg_server.workers.process import BatchResult
from erg_server.workers.supervisor import Worker, WorkerModel
from google.protobuf import text_format

from tests.server.scheduling.builders import ECHO


def echo(handle: int = 1, config: str = ECHO, path: Path = Path("unused")) -> WorkerModel:
    message = text_format.Parse(config, ModelConfig())
    return WorkerModel(
        handle=handle, name="echo", version=1, config=message, spec=ModelSpec.from_config(message), model_path=path
    )


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    subject = Worker(Device(kind="cpu", id=0, cores=tuple(sorted(os.sched_getaffinity(0))[:1])), slot_bytes=1 << 20)
    await subject.start()
    try:
        yield subject
    finally:
        await subject.stop(5)


async def run(worker: Worker, values: np.ndarray, handle: int = 1) -> np.ndarray:
    done: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()

    def on_done(result: BatchResult | ErgError) -> None:
        if isinstance(result, ErgError):
            done.set_exception(result)
        else:
            output = result.outputs[0]
            done.set_result(np.frombuffer(bytes(output.data), np.int32).reshape(output.shape))

    batch_input = ConcatenatedInput(0, DataType.INT32, values.shape, [values.tobytes()])
    worker.submit(handle, [batch_input], on_done, len(values))
    return await done


def numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32).reshape(-1, 1)


async def until_ready(worker: Worker) -> None:
    ready = asyncio.Event()
    worker.on_state_change = lambda _: ready.set() if worker.state == "ready" else None
    if worker.state != "ready":
        async with asyncio.timeout(20):
            await ready.wait()


async def test_a_batch_comes_back_as_it_went(worker: Worker) -> None:
    await worker.load(echo())
    assert np.array_equal(await run(worker, numbers(5)), numbers(5))


async def test_two_batches_are_held_and_a_third_is_refused(worker: Worker) -> None:
    await worker.load(echo(config=ECHO + 'parameters { key: "execution_delay_ms" value { string_value: "50" } }'))
    tasks = [asyncio.ensure_future(run(worker, numbers(n))) for n in (1, 2)]
    await asyncio.sleep(0)
    assert worker.free_slots == 0
    with pytest.raises(UnavailableError):
        await run(worker, numbers(3))
    assert [len(result) for result in await asyncio.gather(*tasks)] == [1, 2]
    assert worker.free_slots == 2


async def test_a_batch_larger_than_a_slot_is_refused_and_the_next_one_runs(worker: Worker) -> None:
    await worker.load(echo())
    with pytest.raises(ResourceExhaustedError, match="worker-slot-bytes"):
        await run(worker, numbers(1 << 19))
    with pytest.raises(ResourceExhaustedError, match="does not fit the slot"):
        await run(worker, numbers(200_000))
    assert len(await run(worker, numbers(3))) == 3
    assert worker.free_slots == 2


async def test_a_killed_worker_fails_what_it_held_and_comes_back_with_its_models(worker: Worker) -> None:
    slow = ECHO + 'parameters { key: "execution_delay_ms" value { string_value: "60000" } }'
    await worker.load(echo(1))
    await worker.load(echo(2, slow))
    held = asyncio.ensure_future(run(worker, numbers(1), handle=2))
    await asyncio.sleep(0)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UnavailableError, match="died"):
        await held
    assert worker.free_slots == 0
    await until_ready(worker)
    assert worker.restarts == 1
    assert worker.has_model(1)
    assert worker.has_model(2)
    assert len(await run(worker, numbers(4))) == 4


async def test_a_model_that_does_not_load_says_why_and_is_forgotten(worker: Worker, tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no ONNX")
    with pytest.raises(ErgError, match=r"does not load model\.onnx"):
        await worker.load(echo(3, ECHO.replace('"identity"', '"onnxruntime"'), broken))
    with pytest.raises(ErgError, match="no backend is called 'nothing'"):
        await worker.load(echo(4, ECHO.replace('"identity"', '"nothing"')))
    assert not worker.has_model(3)
    await worker.load(echo(5))
    assert len(await run(worker, numbers(1), handle=5)) == 1


async def test_an_unloaded_model_is_gone(worker: Worker) -> None:
    await worker.load(echo())
    await worker.unload(1)
    with pytest.raises(ErgError, match="unloaded"):
        await run(worker, numbers(1))


async def test_a_stopped_worker_leaves_no_process_and_no_descriptor() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        subject = Worker(Device(kind="cpu", id=0), slot_bytes=1 << 20)
        await subject.start()
        pid = subject.pid
        await subject.stop(5)
        assert not Path(f"/proc/{pid}").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


async def test_what_a_worker_holds_is_its_base_its_loads_and_its_slab(worker: Worker) -> None:
    fresh = worker.known_memory()
    assert fresh is not None
    assert (fresh.base_bytes, fresh.models, fresh.slab_bytes) == (None, {}, 0)
    await asyncio.gather(worker.load(echo(1)), worker.load(echo(2)))
    known = worker.known_memory()
    assert known is not None
    assert known.pid == worker.pid
    assert known.models.keys() == {("echo", "1")}
    reading = read_memory(worker.device, known.pid)
    assert reading.process is not None
    assert known.base_bytes is not None
    assert 1 << 20 < known.base_bytes <= reading.process.rss_bytes
    await run(worker, numbers(10_000))
    after = worker.known_memory()
    assert after is not None
    assert 40_000 <= after.slab_bytes <= 1 << 20
    await worker.unload(1)
    await worker.unload(2)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    await until_gone(worker)
    assert worker.known_memory() is None
    await until_ready(worker)
    again = worker.known_memory()
    assert again is not None
    assert again.pid != known.pid
    assert again.base_bytes is None, "another process is measured anew"
    await worker.load(echo(3))
    again = worker.known_memory()
    assert again is not None
    assert again.base_bytes is not None


async def until_gone(worker: Worker) -> None:
    gone = asyncio.Event()
    worker.on_state_change = lambda _: gone.set()
    if worker.state == "ready":
        async with asyncio.timeout(20):
            await gone.wait()
