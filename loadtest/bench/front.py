"""What answering gRPC costs: Erg's front end, grpcio's and C++ gRPC's, taken in turns under the same C++ client.

    python -m bench.front

Builds the client and the rival from bench/cpp first (Debian: libgrpc++-dev, protobuf-compiler-grpc, g++). Server CPU is
of the server's processes, from /proc; the front and the workers are shown apart. `make compiled` first: that is the
build which users install. Run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import psutil
from bench.build import built
from bench.serving import environment, served
from erg_loadtest.client import InferClient, Target
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ELEMENTS = 16
LARGE = 150_000
MLP_CONFIG = """backend: "onnxruntime"
max_batch_size: 64
input [{ name: "x" data_type: TYPE_FP32 dims: [16] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [16] }]
dynamic_batching {}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server under test. `front` answers gRPC, the others are its workers."""

    name: str
    port: int
    front: psutil.Process

    def cpu_s(self) -> tuple[float, float]:
        """CPU seconds so far of the front and of its workers."""
        workers = 0.0
        for child in self.front.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                workers += times.user + times.system
        own = self.front.cpu_times()
        return own.user + own.system, workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One way of calling."""

    name: str
    servers: tuple[str, ...]
    in_flight: int
    connections: int
    elements: int = ELEMENTS
    stream: bool = False


FRONTS = ("C++ gRPC", "Erg's front end", "Erg's, not compiled", "grpcio")
WHOLE = ("Erg", "Erg, not compiled", "Erg on grpcio")
LARGE_FRONTS = ("C++ gRPC, 4 KB answers", "Erg's front end, 4 KB answers", "grpcio, 4 KB answers")
LOADS = (
    Load(name="identity 64 B, 32 in flight", servers=FRONTS, in_flight=32, connections=4),
    Load(name="identity 64 B, 1 in flight", servers=FRONTS, in_flight=1, connections=1),
    Load(name="tiny MLP, 32 in flight", servers=WHOLE, in_flight=32, connections=4),
    Load(name="tiny MLP, 64 in flight", servers=WHOLE, in_flight=64, connections=4),
    Load(name="tiny MLP, 1 in flight", servers=WHOLE, in_flight=1, connections=1),
    Load(name="600 KB in, 4 KB out, 8 in flight", servers=LARGE_FRONTS, in_flight=8, connections=4, elements=LARGE),
    Load(name="600 KB echo, 8 in flight", servers=FRONTS, in_flight=8, connections=4, elements=LARGE),
    Load(name="one stream, window 32", servers=FRONTS, in_flight=32, connections=1, stream=True),
    Load(
        name="tiny MLP, one stream, window 32",
        servers=WHOLE,
        in_flight=32,
        connections=1,
        stream=True,
    ),
)  # fmt: skip


def run_client(program: Path, server: Server, load: Load, seconds: float) -> dict[str, float]:
    """One run of the C++ client, with the server's CPU of exactly its time."""
    command = [
        str(program), f"127.0.0.1:{server.port}", "mlp", str(load.elements), str(load.in_flight),
        str(load.connections), str(seconds), *(["stream"] if load.stream else []),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        before = server.cpu_s()
        line = client.stdout.readline()
        after = server.cpu_s()
    result: dict[str, float] = json.loads(line)
    if result["failed"]:
        raise click.ClickException(f"{server.name}, {load.name}: {result['failed']} calls failed: {result['failure']}")
    count = result["answered"]
    result["front_us"] = (after[0] - before[0]) / count * 1e6
    result["workers_us"] = (after[1] - before[1]) / count * 1e6
    result["rate"] = count / result["wall_s"]
    return result


@contextmanager
def listening(name: str, command: list[str], build: str = "compiled") -> Iterator[Server]:
    """A server that prints its port; ended whatever happens."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, env=environment(build))
    try:
        assert process.stdout is not None
        yield Server(name=name, port=int(process.stdout.readline()), front=psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


@contextmanager
def whole(name: str, repository: Path, *flags: str, build: str = "compiled") -> Iterator[Server]:
    """`erg serve` with the tiny model."""
    with served(repository, *flags, build=build) as server:
        asyncio.run(ready(server.url))
        yield Server(name=name, port=int(server.url.rpartition(":")[2]), front=psutil.Process(server.pid))


async def ready(url: str) -> None:
    """Return once the tiny model answers."""
    async with InferClient(Target(url=url)) as client:
        await client.wait_ready("mlp", "", 30.0)


def write_mlp(folder: Path) -> None:
    """A model so small that everything but the model shows: fp32 [batch, 16], two layers."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((16, 16)).astype(np.float32), name) for name in ("one", "two")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "one"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "two"], ["y"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "mlp" / "1").mkdir(parents=True)
    (folder / "mlp" / "config.pbtxt").write_text(MLP_CONFIG)
    onnx.save(model, folder / "mlp" / "1" / "model.onnx")


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Times that every server takes its turn at every load.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of one turn.")
@click.option("--build", type=click.Path(path_type=Path), default=None, help="Where the C++ programs are built.")
@click.option("--only", default="", help="Only loads whose name contains this.")
def main(rounds: int, seconds: float, build: Path | None, only: str) -> None:
    """Compare front ends and print server CPU for each request, medians of the rounds."""
    console = Console(stderr=True)
    console.print("building the C++ client and server")
    client, rival = built("load_client", build), str(built("identity_server", build))
    loads = [load for load in LOADS if only in load.name]
    table = Table("load", "server", "front µs", "workers µs", "all µs", "a second", "p50 µs", "p99 µs")
    with ExitStack() as stack:
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-bench-")))
        write_mlp(repository)
        echo = [sys.executable, "-m", "bench.echo_server"]
        wanted = {name for load in loads for name in load.servers}
        makers: dict[str, Callable[[str], AbstractContextManager[Server]]] = {
            "C++ gRPC": lambda n: listening(n, [rival]),
            "Erg's front end": lambda n: listening(n, [*echo, "erg"]),
            "Erg's, not compiled": lambda n: listening(n, [*echo, "erg"], "plain"),
            "grpcio": lambda n: listening(n, [*echo, "grpcio"]),
            "C++ gRPC, 4 KB answers": lambda n: listening(n, [rival, "4096"]),
            "Erg's front end, 4 KB answers": lambda n: listening(n, [*echo, "erg", "4096"]),
            "grpcio, 4 KB answers": lambda n: listening(n, [*echo, "grpcio", "4096"]),
            "Erg": lambda n: whole(n, repository),
            "Erg, not compiled": lambda n: whole(n, repository, build="plain"),
            "Erg on grpcio": lambda n: whole(n, repository, "--grpc-transport", "grpcio"),
        }
        servers = {name: stack.enter_context(maker(name)) for name, maker in makers.items() if name in wanted}
        for load in loads:
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in load.servers}
            for number in range(rounds):
                for name in load.servers:
                    console.print(f"{load.name}: round {number + 1} of {rounds}, {name}")
                    runs[name].append(run_client(client, servers[name], load, seconds))
            for name, found in runs.items():
                front, workers, rate, p50, p99 = (
                    statistics.median(run[key] for run in found)
                    for key in ("front_us", "workers_us", "rate", "p50_us", "p99_us")
                )
                table.add_row(
                    load.name, name, f"{front:.1f}", f"{workers:.1f}", f"{front + workers:.1f}", f"{rate:,.0f}",
                    f"{p50:,.0f}", f"{p99:,.0f}",
                )  # fmt: skip
            table.add_section()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
