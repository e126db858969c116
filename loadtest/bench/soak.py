"""50,000 requests while a worker is killed, the model is reloaded and callers give up at random.

    python -m bench.soak

Every answer is compared with its request: the model is the identity, and no two requests carry the same values. Only
calls that we cancelled and the batches that the killed worker held may fail. Exits with 1 on anything else.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click
import grpc.aio
import numpy as np
from bench.memory import MemoryWatch, worker_processes
from bench.serving import Served, served
from erg_loadtest.client import InferClient, Target, describe_error, status_number
from erg_loadtest.payloads import build_payload
from erg_loadtest.samples import STATUS_NAMES
from erg_loadtest.tensors import InputSpec, Signature
from erg_server.pb import inference_pb2

MODEL = "soak_identity"
MAX_BATCH_SIZE = 8
SLOTS = 2
"""Batches that a worker holds at once: one running, one staged."""

_LENGTHS = 4
_CANCEL_WITHIN_S = 0.02
_BACK_WITHIN_S = 2.0
_READY_TIMEOUT_S = 60.0
_SIGNATURE = Signature(
    model=MODEL,
    version="",
    max_batch_size=MAX_BATCH_SIZE,
    inputs=(InputSpec(name="INPUT0", datatype="INT64", shape=(-1, -1)),),
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What the run showed so far; owned by the event loop's thread."""

    finished: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    cancelled_by_us: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lost_to_kill: int = 0
    process_back_after_s: float | None = None
    """From the kill until the new process exists; that it serves again shows in the answers."""
    reloaded: bool = False
    errors: list[str] = field(default_factory=list)


def config_text(delay_us: int) -> str:
    """The identity model's configuration; the delay is what a reload changes."""
    return f"""name: "{MODEL}"
backend: "identity"
max_batch_size: {MAX_BATCH_SIZE}
input [ {{ name: "INPUT0" data_type: TYPE_INT64 dims: [ -1 ] }} ]
output [ {{ name: "OUTPUT0" data_type: TYPE_INT64 dims: [ -1 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
parameters {{ key: "execution_delay_ms" value {{ string_value: "2" }} }}
"""


def body_of(number: int) -> tuple[bytes, bytes]:
    """The request of that number, and the tensor bytes that only its answer may carry."""
    values = np.arange(number % _LENGTHS + 1, dtype=np.int64)[None] + number * 1000
    payload = build_payload(_SIGNATURE, {"INPUT0": values}, rows=1, request_id=str(number))
    return payload.body, values.tobytes()


def mismatch(number: int, expected: bytes, answer: bytes) -> str | None:
    """Why an answer is not that request's, None when it is."""
    response = inference_pb2.ModelInferResponse.FromString(answer)
    if response.id != str(number):
        return f"request {number} got the answer with id '{response.id}'"
    if list(response.raw_output_contents) != [expected]:
        return f"request {number} got other values than it sent"
    if list(response.outputs[0].shape) != [1, len(expected) // 8]:
        return f"request {number} got shape {list(response.outputs[0].shape)}"
    return None


class Soak:
    """One run against one server."""

    def __init__(self, server: Served, folder: Path, *, requests: int, concurrency: int, cancel_share: float) -> None:
        self._server = server
        self._folder = folder
        self._requests = requests
        self._concurrency = concurrency
        self._cancel_share = cancel_share
        self._random = random.Random(0)  # noqa: S311 - which calls to cancel
        self._next = 0
        self._kill_window = False
        self._milestones: dict[int, asyncio.Event] = {}
        self.outcome = Outcome()
        self.memory = MemoryWatch(server.pid)

    async def run(self) -> None:
        """Send everything, and disturb the server early, so that the memory after it has time to show a leak."""
        async with InferClient(Target(url=self._server.url, connections=2, timeout_s=60.0)) as client:
            await client.wait_ready(MODEL, "", _READY_TIMEOUT_S)
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._caller(client))
                group.create_task(self._disturb(client))
                group.create_task(self._watch())

    async def _caller(self, client: InferClient) -> None:
        while self._next < self._requests:
            number = self._next
            self._next += 1
            await self._one(client, number)
            self.outcome.finished += 1
            if (milestone := self._milestones.pop(self.outcome.finished, None)) is not None:
                milestone.set()

    async def _one(self, client: InferClient, number: int) -> None:
        body, expected = body_of(number)
        call = client.start(body)
        cancels = self._random.random() < self._cancel_share
        if cancels:
            delay_s = self._random.random() * _CANCEL_WITHIN_S
            asyncio.get_running_loop().call_later(delay_s, call.cancel)
        try:
            answer = await call
        except asyncio.CancelledError:
            if not (cancels and call.cancelled()):
                raise
            self.outcome.cancelled_by_us += 1
        except grpc.aio.AioRpcError as error:
            self._failed(number, error)
        else:
            self.outcome.by_status["OK"] += 1
            wrong = mismatch(number, expected, answer)
            if wrong is not None:
                self.outcome.wrong.append(wrong)

    def _failed(self, number: int, error: grpc.aio.AioRpcError) -> None:
        self.outcome.by_status[STATUS_NAMES[status_number(error)]] += 1
        if error.code() is grpc.StatusCode.UNAVAILABLE and self._kill_window:
            self.outcome.lost_to_kill += 1
        else:
            self.outcome.failures.append(f"request {number}: {describe_error(error)}")

    async def _disturb(self, client: InferClient) -> None:
        await self._until(self._requests // 10)
        await self._kill_a_worker()
        await self._until(self._requests // 5)
        await self._reload(client)

    async def _kill_a_worker(self) -> None:
        before = worker_processes(self._server.pid)
        if not before:
            self.outcome.errors.append("the server has no worker process to kill")
            return
        self._kill_window = True
        killed_s = time.monotonic()
        before[0].kill()
        known = {process.pid for process in before}
        while time.monotonic() - killed_s < _READY_TIMEOUT_S:
            await asyncio.sleep(0.02)
            now = worker_processes(self._server.pid)
            # The dead one stays as a zombie until it is reaped, which worker_processes leaves out.
            if len(now) == len(before) and any(process.pid not in known for process in now):
                self.outcome.process_back_after_s = time.monotonic() - killed_s
                break
        # The news of a lost batch may reach its callers after the new process is there.
        await self._until(min(self._requests, self.outcome.finished + 2 * self._concurrency))
        self._kill_window = False

    async def _reload(self, client: InferClient) -> None:
        config = self._folder / MODEL / "config.pbtxt"
        staged = config.with_suffix(".new")
        staged.write_text(config_text(delay_us=700))
        staged.replace(config)
        try:
            await client.ask(
                "RepositoryModelLoad",
                inference_pb2.RepositoryModelLoadRequest(model_name=MODEL),
                inference_pb2.RepositoryModelLoadResponse.FromString,
            )
            answer = await client.ask(
                "ModelConfig",
                inference_pb2.ModelConfigRequest(name=MODEL),
                inference_pb2.ModelConfigResponse.FromString,
            )
        except grpc.aio.AioRpcError as error:
            self.outcome.errors.append(f"reload: {describe_error(error)}")
            return
        self.outcome.reloaded = answer.config.dynamic_batching.max_queue_delay_microseconds == 700

    async def _watch(self) -> None:
        every = max(1, self._requests // 100)
        for finished in range(every, self._requests + 1, every):
            await self._until(finished)
            self.memory.sample(self.outcome.finished / self._requests)

    async def _until(self, finished: int) -> None:
        if self.outcome.finished < finished:
            await self._milestones.setdefault(finished, asyncio.Event()).wait()

    def verdict(self) -> list[str]:
        """Everything that was promised and not kept."""
        outcome = self.outcome
        problems = [*outcome.wrong[:10], *outcome.failures[:10], *outcome.errors, *self.memory.growth()]
        if outcome.by_status.total() + outcome.cancelled_by_us != self._requests:
            problems.append(f"{self._requests} requests, but {outcome.by_status.total()} answers")
        if outcome.lost_to_kill > SLOTS * MAX_BATCH_SIZE:
            problems.append(f"the kill cost {outcome.lost_to_kill} requests; a worker holds {SLOTS * MAX_BATCH_SIZE}")
        if outcome.process_back_after_s is None or outcome.process_back_after_s > _BACK_WITHIN_S:
            problems.append(f"the killed worker's process was back after {outcome.process_back_after_s} s")
        if not outcome.reloaded:
            problems.append("the reload did not take effect")
        return problems


@click.command()
@click.option("--requests", default=50_000, show_default=True)
@click.option("--concurrency", default=32, show_default=True)
@click.option("--cancel-share", default=0.02, show_default=True, help="Share of calls given up at random.")
def main(requests: int, concurrency: int, cancel_share: float) -> None:
    """Run the soak against a server of its own and print what happened as JSON."""
    with tempfile.TemporaryDirectory(prefix="erg-soak-") as folder:
        root = Path(folder)
        (root / MODEL / "1").mkdir(parents=True)
        (root / MODEL / "config.pbtxt").write_text(config_text(delay_us=500))
        flags = ("--model-control-mode", "explicit", "--load-model", MODEL, "--cpu-workers", "2")
        with served(root, *flags) as server:
            soak = Soak(server, root, requests=requests, concurrency=concurrency, cancel_share=cancel_share)
            started_s = time.monotonic()
            asyncio.run(soak.run())
            wall_s = time.monotonic() - started_s
        problems = soak.verdict()
        document = {
            # A Counter does not survive asdict, which rebuilds it from pairs.
            **asdict(replace(soak.outcome, by_status=Counter())),
            "by_status": dict(soak.outcome.by_status),
            "wall_s": wall_s,
            "memory": soak.memory.to_json(),
            "problems": problems,
        }
        print(json.dumps(document, indent=2))
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
