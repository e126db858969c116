"""One of several client processes: takes its share of the work from standard input, answers on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from erg_loadtest.client import InferClient
from erg_loadtest.dispatch import precise_event_loop
from erg_loadtest.fleet import Local, Work

_REPORT_EVERY_NS = 200_000_000


def main() -> None:
    """Warm up, wait to be told, measure, hand back the samples."""
    work = Work.read(sys.stdin.buffer)
    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        runner.run(_run(work))


async def _run(work: Work) -> None:
    async with InferClient(work.target) as client:
        sender = Local(work, client)
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
    _say({"event": "result", "bytes": len(body), "cpu_s": cpu_s, "loop_busy": sender.loop_busy}, body)


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


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # The parent got it as well, and reports it.
        main()
