"""Real worker processes, their batches, and what they must not leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.errors import ErgError
from erg_server.scheduling.batch import ConcatenatedInput
from erg_server.workers.process import BatchResult, WorkerProcess

CPU = Device(kind="cpu", id=0)


@dataclass(slots=True)
class Calls:
    """How often a worker process told its owner what."""

    slot_free: int = 0
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    exits: int = 0

    def on_slot_free(self) -> None:
        self.slot_free += 1

    def on_exit(self) -> None:
        self.exits += 1
        self.exited.set()


def start(calls: Calls | None = None, *, device: Device = CPU, slot_bytes: int = 1 << 16) -> WorkerProcess:
    told = calls or Calls()
    return WorkerProcess(device, slot_bytes=slot_bytes, on_slot_free=told.on_slot_free, on_exit=told.on_exit)


@asynccontextmanager
async def running(calls: Calls | None = None, **options: Any) -> AsyncIterator[WorkerProcess]:
    process = start(calls, **options)
    try:
        async with asyncio.timeout(20):
            await process.ready
        yield process
    finally:
        await process.stop(5)


def input_of(array: npt.NDArray[Any], datatype: DataType, index: int = 0) -> ConcatenatedInput:
    return ConcatenatedInput(index, datatype, array.shape, [array.tobytes()])


def submit(process: WorkerProcess, handle: int, *inputs: ConcatenatedInput) -> asyncio.Future[list[npt.NDArray[Any]]]:
    """The batch's outputs, copied while they were valid."""
    done: asyncio.Future[list[npt.NDArray[Any]]] = asyncio.get_running_loop().create_future()

    def on_done(result: BatchResult | ErgError) -> None:
        if isinstance(result, ErgError):
            done.set_exception(result)
            return
        done.set_result(
            [np.frombuffer(bytes(each.data), each.datatype.numpy).reshape(each.shape) for each in result.outputs]
        )

    process.submit(handle, inputs, on_done)
    return done


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
