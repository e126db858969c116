"""One run: builds what is missing, sets up each server, picks the rivals' settings, and lets all take turns."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import uvloop
from bench.front import write_mlp
from bench.minilm import write_plain
from bench.published.figures import CONVERTED, ERG, LoadReport, NotRun, RawTurn, Record, Tried, Turn, best_setting
from bench.published.machine import on_cores
from bench.published.measure import compared, reference, take_turn
from bench.published.models import BenchModel, converted_artifact, newest_version
from bench.published.servers import SETTINGS, Batching, Running, erg, mlserver, mosec
from bench.raw_onnxruntime import RawRun, best, measure_raw
from erg_loadtest.errors import LoadTestError
from erg_loadtest.tensors import Array
from rich.console import Console

ROOT = Path(__file__).parents[3]
_RAW_BATCHES = (1, 2, 4, 8, 16)
_LEAST_COSINE = {ERG: 0.9999, CONVERTED: 0.95, "MLServer": 0.9999, "Mosec": 0.9999}
"""Below, the answer is another request's, or wrong. What conversion may lose is its own gate's matter."""

_Result = TypeVar("_Result")
Start = Callable[[Batching], AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do, and where."""

    models: tuple[BenchModel, ...]
    repository: Path
    environments: Path
    rounds: int
    seconds: float
    server_cores: tuple[int, ...]
    client_cores: tuple[int, ...]
    build: str

    @property
    def tuning_s(self) -> float:
        """For each load of each setting that is tried."""
        return min(1.5, self.seconds)


class Run:
    """Fills a record; one model after the other, since their servers would share the memory bandwidth."""

    def __init__(self, plan: Plan, record: Record, console: Console) -> None:
        self._plan = plan
        self._record = record
        self._console = console

    def all(self) -> None:
        """Every model; what cannot run is recorded with the reason, and the rest goes on."""
        for model in self._plan.models:
            self._record.titles[model.name] = model.title
            try:
                self._model(model)
            except (LoadTestError, click.ClickException, OSError, RuntimeError) as error:
                self._missing(model.name, "", str(error))

    def _model(self, model: BenchModel) -> None:
        self._console.rule(model.title)
        with ExitStack() as stack:
            aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-bench-")))
            onnx, converted = self._files(model, aside)
            wanted = reference(model, onnx)
            rivals = {
                "MLServer": self._rival("MLServer", mlserver, model, onnx),
                "Mosec": self._rival("Mosec", mosec, model, onnx),
            }
            settings = {name: self._tuned(model, name, start) for name, start in rivals.items()}
            makers: dict[str, Callable[[], AbstractContextManager[Running]]] = {
                ERG: lambda: self._erg(ERG, aside, model)
            }
            if converted is not None:
                makers[CONVERTED] = lambda: self._erg(CONVERTED, self._plan.repository, model)
            for name, start in rivals.items():
                chosen = settings[name]
                if chosen is not None:
                    makers[name] = lambda start=start, chosen=chosen: start(chosen)  # type: ignore[misc]
            servers = self._started(stack, makers, model, wanted)
            told = self._record.answers.get(model.name, {})
            if CONVERTED in told:
                told[CONVERTED] = f"as {converted}, {told[CONVERTED]}"
            self._rounds(model, onnx, servers)
            if not self._record.reports:
                try:
                    self._record.reports += self._load_reports(model, servers)
                except LoadTestError as error:
                    self._missing(model.name, "`erg load`", str(error))

    def _files(self, model: BenchModel, aside: Path) -> tuple[Path, str | None]:
        """The plain model, in a repository of its own in `aside`, and what won as it was converted."""
        if model.recipe is None:
            write_mlp(aside)
            return aside / model.name / "1" / "model.onnx", None
        version = newest_version(self._plan.repository, model.name)
        if version is None:
            self._console.print(f"{model.name} is not built yet: erg convert run {model.recipe}", highlight=False)
            command = [sys.executable, "-m", "erg_server", "convert", "run", model.recipe]
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                raise LoadTestError(f"`erg convert run {model.recipe}` failed")
            version = newest_version(self._plan.repository, model.name)
        if version is None:
            raise LoadTestError(f"{self._plan.repository} has no version of it; the recipe publishes into model_repo")
        onnx = version / "model.onnx"
        if not onnx.is_file():
            raise LoadTestError(f"{version} has no plain model.onnx")
        write_plain(self._plan.repository / model.name, onnx, aside / model.name)
        return onnx, converted_artifact(version)

    def _rival(
        self, name: str, maker: Callable[..., AbstractContextManager[Running]], model: BenchModel, onnx: Path
    ) -> Start:
        environment = self._plan.environments / name.lower()

        @contextmanager
        def start(batching: Batching) -> Iterator[Running]:
            failed = environment.with_suffix(".failed")
            if failed.is_file():
                raise LoadTestError(f"it could not be installed: {failed.read_text(encoding='utf-8').strip()}")
            with ExitStack() as stack:
                with on_cores(self._plan.server_cores):
                    server = maker(environment, onnx, model, batching, len(self._plan.server_cores))
                    running = stack.enter_context(server)
                yield running

        return start

    @contextmanager
    def _erg(self, name: str, repository: Path, model: BenchModel) -> Iterator[Running]:
        with ExitStack() as stack:
            with on_cores(self._plan.server_cores):
                cores = len(self._plan.server_cores)
                running = stack.enter_context(erg(name, repository, model, workers=cores, build=self._plan.build))
            yield running

    def _tuned(self, model: BenchModel, name: str, start: Start) -> Batching | None:
        """The best setting by the geometric mean of rates; what could not start is recorded."""
        scores: list[float] = []
        why = ""
        for batching in SETTINGS:
            self._console.print(f"{model.name}: trying {name} with {batching}", highlight=False)
            try:
                with start(batching) as server:
                    turns = [self._turn(model, server, load, 0, self._plan.tuning_s) for load in self._record.loads]
            except (LoadTestError, OSError) as error:
                why = str(error)
                scores.append(0.0)
                continue
            scores.append(statistics.geometric_mean(turn.requests_per_s for turn in turns))
        chosen = best_setting(scores)
        if chosen is None:
            self._missing(model.name, name, why)
            return None
        self._record.tried += [
            Tried(model=model.name, server=name, setting=str(setting), score=score, chosen=index == chosen)
            for index, (setting, score) in enumerate(zip(SETTINGS, scores, strict=True))
        ]
        return SETTINGS[chosen]

    def _started(
        self,
        stack: ExitStack,
        makers: dict[str, Callable[[], AbstractContextManager[Running]]],
        model: BenchModel,
        wanted: list[Array],
    ) -> list[Running]:
        """All that start and answer as ONNX Runtime does."""
        servers = []
        for name, make in makers.items():
            self._console.print(f"{model.name}: starting {name}, comparing its answers", highlight=False)
            try:
                server = stack.enter_context(make())
                told = _in_loop(lambda server=server, name=name: self._compared(server, wanted, _LEAST_COSINE[name]))  # type: ignore[misc]
            except (LoadTestError, OSError) as error:
                self._missing(model.name, name, str(error))
                continue
            self._record.answers.setdefault(model.name, {})[name] = told
            servers.append(server)
        return servers

    async def _compared(self, server: Running, wanted: list[Array], least_cosine: float) -> str:
        async with server.connect() as client:
            return await compared(client, wanted, least_cosine=least_cosine)

    def _rounds(self, model: BenchModel, onnx: Path, servers: list[Running]) -> None:
        plan = self._plan
        scan = [self._raw(model, onnx, batch, plan.tuning_s) for batch in _RAW_BATCHES]
        batch = best(scan).batch
        gone: set[str] = set()
        for number in range(plan.rounds):
            raw = self._raw(model, onnx, batch, plan.seconds)
            self._record.raw.append(
                RawTurn(
                    model=model.name,
                    round=number,
                    batch=batch,
                    requests_per_s=raw.inferences_per_s,
                    cpu_us=raw.cpu_us_per_inference,
                )
            )
            for load in self._record.loads:
                # Another order each time, so that none always follows the same one.
                for server in np.roll(np.array(servers, dtype=object), number).tolist():
                    if server.name in gone:
                        continue
                    self._console.print(
                        f"{model.name}: round {number + 1} of {plan.rounds}, {load} in flight, {server.name}",
                        highlight=False,
                    )
                    try:
                        self._record.turns.append(self._turn(model, server, load, number, plan.seconds))
                    except LoadTestError as error:
                        gone.add(server.name)
                        self._missing(model.name, server.name, f"ended in round {number + 1}: {error}")

    def _raw(self, model: BenchModel, onnx: Path, batch: int, seconds: float) -> RawRun:
        return measure_raw(
            onnx, batch=batch, length=model.length, seconds=min(seconds, 4.0), cores=self._plan.server_cores
        )

    def _turn(self, model: BenchModel, server: Running, load: int, number: int, seconds: float) -> Turn:
        async def turn() -> Turn:
            async with server.connect() as client:
                return await take_turn(
                    client,
                    server.pid,
                    model=model.name,
                    server=server.name,
                    in_flight=load,
                    number=number,
                    seconds=seconds,
                )

        with on_cores(self._plan.client_cores):
            return _in_loop(turn)

    def _load_reports(self, model: BenchModel, servers: list[Running]) -> list[LoadReport]:
        """`erg load` as anybody would run it, on Erg and on the rival that speaks v2; nothing unless both are there."""
        found = {server.name: server for server in servers}
        if not {ERG, "MLServer"} <= found.keys():
            return []
        return [
            self._load_report(model, found[ERG], batched=True),
            self._load_report(model, found["MLServer"], batched=False),
        ]

    def _load_report(self, model: BenchModel, server: Running, *, batched: bool) -> LoadReport:
        shapes = [
            f"{spec.name}:{','.join(str(size) for size in (spec.shape if batched else (1, *spec.shape)))}"
            for spec in model.inputs
        ]
        flags = [model.name, "--url", server.url, *(part for shape in shapes for part in ("--shape", shape))]
        flags += [*model.load_flags, "--concurrency", "8", "--duration", f"{self._plan.seconds:g}"]
        flags += ["--server-pid", str(server.pid), "--format", "json"]
        self._console.print(f"erg load {' '.join(flags)}", highlight=False)
        done = subprocess.run(
            [sys.executable, "-m", "erg_server", "load", *flags], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise LoadTestError(f"erg load on {server.name} ended with code {done.returncode}: {done.stderr.strip()}")
        port = server.url.rpartition(":")[2]
        command = "erg load " + " ".join(flags).replace(port, "PORT").replace(str(server.pid), "PID")
        return LoadReport(server=server.name, command=command, document=json.loads(done.stdout))

    def _missing(self, model: str, server: str, why: str) -> None:
        self._console.print(f"[yellow]{server or model}: not run: {why}[/]", highlight=False)
        self._record.not_run.append(NotRun(model=model, server=server, why=why))


def _in_loop(work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())
