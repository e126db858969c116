"""The servers under test as child processes on free loopback ports, ended with all their children whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from bench.published.clients import Client, GrpcClient, MosecClient
from bench.published.models import BenchModel
from bench.serving import free_ports, read_signature, served
from erg_loadtest.client import InferClient, Target
from erg_loadtest.errors import LoadTestError, ServerError

RIVALS = Path(__file__).parents[2] / "rivals"
HOST = "127.0.0.1"
_READY_S = 90.0
_EXIT_S = 10.0
_LOG_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers."""

    name: str
    pid: int
    connect: Callable[[], Client]
    url: str = ""
    """Its gRPC address, where it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What a rival may be told about batches; a size of 1 is none at all."""

    max_batch_size: int
    wait_ms: int

    def __str__(self) -> str:
        return f"batches of up to {self.max_batch_size}, {self.wait_ms} ms" if self.max_batch_size > 1 else "no batches"


SETTINGS = (
    Batching(max_batch_size=1, wait_ms=0),
    Batching(max_batch_size=8, wait_ms=1),
    Batching(max_batch_size=16, wait_ms=2),
    Batching(max_batch_size=32, wait_ms=5),
)


@contextmanager
def erg(name: str, repository: Path, model: BenchModel, *, workers: int, build: str) -> Iterator[Running]:
    """Erg with the repository's own configuration; `build` as in `bench.serving.environment`."""
    only = ("--model-control-mode", "explicit", "--load-model", model.name)
    with served(repository, "--cpu-workers", str(workers), *only, build=build) as server:
        asyncio.run(read_signature(server, model.name))
        yield Running(name=name, pid=server.pid, connect=lambda: GrpcClient(server.url, model), url=server.url)


@contextmanager
def mlserver(environment: Path, onnx: Path, model: BenchModel, batching: Batching, workers: int) -> Iterator[Running]:
    """MLServer with its own parallel inference and adaptive batching.

    Raises:
        ServerError: it is not installed, or ends before it is ready.
    """
    program = environment / "bin" / "mlserver"
    with tempfile.TemporaryDirectory(prefix="erg-bench-mlserver-") as name:
        folder = Path(name) / model.name
        folder.mkdir()
        http_port, grpc_port, metrics_port = free_ports(3)
        (folder / "settings.json").write_text(
            json.dumps(mlserver_settings(http_port, grpc_port, metrics_port, workers))
        )
        (folder / "model-settings.json").write_text(json.dumps(mlserver_model_settings(model, onnx, batching)))
        url = f"{HOST}:{grpc_port}"
        with _child([str(program), "start", str(folder)], folder, {"PYTHONPATH": str(RIVALS)}) as child:
            asyncio.run(child.ready(lambda: _model_ready(url, model.name)))
            yield Running(name="MLServer", pid=child.pid, connect=lambda: GrpcClient(url, model), url=url)


def mlserver_settings(http_port: int, grpc_port: int, metrics_port: int, workers: int) -> dict[str, object]:
    """The server's own; access logs and metrics are off, which costs it least."""
    return {
        "debug": False,
        "host": HOST,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "metrics_endpoint": None,
        "parallel_workers": workers,
    }


def mlserver_model_settings(model: BenchModel, onnx: Path, batching: Batching) -> dict[str, object]:
    """The model's; MLServer takes a size of 0 for no batching."""
    batched = batching.max_batch_size > 1
    return {
        "name": model.name,
        "implementation": "mlserver_onnx.OnnxModel",
        "max_batch_size": batching.max_batch_size if batched else 0,
        "max_batch_time": batching.wait_ms / 1e3 if batched else 0.0,
        "parameters": {"uri": str(onnx.resolve())},
        "inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.shape]} for spec in model.inputs],
        "outputs": [{"name": model.output, "datatype": "FP32", "shape": [-1, *model.output_shape]}],
    }


@contextmanager
def mosec(environment: Path, onnx: Path, model: BenchModel, batching: Batching, workers: int) -> Iterator[Running]:
    """Mosec with its own dynamic batching.

    Raises:
        ServerError: it is not installed, or ends before it is ready.
    """
    (port,) = free_ports(1)
    # Its queue holds 1,024 and a request three seconds by default: neither is to be what is measured.
    flags = ("--address", HOST, "--port", str(port), "--log-level", "error", "--timeout", "60000")
    command = [str(environment / "bin" / "python"), str(RIVALS / "mosec_onnx.py"), *flags]
    variables = {"ERG_BENCH_MOSEC": json.dumps(mosec_settings(model, onnx, batching, workers)), "PYTHONPATH": ""}

    def connect() -> MosecClient:
        return MosecClient(HOST, port, model)

    with (
        tempfile.TemporaryDirectory(prefix="erg-bench-mosec-") as name,
        _child(command, Path(name), variables) as child,
    ):
        asyncio.run(child.ready(lambda: _answers(connect())))
        yield Running(name="Mosec", pid=child.pid, connect=connect)


def mosec_settings(model: BenchModel, onnx: Path, batching: Batching, workers: int) -> dict[str, object]:
    """What loadtest/rivals/mosec_onnx.py reads; Mosec takes no wait below a millisecond."""
    dtypes = {"FP32": "<f4", "INT64": "<i8"}
    return {
        "model": str(onnx.resolve()),
        "inputs": [[spec.name, dtypes[spec.datatype], list(spec.shape)] for spec in model.inputs],
        "workers": workers,
        "max_batch_size": batching.max_batch_size,
        "max_wait_ms": max(1, batching.wait_ms),
    }


async def _model_ready(url: str, model: str) -> None:
    async with InferClient(Target(url=url, connections=1)) as client:
        await client.wait_ready(model, "", 1.0)


async def _answers(client: Client) -> None:
    async with client:
        await client.output(0)


class _Child:
    """A rival's process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    async def ready(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask until it answers; raises ServerError with the end of its log when it does not."""
        deadline = time.monotonic() + _READY_S
        why = "no answer"
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                return await ask()
            except (LoadTestError, OSError) as error:
                why = str(error)
                await asyncio.sleep(0.1)
        ended = self._process.poll()
        state = f"ended with code {ended}" if ended is not None else f"was not ready within {_READY_S:g} s ({why})"
        raise ServerError(f"it {state}; its log ends: {self.log_end()}")

    def log_end(self) -> str:
        """The last lines that it wrote."""
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-_LOG_LINES:]) or "nothing"


@contextmanager
def _child(command: Sequence[str], folder: Path, variables: dict[str, str]) -> Iterator[_Child]:
    log = folder / "log"
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **variables}
            )
        except OSError as error:
            raise ServerError(f"{command[0]} does not start: {error.strerror}") from error
    try:
        yield _Child(process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then end it and every child that it has not taken along."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT_S)
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.wait()
