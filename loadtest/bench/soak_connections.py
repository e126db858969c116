"""1,000,000 requests over 64 connections: callers cancel, run out of time and lose their connections at random.

    python -m bench.soak_connections

Every answer is compared with its request by the C++ clients (bench/cpp/soak_client.cc). Whatever does not end as its
caller brought about, and whatever the server still holds when all is over, makes the exit status 1.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import click
import psutil
from bench.build import built
from bench.memory import MemoryWatch, worker_processes
from bench.serving import Served, metric_samples, served
from bench.watched_server import Held, ask_held
from erg_loadtest.client import InferClient, Target

MODEL = "soak_identity"
CONFIG = """backend: "identity"
max_batch_size: 32
input [ { name: "INPUT0" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT64 dims: [ -1 ] } ]
dynamic_batching { max_queue_delay_microseconds: 500 }
"""
BROKEN = ("BACKEND", "OTHER")
"""Reasons of failures that no caller brings about."""
ENDS = ("answered", "cancelled", "deadline", "lost", "wrong", "failed")
_SETTLE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the server shows from outside and inside while nothing is asked of it."""

    held: Held
    descriptors: Mapping[str, int]
    """Open file descriptors of the front and of the workers together."""
    waiting: float
    successes: float
    failures: Mapping[str, float]


@dataclass(slots=True, kw_only=True)
class Run:
    """What the clients told."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wall_s: float = 0.0


def standing(server: Served, report: Path) -> Standing:
    """Look at a server that is at rest."""
    waiting = successes = 0.0
    failures: Counter[str] = Counter()
    for sample in metric_samples(server):
        if sample.name == "erg_queue_depth_requests":
            waiting += sample.value
        elif sample.name == "nv_inference_request_success":
            successes += sample.value
        elif sample.name == "erg_request_failures_total":
            failures[sample.labels["reason"]] += int(sample.value)
    return Standing(
        held=ask_held(server.pid, report),
        descriptors={
            "front": psutil.Process(server.pid).num_fds(),
            "workers": sum(worker.num_fds() for worker in worker_processes(server.pid)),
        },
        waiting=waiting,
        successes=successes,
        failures=dict(failures),
    )


def settled(server: Served, report: Path) -> Standing:
    """The server's standing once its connections are gone, or as it is when they should have been for long."""
    until_s = time.monotonic() + _SETTLE_S
    while (found := standing(server, report)).held.connections and time.monotonic() < until_s:
        time.sleep(0.2)
    return found


def left_behind(before: Standing, after: Standing) -> list[str]:
    """What the server still holds of requests and connections that are over."""
    held = after.held
    problems = [
        f"the server still holds {count} {name} objects; {before.held.passing.get(name, 0)} before"
        for name, count in held.passing.items()
        if count > before.held.passing.get(name, 0)
    ]
    if held.connections:
        problems.append(f"{held.connections} connections are still open")
    if held.held_bytes:
        problems.append(f"{held.held_bytes} bytes are still accounted to calls")
    if after.waiting:
        problems.append(f"{after.waiting:g} requests still wait")
    problems += [
        f"the {role} had {before.descriptors[role]} descriptors open and now {count}"
        for role, count in after.descriptors.items()
        if count != before.descriptors[role]
    ]
    return problems


def disagreements(counts: Mapping[str, int], before: Standing, after: Standing) -> list[str]:
    """Where the server's counts cannot be true if the clients' are."""
    successes = after.successes - before.successes
    failed = {reason: count - before.failures.get(reason, 0) for reason, count in after.failures.items()}
    ended = counts["cancelled"] + counts["deadline"] + counts["lost"]
    unseen = counts["sent"] - successes - sum(failed.values())
    problems = [f"the server counts {failed[reason]:g} failures by {reason}" for reason in BROKEN if failed.get(reason)]
    if successes < counts["answered"]:
        problems.append(f"the server counts {successes:g} answers, its callers got {counts['answered']}")
    if not 0 <= unseen <= ended:
        problems.append(f"{unseen:g} requests were not counted; {ended} may have ended before the queue")
    return problems


def unaccounted(run: Run, requests: int) -> list[str]:
    """Requests that did not end as their callers brought about."""
    counts = run.counts
    problems = [*run.failures, *(f"{counts[end]} requests ended {end}" for end in ENDS[4:] if counts[end])]
    if counts["sent"] != requests or sum(counts[end] for end in ENDS) != requests:
        problems.append(f"{requests} requests, {counts['sent']} sent, {sum(counts[end] for end in ENDS)} ended")
    problems += [f"no request ended {end}, so nothing is proved of it" for end in ENDS[:4] if not counts[end]]
    return problems


def call(commands: list[list[str]], memory: MemoryWatch, requests: int) -> Run:
    """Run the clients to their end, and read the server's memory at every hundredth of the way."""
    lines: SimpleQueue[tuple[int, str | None]] = SimpleQueue()

    def read(number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put((number, line))
        lines.put((number, None))

    run, done, started_s = Run(), Counter[int](), time.monotonic()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        for number, process in enumerate(processes):
            Thread(target=read, args=(number, process), daemon=True).start()
        for number, line in _until_all_end(lines, len(processes)):
            if line.startswith("done "):
                done[number] = int(line.split()[1])
                memory.sample(done.total() / requests)
            else:
                told = json.loads(line)
                run.failures += told.pop("failures")
                run.counts.update(told)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    run.wall_s = time.monotonic() - started_s
    return run


def _until_all_end(lines: SimpleQueue[tuple[int, str | None]], clients: int) -> Iterator[tuple[int, str]]:
    while clients:
        number, line = lines.get()
        if line is None:
            clients -= 1
        else:
            yield number, line


async def _ready(url: str) -> None:
    async with InferClient(Target(url=url)) as client:
        await client.wait_ready(MODEL, "", 60.0)


@click.command()
@click.option("--requests", default=1_000_000, show_default=True)
@click.option("--connections", default=64, show_default=True)
@click.option("--in-flight", default=256, show_default=True, help="Over all connections.")
@click.option("--clients", default=2, show_default=True, help="Client processes.")
@click.option("--cancel-share", default=0.03, show_default=True)
@click.option("--deadline-share", default=0.03, show_default=True, help="Share with a deadline of 0 to 20 ms.")
@click.option("--drop-share", default=0.002, show_default=True, help="Connections torn away, by requests.")
@click.option("--large-share", default=0.01, show_default=True, help="Share with 600 KB to 2 MB.")
@click.option("--build", type=click.Path(path_type=Path), default=None, help="Where the C++ client is built.")
def main(requests: int, connections: int, in_flight: int, clients: int, build: Path | None, **shares: float) -> None:
    """Run the soak against a server of its own and print what happened as JSON."""
    client = built("soak_client", build)
    stated = [str(shares[name]) for name in ("cancel_share", "deadline_share", "drop_share", "large_share")]
    with tempfile.TemporaryDirectory(prefix="erg-soak-") as folder:
        root, report = Path(folder) / "models", Path(folder) / "report.json"
        (root / MODEL / "1").mkdir(parents=True)
        (root / MODEL / "config.pbtxt").write_text(CONFIG)
        with served(root, "--cpu-workers", "2", program=("bench.watched_server", str(report))) as server:
            asyncio.run(_ready(server.url))
            commands = [
                [str(client), server.url.rpartition(":")[2], MODEL, str(requests // clients),
                 str(connections // clients), str(in_flight // clients), str(number * requests), *stated]
                for number in range(clients)
            ]  # fmt: skip
            memory = MemoryWatch(server.pid)
            before = settled(server, report)
            run = call(commands, memory, requests)
            after = settled(server, report)
    problems = unaccounted(run, requests // clients * clients) + memory.growth()
    problems += left_behind(before, after) + disagreements(run.counts, before, after)
    document = {
        "clients": dict(run.counts),
        "before": asdict(before),
        "after": asdict(after),
        "wall_s": run.wall_s,
        "memory": memory.to_json(),
        "problems": problems,
    }
    print(json.dumps(document, indent=2))
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
