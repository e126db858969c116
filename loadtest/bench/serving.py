"""`erg serve` as a child process on free loopback ports, ended whatever happens; shared by the benchmarks."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from erg_loadtest.client import InferClient, Target
from erg_loadtest.tensors import Signature
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_EXIT_TIMEOUT_S = 40.0
_READY_S = 120.0
_ROOT = Path(__file__).parents[2]
COMPILED = _ROOT / "build" / "compiled"
"""What `make compiled` unpacks: the wheel that users install."""


def environment(build: str = "compiled") -> dict[str, str]:
    """The environment of a server of that build: `compiled`, as users have it, or `plain`, the source.

    Raises:
        ClickException: the wheel is not built, or has no compiled modules.
    """
    path = os.environ.get("PYTHONPATH", "")
    if build == "plain":
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT / "server"), path)))}
    if not list(COMPILED.glob("*.so")):
        raise click.ClickException(f"{COMPILED} has no compiled modules: `make compiled` builds them, or says why not")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(COMPILED), path)))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where the server answers."""

    url: str
    metrics_url: str
    pid: int


@contextmanager
def served(
    repository: Path, *flags: str, program: Sequence[str] = ("erg_server",), build: str = "compiled"
) -> Iterator[Served]:
    """Serve a repository; the caller waits for its model's readiness. `program` is a module and its first arguments."""
    grpc_port, metrics_port = free_ports(2)
    command = [
        sys.executable, "-m", *program, "serve",
        "--model-repository", str(repository),
        "--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port),
        "--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port),
        *flags,
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment(build))
    try:
        yield Served(
            url=f"127.0.0.1:{grpc_port}",
            metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
            pid=process.pid,
        )
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_TIMEOUT_S)
        if process.poll() is None:
            process.kill()
            process.wait()


async def read_signature(server: Served, model: str) -> Signature:
    """The served model's signature, once it is ready."""
    async with InferClient(Target(url=server.url)) as client:
        await client.wait_ready(model, "", _READY_S)
        return await client.signature(model)


def metric_samples(server: Served) -> list[Sample]:
    """Every figure of the server's metrics now."""
    with urllib.request.urlopen(server.metrics_url) as response:  # noqa: S310 (a server of our own)
        text = response.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [entry.getsockname()[1] for entry in sockets]
