"""Two real models on the same workers, one of them in bursts; and one model offered three times what it can do.

    python -m bench.sharing --model-repository ../model_repo
    python -m bench.sharing --model-repository ../model_repo --only sharing --quiet efficientnet_lite0 --burst minilm

Sharing: the quiet model gets a steady Poisson load of 15 % of a core, alone and while the other one gets bursts of
three times what all workers can do. Its p99 with bursts to its p99 alone is to stay below 1.5. The same without
objectives.

Overload: one model is offered three times its capacity. Goodput is what is answered within the objective, a second,
counted at the client from when a request was due; it is to reach 90 % of the capacity, a closed loop's rate.

An objective is so many times (--objective-times) what a batch of one row takes on a worker, measured first. Cases take
turns, so that all meet the same machine. Client, front and workers share its cores: the table says what each had of
them, what other programs had ("others"), and how late the client sent. Where others had more than a few percent of a
core, or the client was a millisecond late, latencies are theirs as much as the server's. Needs the C++ compiler and
libraries that bench/build.py names.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click
import numpy as np
import psutil
from bench.build import built
from bench.serving import Served, served
from erg_loadtest.arrivals import NS_PER_S, PoissonRate, due_offsets_ns
from erg_loadtest.client import InferClient, Target
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.samples import OK, STATUS_NAMES, Int64s, Samples
from erg_loadtest.server_cpu import CpuSeconds, ProcessTreeCpuMeter
from erg_loadtest.tensors import Array, Signature, numpy_dtype
from erg_server.pb import inference_pb2, model_config_pb2
from erg_server.repository.layout import versions_on_disk
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

SHARE_WANTED = 1.5
GOODPUT_WANTED = 0.9
REFUSAL_WANTED_MS = 1.0
_DISTINCT = 16
_READY_S = 120.0
_LEAD_NS = 50_000_000
"""From telling the clients until they start together."""
_DRAIN_S = 120.0
"""How long answers may take after the last request was due: without objectives nothing is refused."""
_REFUSED = STATUS_NAMES.index("RESOURCE_EXHAUSTED")
_LATE = STATUS_NAMES.index("DEADLINE_EXCEEDED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one client sends to one model: due times, or so many callers in a closed loop."""

    model: str
    payloads: Sequence[Payload]
    due_ns: Int64s
    in_flight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server counted of one model; `since` gives a run's."""

    rows: int = 0
    batches: int = 0
    refused: int = 0
    dropped: int = 0
    met: int = 0
    late: int = 0
    failed: int = 0
    failed_ns: int = 0

    def since(self, before: Counts) -> Counts:
        """What was added after `before`."""
        return Counts(**{name: getattr(self, name) - getattr(before, name) for name in Counts.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What became of one stream."""

    samples: Samples
    client_cpu_s: float
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run: its streams by model, and what each kind of process had of a core."""

    wall_s: float
    parts: Mapping[str, Part]
    front_cpu_s: float
    workers_cpu_s: float
    others_cpu_s: float

    @property
    def client_cpu_s(self) -> float:
        """Of all clients."""
        return sum(part.client_cpu_s for part in self.parts.values())


@dataclass(slots=True, kw_only=True)
class Bench:
    """What all runs share."""

    console: Console
    client: Path
    folder: Path
    tree_pids: list[int] = field(default_factory=list)
    """Servers of this benchmark; what is spent besides them and the clients is others'."""

    def run(self, title: str, server: Served, streams: Sequence[Stream], seconds: float) -> Run:
        """Send all streams at once and wait for every answer."""
        self.console.print(f"{time.strftime('%H:%M:%S')} {title}, {seconds:g} s", highlight=False)
        before = {stream.model: asyncio.run(read_counts(server, stream.model)) for stream in streams}
        with ExitStack() as stack:
            senders = [
                stack.enter_context(Sender(self.client, self.folder / f"{index}", server.url, stream, seconds))
                for index, stream in enumerate(streams)
            ]
            meter = ProcessTreeCpuMeter(server.pid)
            cpu_before, ours_before, all_before = meter.read(), self._ours_s(), busy_s()
            start_ns = time.monotonic_ns() + _LEAD_NS
            for sender in senders:
                sender.start(start_ns)
            ended = [sender.wait(seconds + _DRAIN_S) for sender in senders]
            wall_s = (time.monotonic_ns() - start_ns) / NS_PER_S
            cpu, ours_s, all_s = meter.read(), self._ours_s(), busy_s()
        spent = cpu.since(cpu_before)
        if not isinstance(spent, CpuSeconds):
            raise click.ClickException(spent)
        clients_s = sum(cpu_s for _, cpu_s in ended)
        return Run(
            wall_s=wall_s,
            parts={
                stream.model: Part(
                    samples=samples,
                    client_cpu_s=cpu_s,
                    counts=asyncio.run(read_counts(server, stream.model)).since(before[stream.model]),
                )
                for stream, (samples, cpu_s) in zip(streams, ended, strict=True)
            },
            front_cpu_s=spent.front,
            workers_cpu_s=sum(spent.by_worker.values()),
            others_cpu_s=max(0.0, all_s - all_before - (ours_s - ours_before) - clients_s),
        )

    def _ours_s(self) -> float:
        own = sum(psutil.Process().cpu_times()[:2])
        trees = [ProcessTreeCpuMeter(pid).read() for pid in self.tree_pids]
        return own + sum(tree.front + sum(tree.by_worker.values()) for tree in trees)


class Sender:
    """One process of the C++ client, which keeps its due times whatever this process does."""

    def __init__(self, client: Path, folder: Path, url: str, stream: Stream, seconds: float) -> None:
        folder.mkdir(exist_ok=True)
        plan, self._samples = folder / "plan", folder / "samples"
        bodies = [payload.body for payload in stream.payloads]
        due_ns = stream.due_ns.astype("<i8")
        head = np.array([len(bodies), len(due_ns), *map(len, bodies)], "<i8")
        turns = np.arange(len(due_ns), dtype="<i8") % len(bodies)
        plan.write_bytes(b"".join((head.tobytes(), *bodies, due_ns.tobytes(), turns.tobytes())))
        command = [str(client), url, str(plan), str(self._samples), str(stream.in_flight), str(seconds)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.kill()
            raise click.ClickException(f"the client ended early, with code {self._process.wait()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self, at_ns: int) -> None:
        """Let it start at that time of the monotonic clock."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{at_ns}\n")
        self._process.stdin.flush()

    def wait(self, timeout_s: float) -> tuple[Samples, float]:
        """Every request's fate, and the CPU seconds that sending took."""
        out, _ = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise click.ClickException(f"the client ended with code {self._process.returncode}")
        columns = np.fromfile(self._samples, "<i8").reshape(-1, 4).T.astype(np.int64)
        due_ns, sent_ns, done_ns, status = columns
        return (
            Samples(due_ns=due_ns, sent_ns=sent_ns, done_ns=done_ns, status=status, payload=np.zeros_like(status)),
            float(out),
        )


def busy_s() -> float:
    """CPU seconds that the machine's cores have spent on anything."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def scrape(url: str) -> str:
    """The server's metrics."""
    with urllib.request.urlopen(url) as response:  # noqa: S310 - our own server
        body: bytes = response.read()
    return body.decode()


async def read_counts(server: Served, model: str) -> Counts:
    """The server's counters of a model."""
    async with InferClient(Target(url=server.url)) as client:
        answer = await client.ask(
            "ModelStatistics",
            inference_pb2.ModelStatisticsRequest(name=model),
            inference_pb2.ModelStatisticsResponse.FromString,
        )
    text = await asyncio.to_thread(scrape, server.metrics_url)
    refused = 0
    outcomes = {"met": 0, "late": 0, "dropped": 0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") != model:
                continue
            if sample.name == "erg_request_refusals_total":
                refused += int(sample.value)
            elif sample.name == "erg_deadline_requests_total":
                outcomes[sample.labels["outcome"]] += int(sample.value)
    entries = list(answer.model_stats)
    return Counts(
        rows=sum(entry.inference_count for entry in entries),
        batches=sum(entry.execution_count for entry in entries),
        refused=refused,
        failed=sum(entry.inference_stats.fail.count for entry in entries),
        failed_ns=sum(entry.inference_stats.fail.ns for entry in entries),
        **outcomes,
    )


async def single_row_ns(server: Served, model: str) -> tuple[int, int]:
    """How many rows ran so far and the nanoseconds that their batches took; for batches of one row."""
    async with InferClient(Target(url=server.url)) as client:
        answer = await client.ask(
            "ModelStatistics",
            inference_pb2.ModelStatisticsRequest(name=model),
            inference_pb2.ModelStatisticsResponse.FromString,
        )
    batches = [batch for entry in answer.model_stats for batch in entry.batch_stats if batch.batch_size == 1]
    return sum(batch.compute_infer.count for batch in batches), sum(
        batch.compute_input.ns + batch.compute_infer.ns + batch.compute_output.ns for batch in batches
    )


async def read_signature(server: Served, model: str) -> Signature:
    """The served model's signature, once it is ready."""
    async with InferClient(Target(url=server.url)) as client:
        await client.wait_ready(model, "", _READY_S)
        return await client.signature(model)


def payloads_of(signature: Signature, length: int) -> list[Payload]:
    """Requests of one row: random tokens of that length with their mask, or random floats."""
    payloads = []
    for seed in range(_DISTINCT):
        generator = np.random.default_rng(seed)
        tensors: dict[str, Array] = {}
        for spec in signature.inputs:
            shape = [1, *(size if size > 0 else length for size in spec.shape[1:])]
            dtype = numpy_dtype(spec.datatype)
            if "mask" in spec.name:
                tensors[spec.name] = np.ones(shape, dtype)
            elif np.issubdtype(dtype, np.integer):
                tensors[spec.name] = generator.integers(1000, 29_000, size=shape).astype(dtype)
            else:
                tensors[spec.name] = generator.standard_normal(shape).astype(dtype)
        payloads.append(build_payload(signature, tensors, rows=1))
    return payloads


def steady_ns(rate_per_s: float, seconds: float, seed: int) -> Int64s:
    """Poisson arrivals all the time."""
    due_ns: list[int] = []
    for offset_ns in due_offsets_ns(PoissonRate(rate_per_s=rate_per_s, seed=seed)):
        if offset_ns >= seconds * NS_PER_S:
            break
        due_ns.append(offset_ns)
    return np.array(due_ns, np.int64)


def bursts_ns(rate_per_s: float, seconds: float, seed: int, *, burst_s: float, every_s: float) -> Int64s:
    """Poisson arrivals in the last `burst_s` of each `every_s`, nothing between."""
    active_ns = steady_ns(rate_per_s, seconds // every_s * burst_s, seed)
    burst_ns = round(burst_s * NS_PER_S)
    return (
        active_ns // burst_ns * round(every_s * NS_PER_S) + round((every_s - burst_s) * NS_PER_S) + active_ns % burst_ns
    )


def write_repository(source: Path, models: Sequence[str], target: Path, objectives_ms: Mapping[str, float]) -> None:
    """The newest versions of the models, with objectives in their configurations where there are any."""
    for model in models:
        versions = versions_on_disk(source / model)
        if not versions:
            raise click.ClickException(f"{source / model} has no version: build it first (erg convert run)")
        config = model_config_pb2.ModelConfig()
        text_format.Parse((source / model / "config.pbtxt").read_text(encoding="utf-8"), config)
        config.ClearField("version_policy")
        if model in objectives_ms:
            config.erg.slo.p99_ms = objectives_ms[model]
        folder = target / model
        folder.mkdir(parents=True)
        (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        newest = str(max(versions))
        # Copied, since a linked folder is no version.
        shutil.copytree(source / model / newest, folder / newest)


def percentile_ms(durations_ns: Int64s, percentile: float) -> float:
    """Nearest rank, in milliseconds; NaN of nothing."""
    return (
        float(np.percentile(durations_ns, percentile, method="inverted_cdf")) / 1e6 if len(durations_ns) else math.nan
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What was measured first, and what follows from it."""

    single_ms: Mapping[str, float]
    capacity_per_s: Mapping[str, float]
    objective_ms: Mapping[str, float]
    payloads: Mapping[str, Sequence[Payload]]


def calibrate(bench: Bench, server: Served, models: Sequence[str], *, length: int, times: float, callers: int) -> Loads:
    """A row's time, the saturated rate and so the objectives, from the server without any."""
    single_ms, capacity, payloads = {}, {}, {}
    nothing = np.empty(0, np.int64)
    for model in models:
        payloads[model] = payloads_of(asyncio.run(read_signature(server, model)), length)
        alone = Stream(model=model, payloads=payloads[model], due_ns=nothing, in_flight=1)
        many = Stream(model=model, payloads=payloads[model], due_ns=nothing, in_flight=callers)
        bench.run(f"{model}: warm-up", server, [many], 1.0)
        slices = []
        for _ in range(3):
            rows, spent_ns = asyncio.run(single_row_ns(server, model))
            bench.run(f"{model}: a row alone", server, [alone], 1.0)
            rows_after, spent_after_ns = asyncio.run(single_row_ns(server, model))
            slices.append((spent_after_ns - spent_ns) / (rows_after - rows) / 1e6)
        # The least disturbed slice: what others take of the machine is not the model's.
        single_ms[model] = min(slices)
        capacity[model] = max(
            answered_per_s(bench.run(f"{model}: {callers} callers", server, [many], 1.5), model) for _ in range(3)
        )
    return Loads(
        single_ms=single_ms,
        capacity_per_s=capacity,
        objective_ms={model: float(math.ceil(times * single)) for model, single in single_ms.items()},
        payloads=payloads,
    )


def answered_per_s(run: Run, model: str) -> float:
    """Answers a second until the last one."""
    samples = run.parts[model].samples
    return int(samples.succeeded.sum()) / (samples.window_ns() / NS_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the sharing part sends."""

    quiet: str
    burst: str
    quiet_per_s: float
    burst_per_s: float
    seconds: float
    burst_s: float
    every_s: float


def sharing_streams(pace: Pace, loads: Loads, seed: int) -> tuple[Stream, Stream]:
    """The quiet model's stream and the other's; the same for the same seed."""
    return (
        Stream(
            model=pace.quiet,
            payloads=loads.payloads[pace.quiet],
            due_ns=steady_ns(pace.quiet_per_s, pace.seconds, seed),
        ),
        Stream(
            model=pace.burst,
            payloads=loads.payloads[pace.burst],
            due_ns=bursts_ns(
                pace.burst_per_s, pace.seconds, seed + 1, burst_s=pace.burst_s, every_s=pace.every_s
            ),
        ),
    )  # fmt: skip


def sharing(
    bench: Bench, servers: Mapping[str, Served], pace: Pace, loads: Loads, *, rounds: int, seed: int
) -> dict[str, list[Run]]:
    """Every case once a round, in turns; the arrivals of a round are the same in each case."""
    runs: dict[str, list[Run]] = {}
    for number in range(rounds):
        quiet, burst = sharing_streams(pace, loads, seed + 1000 * number)
        for kind, server in servers.items():
            for case, streams in (("alone", [quiet]), ("bursts", [quiet, burst])):
                title = f"round {number + 1} of {rounds}, {kind}: {pace.quiet} {case}"
                runs.setdefault(f"{kind}, {case}", []).append(bench.run(title, server, streams, pace.seconds))
    return runs


def pooled_ms(runs: Sequence[Run], model: str, percentile: float) -> float:
    """Over the answers of all rounds, from when each was due."""
    return percentile_ms(
        np.concatenate([latencies_ns(run.parts[model].samples) for run in runs]), percentile
    )  # fmt: skip


def latencies_ns(samples: Samples) -> Int64s:
    """Of the answered, from due to done."""
    good = samples.succeeded
    return samples.done_ns[good] - samples.due_ns[good]


def sharing_tables(runs: Mapping[str, Sequence[Run]], pace: Pace, loads: Loads) -> list[Table]:
    """The quiet model's figures, then the other's and the machine's."""
    quiet = Table(
        "",
        "sent",
        "answered",
        "refused",
        "in objective",
        "p50 ms",
        "p99 ms",
        "p99 ÷ alone",
        "by round",
        title=pace.quiet,
    )
    rest = Table(
        "", "answered", "refused", "dropped", "mean batch", "front", "workers", "client", "others",
        "client late p99 ms", title=f"{pace.burst} in bursts, and who had how much of a core",
    )  # fmt: skip
    objective_ns = loads.objective_ms[pace.quiet] * 1e6
    for name, each in runs.items():
        alone = runs[f"{name.partition(', ')[0]}, alone"]
        samples = [run.parts[pace.quiet].samples for run in each]
        sent = sum(map(len, samples))
        latencies = [latencies_ns(entry) for entry in samples]
        p99s = [percentile_ms(entry, 99) for entry in latencies]
        alone_p99s = [percentile_ms(latencies_ns(run.parts[pace.quiet].samples), 99) for run in alone]
        p99 = pooled_ms(each, pace.quiet, 99)
        quiet.add_row(
            name,
            str(sent),
            f"{sum(map(len, latencies)) / sent:.1%}",
            f"{sum(int((entry.status == _REFUSED).sum()) for entry in samples) / sent:.1%}",
            f"{sum(int((entry <= objective_ns).sum()) for entry in latencies) / sent:.1%}",
            f"{pooled_ms(each, pace.quiet, 50):.2f}",
            f"{p99:.2f}",
            "" if each is alone else f"{p99 / pooled_ms(alone, pace.quiet, 99):.2f}",
            " ".join(f"{p99 / base:.2f}" for p99, base in zip(p99s, alone_p99s, strict=True))
            if each is not alone
            else "",
        )
        other = [run.parts[pace.burst] for run in each if pace.burst in run.parts]
        rest.add_row(name, *shares(other), *cores(each), f"{lateness_ms(each):.2f}")
    return [quiet, rest]


def shares(parts: Sequence[Part]) -> list[str]:
    """Answered, refused and late of what was sent, and the mean batch."""
    status = np.concatenate([part.samples.status for part in parts]) if parts else np.empty(0, np.int64)
    if not len(status):
        return [""] * 4
    return [
        *(f"{float((status == code).mean()):.1%}" for code in (OK, _REFUSED, _LATE)),
        f"{sum(part.counts.rows for part in parts) / max(1, sum(part.counts.batches for part in parts)):.1f}",
    ]


def cores(runs: Sequence[Run]) -> list[str]:
    """What front, workers, client and others had, in percent of one core."""
    wall_s = sum(run.wall_s for run in runs)
    figures = ("front_cpu_s", "workers_cpu_s", "client_cpu_s", "others_cpu_s")
    return [f"{sum(getattr(run, figure) for run in runs) / wall_s:.0%}" for figure in figures]


def lateness_ms(runs: Sequence[Run]) -> float:
    """The 99th percentile of how much after its time a request was sent, of all streams."""
    late = [part.samples.sent_ns - part.samples.due_ns for run in runs for part in run.parts.values()]
    return percentile_ms(np.concatenate(late), 99)


def overload(
    bench: Bench, servers: Mapping[str, Served], model: str, loads: Loads, *, times: float, rounds: int, seconds: float,
    callers: int, seed: int,
) -> list[tuple[Run, Run]]:  # fmt: skip
    """The capacity, by a closed loop without objectives, and the overload, in turns."""
    pairs = []
    payloads = loads.payloads[model]
    for number in range(rounds):
        label = f"round {number + 1} of {rounds}, {model}"
        closed = Stream(model=model, payloads=payloads, due_ns=np.empty(0, np.int64), in_flight=callers)
        capacity = bench.run(f"{label}: capacity, {callers} callers", servers["without"], [closed], seconds / 2)
        due_ns = steady_ns(times * answered_per_s(capacity, model), seconds, seed + number)
        offered = Stream(model=model, payloads=payloads, due_ns=due_ns)
        pairs.append((capacity, bench.run(f"{label}: {times:g} times that", servers["objectives"], [offered], seconds)))
    return pairs


def overload_table(pairs: Sequence[tuple[Run, Run]], model: str, loads: Loads) -> Table:
    """Goodput beside capacity, and how fast refusals were, a round a column."""
    table = Table("", title=f"{model}, objective {loads.objective_ms[model]:g} ms")
    columns = []
    for number, (capacity, run) in enumerate(pairs, 1):
        table.add_column(f"round {number}", justify="right")
        columns.append(overload_figures(capacity, run, model, loads))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def overload_figures(capacity: Run, run: Run, model: str, loads: Loads) -> dict[str, str]:
    """One round, by the names of its figures."""
    part = run.parts[model]
    samples, counts = part.samples, part.counts
    refused = samples.status == _REFUSED
    refusals_ns = (samples.done_ns - samples.sent_ns)[refused]
    late = int(samples.succeeded.sum()) - in_objective(samples, loads.objective_ms[model])
    figures = {
        "capacity /s": f"{answered_per_s(capacity, model):.0f}",
        "offered /s": f"{len(samples) / sent_s(samples):.0f}",
        "goodput /s": f"{in_objective(samples, loads.objective_ms[model]) / sent_s(samples):.0f}",
        "goodput ÷ capacity": f"{goodput(capacity, run, model, loads):.2f}",
        "the same for a second of the workers' CPU": f"{goodput_of_cpu(capacity, run, model, loads):.2f}",
        "answered late": f"{late / len(samples):.1%}",
        "refused": f"{float(refused.mean()):.1%}",
        "dropped": f"{float((samples.status == _LATE).mean()):.1%}",
        "a refusal at the client, p50 ms": f"{percentile_ms(refusals_ns, 50):.2f}",
        "a refusal at the client, p99 ms": f"{percentile_ms(refusals_ns, 99):.2f}",
        "refusals and drops in the server, mean ms": f"{counts.failed_ns / 1e6 / max(1, counts.failed):.3f}",
    }
    for name, each in (("capacity", capacity), ("overload", run)):
        counts = each.parts[model].counts
        figures[f"{name}: mean batch"] = f"{counts.rows / max(1, counts.batches):.1f}"
        figures[f"{name}: front, workers, client, others"] = " ".join(cores([each]))
        figures[f"{name}: client late, p99 ms"] = f"{lateness_ms([each]):.2f}"
    return figures


def sent_s(samples: Samples) -> float:
    """From the first request to the last."""
    return (int(samples.due_ns.max()) - int(samples.due_ns.min())) / NS_PER_S


def in_objective(samples: Samples, objective_ms: float) -> int:
    """How many were answered within the objective of when they were due."""
    return int((latencies_ns(samples) <= objective_ms * 1e6).sum())


def goodput(capacity: Run, run: Run, model: str, loads: Loads) -> float:
    """To the capacity."""
    samples = run.parts[model].samples
    return in_objective(samples, loads.objective_ms[model]) / sent_s(samples) / answered_per_s(capacity, model)


def goodput_of_cpu(capacity: Run, run: Run, model: str, loads: Loads) -> float:
    """To the capacity, each for the CPU time that the workers had: what refusing and sending took from them is out."""
    good = in_objective(run.parts[model].samples, loads.objective_ms[model])
    answered = int(capacity.parts[model].samples.succeeded.sum())
    return (good / run.workers_cpu_s) / (answered / capacity.workers_cpu_s)


@click.command(help=(__doc__ or "").replace("\n\n", "\n\n\b\n", 1))
@click.option("--model-repository", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--only", type=click.Choice(["sharing", "overload"]), help="One part alone.")
@click.option("--quiet", default="minilm", show_default=True, help="The model with the steady load.")
@click.option("--burst", default="efficientnet_lite0", show_default=True, help="The model in bursts.")
@click.option("--overloaded", default="minilm", show_default=True, help="The model that is offered too much.")
@click.option("--length", default=32, show_default=True, help="Of axes that have no size in the configuration.")
@click.option(
    "--objective-times", default=10.0, show_default=True, help="An objective, in times of a row's time alone."
)
@click.option("--quiet-share", default=0.15, show_default=True, help="Of a core, the quiet model's load.")
@click.option("--overload-times", default=3.0, show_default=True, help="What is offered, in times of the capacity.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=12.0, show_default=True, help="Of a run of the sharing part.")
@click.option("--overload-seconds", default=20.0, show_default=True, help="Of a run of the overload part.")
@click.option("--burst-seconds", default=2.0, show_default=True)
@click.option("--every-seconds", default=4.0, show_default=True, help="A burst ends so long after the one before.")
@click.option("--callers", default=32, show_default=True, help="Of the closed loop that measures a capacity.")
@click.option("--workers", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the arrivals.")
@click.option("--build", default="compiled", show_default=True, type=click.Choice(["compiled", "plain"]))
@click.option("--client-build", type=click.Path(path_type=Path), help="Where the C++ client is built.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here as JSON.")
def main(
    *, model_repository: Path, only: str | None, quiet: str, burst: str, overloaded: str, length: int,
    objective_times: float, quiet_share: float, overload_times: float, rounds: int, seconds: float,
    overload_seconds: float, burst_seconds: float, every_seconds: float, callers: int, workers: int, seed: int,
    build: str, client_build: Path | None, output: Path | None,
) -> None:  # fmt: skip
    """Measure, and print what was wanted beside what was found."""
    console = Console(width=130)
    console.print("building the client")
    models = [overloaded] if only == "overload" else list(dict.fromkeys((quiet, burst)))
    if only is None and overloaded not in models:
        models.append(overloaded)
    flags = ("--cpu-workers", str(workers))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-bench-")))
        bench = Bench(console=console, client=built("paced_client", client_build), folder=folder)
        write_repository(model_repository, models, folder / "without", {})
        without = stack.enter_context(served(folder / "without", *flags, build=build))
        bench.tree_pids.append(without.pid)
        loads = calibrate(bench, without, models, length=length, times=objective_times, callers=callers)
        for model in models:
            console.print(
                f"{model}: a row takes {loads.single_ms[model]:.2f} ms, {callers} callers get "
                f"{loads.capacity_per_s[model]:.0f} a second, the objective is {loads.objective_ms[model]:g} ms"
            )
        write_repository(model_repository, models, folder / "objectives", loads.objective_ms)
        objectives = stack.enter_context(served(folder / "objectives", *flags, build=build))
        for model in models:
            asyncio.run(read_signature(objectives, model))
            steady = Stream(model=model, payloads=loads.payloads[model], due_ns=steady_ns(50.0, 1.0, seed))
            bench.run(f"{model}: warm-up", objectives, [steady], 1.0)
        bench.tree_pids.append(objectives.pid)
        servers = {"objectives": objectives, "without": without}
        tables: list[Table] = []
        shared: dict[str, list[Run]] = {}
        pairs: list[tuple[Run, Run]] = []
        if only != "overload":
            pace = Pace(
                quiet=quiet,
                burst=burst,
                quiet_per_s=quiet_share * 1e3 / loads.single_ms[quiet],
                burst_per_s=overload_times * loads.capacity_per_s[burst],
                seconds=seconds,
                burst_s=burst_seconds,
                every_s=every_seconds,
            )
            shared = sharing(bench, servers, pace, loads, rounds=rounds, seed=seed)
            tables += sharing_tables(shared, pace, loads)
        if only != "sharing":
            pairs = overload(
                bench, servers, overloaded, loads, times=overload_times, rounds=rounds, seconds=overload_seconds,
                callers=callers, seed=seed,
            )  # fmt: skip
            tables.append(overload_table(pairs, overloaded, loads))
    for table in tables:
        console.print(table)
    if shared:
        ratio = pooled_ms(shared["objectives, bursts"], quiet, 99) / pooled_ms(shared["objectives, alone"], quiet, 99)
        verdict(console, f"{quiet}'s p99 with bursts ÷ alone", ratio, f"≤ {SHARE_WANTED}", ratio <= SHARE_WANTED)
    if pairs:
        ratio, p99_ms = overload_verdicts(pairs, overloaded, loads)
        verdict(console, "goodput ÷ capacity", ratio, f"≥ {GOODPUT_WANTED}", ratio >= GOODPUT_WANTED)
        within = p99_ms <= REFUSAL_WANTED_MS
        verdict(console, "refusals' p99 at the client, ms", p99_ms, f"≤ {REFUSAL_WANTED_MS:g}", within)
    if output is not None:
        output.write_text(json.dumps(document(loads, shared, pairs), indent=2) + "\n", encoding="utf-8")


def overload_verdicts(pairs: Sequence[tuple[Run, Run]], model: str, loads: Loads) -> tuple[float, float]:
    """Goodput to capacity, the median of the rounds, and the p99 of a refusal in milliseconds, of all of them."""
    refusals = [
        (samples.done_ns - samples.sent_ns)[samples.status == _REFUSED]
        for samples in (run.parts[model].samples for _, run in pairs)
    ]
    ratio = statistics.median(goodput(capacity, run, model, loads) for capacity, run in pairs)
    return ratio, percentile_ms(np.concatenate(refusals), 99)


def verdict(console: Console, what: str, value: float, wanted: str, reached: bool) -> None:
    """One figure beside the wanted one."""
    console.print(f"{what}: {value:.2f}, wanted {wanted}: {'reached' if reached else 'missed'}", highlight=False)


def document(
    loads: Loads, shared: Mapping[str, Sequence[Run]], pairs: Sequence[tuple[Run, Run]]
) -> dict[str, Any]:  # fmt: skip
    """All figures as plain values."""
    return {
        "single_row_ms": dict(loads.single_ms),
        "capacity_per_s": dict(loads.capacity_per_s),
        "objective_ms": dict(loads.objective_ms),
        "sharing": {name: [run_json(run) for run in runs] for name, runs in shared.items()},
        "overload": [{"capacity": run_json(capacity), "overload": run_json(run)} for capacity, run in pairs],
    }


def run_json(run: Run) -> dict[str, Any]:
    """One run's figures."""
    return {
        "wall_s": run.wall_s,
        "front_cpu_s": run.front_cpu_s,
        "workers_cpu_s": run.workers_cpu_s,
        "client_cpu_s": run.client_cpu_s,
        "others_cpu_s": run.others_cpu_s,
        "models": {
            model: {
                "count_by_status": part.samples.count_by_status(),
                "latency_ms": {f"p{rank}": percentile_ms(latencies_ns(part.samples), rank) for rank in (50, 90, 99)},
                "late_sent_p99_ms": percentile_ms(part.samples.sent_ns - part.samples.due_ns, 99),
                "server": {name: getattr(part.counts, name) for name in Counts.__slots__},
            }
            for model, part in run.parts.items()
        },
    }


if __name__ == "__main__":
    main()
