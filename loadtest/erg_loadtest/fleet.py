"""Who sends: this process, or several client processes when one event loop would be the bottleneck."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from erg_loadtest.answers import AnswerCheck
from erg_loadtest.arrivals import Arrivals, ClosedLoop, Limit
from erg_loadtest.client import Check, InferClient
from erg_loadtest.dispatch import MonotonicTimer, Requests, drive
from erg_loadtest.errors import LoadTestError
from erg_loadtest.mlperf import Verdict
from erg_loadtest.samples import Samples
from erg_loadtest.thread_use import thread_busy_s
from erg_loadtest.work import Work

OnDone = Callable[[int], None]

_WARMUP_CONCURRENCY = 8
_GRACE_S = 30.0


class Local:
    """Sends from this process."""

    children_cpu_s = 0.0
    verdict: Verdict | None = None

    def __init__(self, work: Work, client: InferClient, check: Check | None = None) -> None:
        self._work = work
        self._answers = None if work.check is None else AnswerCheck(work.check, work.payloads)
        self.send = client.sender(work.payloads, check or self._answers)
        self._requests = Requests(send=self.send, distinct=len(work.payloads), offset=work.offset)
        self.loop_busy = 0.0
        """The share of the measured time that the event loop's thread was on a CPU or waiting for one; known once
        `measure` returned."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @property
    def wrong_answer(self) -> str | None:
        """One wrong answer in words, where answers are checked by the work's rule and one was wrong."""
        return None if self._answers is None else self._answers.example

    async def warm_up(self, on_done: OnDone | None = None) -> Samples | None:
        """Send the warm-up in a closed loop as wide as the real one, but no wider than needed; None without one."""
        if self._work.warmup is None:
            return None
        arrivals = self._work.arrivals
        concurrency = arrivals.concurrency if isinstance(arrivals, ClosedLoop) else _WARMUP_CONCURRENCY
        return await self._drive(ClosedLoop(concurrency=concurrency), self._work.warmup, on_done)

    async def measure(self, on_done: OnDone | None = None) -> Samples:
        """Send the requests that count."""
        before_s, busy_before_s = time.perf_counter(), thread_busy_s()
        samples = await self._drive(self._work.arrivals, self._work.limit, on_done)
        self.loop_busy = (thread_busy_s() - busy_before_s) / max(time.perf_counter() - before_s, 1e-9)
        return samples

    async def _drive(self, arrivals: Arrivals, limit: Limit, on_done: OnDone | None) -> Samples:
        return await drive(
            arrivals=arrivals,
            limit=limit,
            requests=self._requests,
            timer=MonotonicTimer(),
            max_in_flight=self._work.max_in_flight,
            on_done=on_done,
        )


class Fleet:
    """Sends from several processes of this machine (see `client_process`), which share its monotonic clock."""

    def __init__(self, work: Work, processes: int) -> None:
        self._parts = work.split(processes)
        self._processes: list[Process] = []
        self.children_cpu_s = 0.0
        """CPU time of the clients while they measured; known once `measure` returned."""
        self.loop_busy = 0.0
        """As `Local` has it, of the busiest client."""
        self.wrong_answer: str | None = None
        """As `Local` has it, of any client."""
        self.verdict: Verdict | None = None
        """LoadGen's, where it ran in the client."""

    async def __aenter__(self) -> Self:
        try:
            for part in self._parts:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "erg_loadtest.client_process", stdin=PIPE, stdout=PIPE
                )
                self._processes.append(process)
                await _send(process, part.header(), *part.bodies())
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def warm_up(self, on_done: OnDone | None = None) -> None:
        """Let every client warm up; returns when all are done, so that the measured window starts together."""
        await self._together("warm", on_done)

    async def measure(self, on_done: OnDone | None = None) -> Samples:
        """Let every client measure, and put their samples together."""
        for process in self._processes:
            await _send(process, b"go\n")
        events = await self._together("result", on_done)
        parts = []
        for process, event in zip(self._processes, events, strict=True):
            assert process.stdout is not None
            with np.load(io.BytesIO(await process.stdout.readexactly(event["bytes"])), allow_pickle=False) as columns:
                parts.append(Samples(**{name: columns[name] for name in columns.files}))
            self.children_cpu_s += event["cpu_s"]
            self.wrong_answer = self.wrong_answer or event["wrong_answer"]
            if event["verdict"] is not None:
                self.verdict = Verdict.from_json(event["verdict"])
            self.loop_busy = max(self.loop_busy, event["loop_busy"])
        return Samples.merge(parts)

    async def _together(self, event: str, on_done: OnDone | None) -> list[dict[str, Any]]:
        counts = [0] * len(self._processes)

        def counter(index: int) -> OnDone:
            def count(done: int) -> None:
                counts[index] = done
                if on_done is not None:
                    on_done(sum(counts))

            return count

        # Not a task group: the first failure is to reach the caller as it is; leaving the fleet ends the others.
        return await asyncio.gather(
            *(_until(process, event, counter(index)) for index, process in enumerate(self._processes))
        )

    async def _stop(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                async with asyncio.timeout(_GRACE_S if process.returncode is None else None):
                    # A client between phases ends by itself when its input does.
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _send(process: Process, *chunks: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.writelines(chunks)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise LoadTestError(f"a client process ended early, with code {await process.wait()}") from error


async def _until(process: Process, event: str, on_done: Callable[[int], None]) -> dict[str, Any]:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        message: dict[str, Any] = json.loads(line)
        if message["event"] == event:
            return message
        on_done(message["done"])
    raise LoadTestError(f"a client process ended early, with code {await process.wait()}")
