"""One of several client processes: takes its share of the work from standard input, answers on standard output."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from erg_loadtest.client import InferClient
from erg_loadtest.dispatch import precise_event_loop
from erg_loadtest.fleet import Local
from erg_loadtest.loadgen import LoadGenRun
from erg_loadtest.work import Work

_REPORT_EVERY_NS = 200_000_000


def main() -> None:
    """Warm up, wait to be told, measure, hand back the samples."""
    work = Work.read(sys.stdin.buffer)
    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        runner.run(_run(work))


async def _run(work: Work) -> None:
    async with InferClient(work.target) as client:
        sender = Local(work, client) if work.mlperf is None else LoadGenRun(work, work.mlperf, client)
        await sender.warm_up(_reporter())
        _say({"event": "warm"})
        if await asyncio.to_thread(sys.stdin.buffer.readline) != b"go\n":
            return
        before_s = time.process_time()
        samples = await sender.measure(_reporter())
        cpu_s = time.process_time() - before_s
    columns = io.BytesIO()
    np.savez(columns, **samples.arrays())
    body = columns.getvalue()
    result = {
        "event": "result",
        "bytes": len(body),
        "cpu_s": cpu_s,
        "loop_busy": sender.loop_busy,
        "wrong_answer": sender.wrong_answer,
        "verdict": None if sender.verdict is None else sender.verdict.to_json(),
    }
    _say(result, body)


def _reporter() -> Callable[[int], None]:
    last_ns = 0

    def report(done: int) -> None:
        nonlocal last_ns
        now_ns = time.monotonic_ns()
        if now_ns - last_ns >= _REPORT_EVERY_NS:
            last_ns = now_ns
            _say({"event": "progress", "done": done})

    return report


def _say(event: dict[str, Any], body: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(event).encode() + b"\n" + body)
    sys.stdout.buffer.flush()


def _exit(code: int) -> None:
    # Without tearing down: LoadGen's thread cannot be stopped, and C++ aborts a process that ends around one.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # The parent got it as well, and reports it.
        _exit(130)
    except Exception:  # noqa: BLE001 - nothing is above; the parent reports the code
        traceback.print_exc()
        _exit(1)
