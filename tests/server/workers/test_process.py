"""One worker process, as its owner in the front sees it."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from erg_server.backends.onnxruntime import OnnxRuntimeBackend
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import (
    ErgError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from erg_server.workers import frames
from erg_server.workers.process import BatchResult, WorkerProcess

from tests.contract import onnx_models
from tests.contract.onnx_models import WIDTH, Values, model_load
from tests.server.workers.processes import Calls, descriptors, input_of, running, start, submit

X, Y = [("x", DataType.FP32)], [("y", DataType.FP32)]
SLOW = 'parameters { key: "execution_delay_ms" value { string_value: "60000" } }'
ONES = np.ones((2, WIDTH), np.float32)


async def load(
    process: WorkerProcess,
    handle: int,
    *,
    backend: str = "identity",
    path: Path = Path("unused"),
    inputs: Values = X,
    outputs: Values = Y,
    extra: str = "",
) -> int:
    config = model_load(backend, path, inputs, outputs, extra=extra).config
    header = {"name": "subject", "version": 1, "path": str(path)}
    async with asyncio.timeout(20):
        return await process.load(handle, header, config.SerializeToString())


async def test_it_runs_a_tiny_onnx_model_and_echoes_beside_it(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "model.onnx")
    reference = model_load("onnxruntime", path, X, Y)
    rows = np.random.default_rng(1).standard_normal((4, WIDTH)).astype(np.float32)
    async with running() as process:
        assert await load(process, 1, backend="onnxruntime", path=path) >= 0
        await load(process, 2)
        answers = await asyncio.gather(*(submit(process, n, input_of(rows, DataType.FP32)) for n in (1, 2)))
    expected = OnnxRuntimeBackend().load(reference).run([rows])[0]
    assert np.array_equal(answers[0][0], expected)
    assert np.array_equal(answers[1][0], rows)


async def test_its_process_sees_the_part_of_a_gpu_that_is_its_own() -> None:
    share = Device(kind="gpu", id=1, gpu_uuid="GPU-none", partition="mps0", mps_percent=30)
    async with running(device=share) as process:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert {b"CUDA_VISIBLE_DEVICES=GPU-none", b"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=30"} <= {*environment}


async def test_a_batch_of_no_rows_and_one_of_bf16_come_back() -> None:
    async with running() as process:
        await load(process, 1)
        await load(process, 2, inputs=[("x", DataType.BF16)], outputs=[("y", DataType.BF16)])
        empty = np.empty((0, WIDTH), np.float32)
        assert (await submit(process, 1, input_of(empty, DataType.FP32)))[0].shape == (0, WIDTH)
        halves = np.array([[0x3F80, 0xFFFF, 0]], np.uint16)
        (output,) = await submit(process, 2, input_of(halves, DataType.BF16))
    assert output.tolist() == halves.tolist()


async def test_a_model_that_does_not_load_is_told_with_its_type_and_the_worker_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no ONNX")
    async with running() as process:
        with pytest.raises(FailedPreconditionError, match=r"model\.onnx"):
            await load(process, 1, backend="onnxruntime", path=broken)
        with pytest.raises(InvalidArgumentError, match="'nobody'"):
            await load(process, 1, backend="nobody")
        await load(process, 1)
        assert np.array_equal((await submit(process, 1, input_of(ONES, DataType.FP32)))[0], ONES)


async def test_a_batch_that_fails_frees_its_slot() -> None:
    calls = Calls()
    async with running(calls) as process:
        await load(process, 1)
        with pytest.raises(InvalidArgumentError):
            await submit(process, 1)
        assert process.free_slots == 2
        assert calls.slot_free == 1


async def test_an_input_that_cannot_be_written_leaves_the_slot_free() -> None:
    class Unwritable:
        index, datatype, nbytes = 0, DataType.FP32, 12
        shape: tuple[int, ...] = (1, 3)

        def write(self, view: memoryview) -> None:
            raise ValueError("the caller's memory is gone")

    def never(_: BatchResult | ErgError) -> None:
        raise AssertionError("a batch that was not started was answered")

    async with running() as process:
        await load(process, 1)
        with pytest.raises(ValueError, match="gone"):
            process.submit(1, [Unwritable()], never)
        assert process.free_slots == 2
        assert np.array_equal((await submit(process, 1, input_of(ONES, DataType.FP32)))[0], ONES)


async def test_a_callers_error_while_it_takes_its_answer_does_not_cost_the_slot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: BatchResult | ErgError) -> None:
        raise RuntimeError("the caller is broken")

    async with running() as process:
        await load(process, 1)
        process.submit(1, [input_of(ONES, DataType.FP32)], fail)
        for _ in range(3):
            assert np.array_equal((await submit(process, 1, input_of(ONES, DataType.FP32)))[0], ONES)
    assert "the caller is broken" in caplog.text


async def test_a_kill_fails_both_held_batches_and_the_running_load_and_is_told_once(tmp_path: Path) -> None:
    calls = Calls()
    fifo = tmp_path / "model.onnx"
    os.mkfifo(fifo)  # reading it never ends: a load that takes for ever
    async with running(calls) as process:
        await load(process, 1, extra=SLOW)
        held = [submit(process, 1, input_of(ONES, DataType.FP32)) for _ in range(2)]
        loading = asyncio.ensure_future(load(process, 2, backend="onnxruntime", path=fifo))
        await asyncio.sleep(0)
        assert process.free_slots == 0
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*held, loading, return_exceptions=True)
            await calls.exited.wait()
        assert [type(each) for each in results] == [UnavailableError] * 3
        assert "retry" in str(results[0])
        with pytest.raises(UnavailableError):
            submit(process, 1, input_of(ONES, DataType.FP32))
        with pytest.raises(UnavailableError):
            await load(process, 3)
        async with asyncio.timeout(5):
            await process.unload(1)
        await asyncio.to_thread(process.wait)
        assert process.exit_status() == -signal.SIGKILL
    assert calls.exits == 1


async def test_an_unload_returns_when_the_batches_before_it_have_run() -> None:
    async with running() as process:
        await load(process, 1, extra=SLOW.replace("60000", "100"))
        held = submit(process, 1, input_of(ONES, DataType.FP32))
        async with asyncio.timeout(20):
            await process.unload(1)
        assert held.done()
        assert np.array_equal((await held)[0], ONES)


async def test_a_worker_that_dies_ends_the_wait_for_an_unload() -> None:
    calls = Calls()
    async with running(calls) as process:
        await load(process, 1, extra=SLOW)
        held = submit(process, 1, input_of(ONES, DataType.FP32))
        unloading = asyncio.ensure_future(process.unload(1))
        await asyncio.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            await unloading
            await asyncio.gather(held, return_exceptions=True)


async def test_stopping_fails_what_is_held_and_is_no_exit() -> None:
    calls = Calls()
    async with running(calls) as process:
        await load(process, 1, extra=SLOW)
        held = submit(process, 1, input_of(ONES, DataType.FP32))
        await process.stop(0)
        with pytest.raises(UnavailableError, match="stopped"):
            await held
        assert process.exit_status() == -signal.SIGKILL
    assert calls.exits == 0


async def test_an_idle_worker_ends_by_itself_when_it_is_stopped() -> None:
    async with running() as process:
        pass
    assert process.exit_status() == 0


async def test_it_is_pinned_to_its_cores_and_deaf_to_ctrl_c() -> None:
    core = max(os.sched_getaffinity(0))
    async with running(device=Device(kind="cpu", id=0, cores=(core,))) as process:
        assert os.sched_getaffinity(process.pid) == {core}
        assert os.getpgid(process.pid) != os.getpgid(0)
        os.kill(process.pid, signal.SIGINT)
        await load(process, 1)
        assert np.array_equal((await submit(process, 1, input_of(ONES, DataType.FP32)))[0], ONES)


async def test_twenty_deaths_leave_no_descriptor_and_no_process() -> None:
    before = descriptors()
    for _ in range(20):
        calls = Calls()
        process = start(calls)
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            await calls.exited.wait()
        with pytest.raises(InternalError, match="before it was ready"):
            await process.ready
        await asyncio.to_thread(process.wait)
        assert not Path(f"/proc/{process.pid}").exists()
    assert descriptors() <= before + 1  # the pool of asyncio.to_thread may hold one


async def test_a_view_that_is_kept_too_long_keeps_the_memory_but_no_descriptor_of_the_worker_once_it_is_gone() -> None:
    before = descriptors()
    kept: list[memoryview] = []

    def keep(result: BatchResult | ErgError) -> None:
        assert isinstance(result, BatchResult)
        kept.append(result.outputs[0].data[:4])

    async with running() as process:
        await load(process, 1)
        process.submit(1, [input_of(ONES, DataType.FP32)], keep)
        await submit(process, 1, input_of(ONES, DataType.FP32))
    assert bytes(kept[0]) == np.float32(1).tobytes()
    kept.clear()
    del process
    gc.collect()
    assert descriptors() <= before + 1


IMPOSTOR = """#!{python} -S
import socket, sys
link = socket.socket(fileno=int(sys.argv[-1]))
link.recv(1 << 17)
link.send(bytes([5]))
link.recv(1 << 17)
for line in open({answers!r}):
    link.send(bytes.fromhex(line))
link.recv(1)
"""
Answers = Callable[..., None]


@pytest.fixture
def impostor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Stands in for the worker's interpreter: says it is ready, and answers its first frame with those it is given."""
    answers = tmp_path / "answers"
    script = tmp_path / "python"
    script.write_text(IMPOSTOR.format(python=sys.executable, answers=str(answers)), encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    def give(*frames: bytes) -> None:
        answers.write_text("".join(f"{frame.hex()}\n" for frame in frames), encoding="ascii")

    return give


def done_frame(slot: int, *, offset: int = 64, nbytes: int = 24) -> bytes:
    output = frames.SlotTensor(0, DataType.FP32, (2, 3), offset, nbytes)
    return frames.pack_done(slot, (1, 2, 3, 4), 1, frames.pack_tensors([output]))


@pytest.mark.parametrize(
    "frame",
    [
        done_frame(1)[:-1],
        done_frame(0),
        done_frame(200),
        done_frame(1, offset=1 << 16),
        done_frame(1, nbytes=1 << 63),
        bytes([9, 0, 13, 0]),
        bytes([8]),
    ],
    ids=["cut", "free slot", "no such slot", "behind the slot", "huge", "failed a free slot", "kind only"],
)
async def test_a_worker_that_talks_nonsense_is_ended_and_its_batch_fails(
    impostor: Answers, frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    impostor(frame)
    calls = Calls()
    async with running(calls) as process:
        held = submit(process, 1, input_of(ONES, DataType.FP32))
        with pytest.raises(UnavailableError, match="died"):
            await asyncio.wait_for(held, 5)
        await asyncio.wait_for(calls.exited.wait(), 5)
    assert "is ended" in caplog.text
    assert calls.exits == 1


async def test_a_frame_of_an_unknown_kind_is_logged_and_passed_over(
    impostor: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    impostor(bytes([77, 0, 0, 0]), frames.pack_failed(1, NotFoundError("no such model")))
    async with running() as process:
        with pytest.raises(NotFoundError, match="no such model"):
            await asyncio.wait_for(submit(process, 1, input_of(ONES, DataType.FP32)), 5)
        assert process.free_slots == 2
    assert "unknown kind 77" in caplog.text


async def test_a_process_that_cannot_be_spawned_is_unavailable_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = descriptors()
    monkeypatch.setattr(sys, "executable", "/no/such/interpreter")
    with pytest.raises(UnavailableError, match="cpu0 does not start"):
        start()
    assert descriptors() == before


PARENT = """
import asyncio, sys
import numpy as np
from erg_server.datatype import DataType
from tests.server.workers.processes import input_of, running, submit
from tests.server.workers.test_process import ONES, SLOW, load

async def main():
    async with running() as process:
        await load(process, 1, extra=SLOW)
        held = submit(process, 1, input_of(ONES, DataType.FP32))
        print(process.pid, flush=True)
        await held

asyncio.run(main())
"""


def test_an_orphan_ends_at_once_even_in_the_middle_of_a_batch() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        watch = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([watch], [], [], 10)
    os.close(watch)
    assert ended
