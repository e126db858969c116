"""What metering costs: servers with it on and off, taken in turns under the same load, as ratios with an interval.

    python -m bench.metering

The tiny MLP, where a request costs least and metering shows most. Needs the C++ client of bench/cpp and
`make compiled`.
Run it on an idle machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
from bench.build import built
from bench.front import Load, Server, run_client, whole, write_mlp
from rich.console import Console
from rich.table import Table

POWER = ("--power-source", "modelled", "--power-watts", "cpu=20:95")
SERVERS = {"on": POWER, "off": ("--no-metering",)}
LOADS = (
    Load(name="tiny MLP, 64 in flight", servers=tuple(SERVERS), in_flight=64, connections=4),
    Load(name="tiny MLP, 1 in flight", servers=tuple(SERVERS), in_flight=1, connections=1),
)
FIGURES = (("answers a second", "rate"), ("front µs", "front_us"), ("workers µs", "workers_us"), ("p50 µs", "p50_us"))
_RESAMPLES = 10_000


def ratio(on: list[float], off: list[float]) -> tuple[float, float, float]:
    """The geometric mean of the rounds' ratios on ÷ off, and its 95 % interval by bootstrap over the rounds."""
    logs = np.log(np.asarray(on) / np.asarray(off))
    random = np.random.default_rng(0)
    means = random.choice(logs, size=(_RESAMPLES, len(logs))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def idle_share(server: Server, seconds: float) -> float:
    """Share of a core that the server takes without any request."""
    before = sum(server.cpu_s())
    time.sleep(seconds)
    return (sum(server.cpu_s()) - before) / seconds


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Times that both servers take their turn at every load.")
@click.option("--seconds", default=4.0, show_default=True, help="Length of one turn.")
@click.option("--build", type=click.Path(path_type=Path), default=None, help="Where the C++ client is built.")
@click.option("--source", type=click.Choice(["compiled", "plain"]), default="compiled", show_default=True)
def main(rounds: int, seconds: float, build: Path | None, source: str) -> None:
    """Compare metering on and off and print medians, ratios and what sampling takes of a core at rest."""
    console = Console(stderr=True)
    client = built("load_client", build)
    table = Table("load", "figure", "on", "off", "on ÷ off", "95 % interval")
    with ExitStack() as stack:
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-metering-")))
        write_mlp(repository)
        servers = {
            name: stack.enter_context(whole(name, repository, "--cpu-workers", "2", *flags, build=source))
            for name, flags in SERVERS.items()
        }
        for load in LOADS:
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
            for number in range(rounds):
                # Who goes first changes, so that a machine that grows slower favours neither.
                for name in sorted(servers, reverse=bool(number % 2)):
                    console.print(f"{load.name}: round {number + 1} of {rounds}, metering {name}")
                    runs[name].append(run_client(client, servers[name], load, seconds))
            for title, key in FIGURES:
                on, off = ([run[key] for run in runs[name]] for name in ("on", "off"))
                mean, low, high = ratio(on, off)
                table.add_row(
                    load.name, title, f"{statistics.median(on):,.1f}", f"{statistics.median(off):,.1f}",
                    f"{mean:.4f}", f"{low:.4f} to {high:.4f}",
                )  # fmt: skip
            table.add_section()
        shares = {name: idle_share(server, 4 * seconds) for name, server in servers.items()}
        table.add_row("at rest", "% of a core", *(f"{100 * shares[name]:.2f}" for name in ("on", "off")), "", "")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
