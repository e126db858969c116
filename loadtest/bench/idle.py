"""What connections cost that do nothing: memory of the front for each, and its CPU while all are at rest.

    python -m bench.idle

Opens a thousand connections to `erg serve`, makes one call on each and leaves them alone; the same with grpcio's
transport, in one run. The client speaks just enough HTTP/2 itself, so that it stays out of the way.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from bench.serving import Served, served
from erg_loadtest.client import InferClient, Target
from erg_server.transports.grpc import frames
from erg_server.transports.grpc.header_blocks import encode_headers
from rich.console import Console
from rich.table import Table

MODEL = "idle_identity"
CONFIG = """backend: "identity"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT64 dims: [ -1 ] } ]
"""
REQUEST = encode_headers(
    (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ServerLive"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)
EMPTY_MESSAGE = bytes(5)
_WARM_UP = 50
_ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What a server's front costs with a number of connections."""

    bytes_each: float
    cpu_before_ms: float
    """CPU a second with no connection but those of the warm-up."""
    cpu_ms: float
    """The same with all of them."""


def opened(port: int) -> socket.socket:
    """A connection that has made its handshake and one call, and has read the answer to its end."""
    link = socket.create_connection(("127.0.0.1", port))
    link.settimeout(_ANSWER_WITHIN_S)
    link.sendall(
        frames.PREFACE
        + frames.settings(())
        + frames.header(len(REQUEST), frames.HEADERS, frames.END_HEADERS, 1)
        + REQUEST
        + frames.header(len(EMPTY_MESSAGE), frames.DATA, frames.END_STREAM, 1)
        + EMPTY_MESSAGE
    )
    came = b""
    while True:
        while len(came) >= frames.HEADER_BYTES:
            high, low, kind, flags, number = struct.unpack_from(">HBBBI", came)
            size = frames.HEADER_BYTES + (high << 8 | low)
            if len(came) < size:
                break
            payload, came = came[frames.HEADER_BYTES : size], came[size:]
            if kind == frames.SETTINGS and not flags & frames.ACK:
                link.sendall(frames.SETTINGS_ACK)
            elif kind == frames.PING and not flags & frames.ACK:
                link.sendall(frames.ping(payload, ack=True))
            elif number == 1 and flags & frames.END_STREAM:
                return link
        part = link.recv(65536)
        if not part:
            raise ConnectionError("the server closed a connection that had done nothing wrong")
        came += part


def cpu_ns(pid: int) -> int:
    """CPU time of a process's threads so far; the scheduler counts it finer than clock ticks."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return total


def cpu_ms_a_second(pid: int, seconds: float) -> float:
    """CPU that a process takes while nothing is asked of it."""
    began_ns, began_s = cpu_ns(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_ns(pid) - began_ns) / 1e6 / (time.monotonic() - began_s)


def measure(server: Served, connections: int, seconds: float) -> Rest:
    """Open the connections, leave them alone, close them."""
    port, process = int(server.url.rpartition(":")[2]), psutil.Process(server.pid)
    links = [opened(port) for _ in range(_WARM_UP)]
    try:
        cpu_before_ms = cpu_ms_a_second(server.pid, seconds)
        before = process.memory_info().rss
        links += [opened(port) for _ in range(connections)]
        bytes_each = (process.memory_info().rss - before) / connections
        cpu_ms = cpu_ms_a_second(server.pid, seconds)
    finally:
        for link in links:
            link.close()
    return Rest(bytes_each=bytes_each, cpu_before_ms=cpu_before_ms, cpu_ms=cpu_ms)


async def _ready(url: str) -> None:
    async with InferClient(Target(url=url)) as client:
        await client.wait_ready(MODEL, "", 60.0)


@click.command()
@click.option("--connections", default=1000, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="How long rest is watched.")
def main(connections: int, seconds: float) -> None:
    """Measure both transports and print a table."""
    table = Table(
        "transport", "front KB a connection", "front CPU at rest, ms a second", f"with {_WARM_UP} connections"
    )
    for transport in ("erg", "grpcio"):
        with tempfile.TemporaryDirectory(prefix="erg-idle-") as folder:
            root = Path(folder)
            (root / MODEL / "1").mkdir(parents=True)
            (root / MODEL / "config.pbtxt").write_text(CONFIG)
            with served(root, "--cpu-workers", "1", "--grpc-transport", transport) as server:
                asyncio.run(_ready(server.url))
                rest = measure(server, connections, seconds)
        table.add_row(transport, f"{rest.bytes_each / 1e3:.1f}", f"{rest.cpu_ms:.2f}", f"{rest.cpu_before_ms:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
