"""What scheduling by deadlines is worth, on the simulator: goodput, devices needed, scaling, and the scheduler's CPU.

    python -m bench.scheduling [--figure goodput|devices|scaling|fixed|cpu] [--seconds 10]

The real scheduler runs on a virtual clock. Goodput is the highest rate at which every model answers 99 % of its
requests within its objective, found by bisection; what is refused, dropped or late counts against it. Against it stands
Triton's batcher (`bench.triton_policy`) with the best of its fixed delays and both of its ways to share a device,
searched anew at every rate. Beside them stands the rate beyond which nobody could do it (`bench.upper_bound`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import click
from bench.triton_policy import TritonPolicy
from bench.upper_bound import can_attain
from erg_server import heap
from erg_server.request import InferenceResponse
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.simulation.arrivals import bursts, poisson
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import Outcome, SimulatedModel, Simulation, simulated_spec
from rich.console import Console
from rich.table import Table

MS = 1_000_000
ATTAINMENT = 0.99
MODELS, DEVICES, MAX_ROWS = 20, 8, 32
WARM_UP_NS = 1000 * MS
DELAYS_MS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
MIXED_MS, EQUAL_MS = (10, 15, 25, 50, 100, 200), (50,)
_STEPS = 7
Arrivals = Callable[[float, Random], Iterator[int]]


@dataclass(frozen=True, slots=True)
class Load:
    """A population of models, to be sent any rate."""

    name: str
    objectives_ms: tuple[int, ...]
    arrivals: Arrivals
    models: int = MODELS

    def at(self, rate_per_s: float, *, told: bool, seed: int) -> list[SimulatedModel]:
        """The models with `rate_per_s` requests a second in all; `told` whether the scheduler knows their objectives.

        A batch costs 5 to 15 % of the objective and each row 5 to 20 % of that; rates differ by a factor of eight.
        """
        rng = Random(1)  # noqa: S311 (a simulation)
        drawn = [
            (rng.uniform(0.05, 0.15), rng.uniform(0.05, 0.2), rng.choice((0.5, 1, 1, 2, 4))) for _ in range(self.models)
        ]
        total = sum(share for *_, share in drawn)
        models = []
        for number, (fixed, row, share) in enumerate(drawn):
            objective_ns = self.objectives_ms[number % len(self.objectives_ms)] * MS
            spec = simulated_spec(f"m{number}", max_rows=MAX_ROWS, objective_ns=objective_ns if told else 0)
            cost = LinearCost(fixed * objective_ns, row * fixed * objective_ns, jitter=0.05)
            arrivals = self.arrivals(rate_per_s * share / total, Random(seed * 1000 + number))  # noqa: S311 (a simulation)
            models.append(SimulatedModel(spec=spec, cost=cost, arrivals=arrivals, promise_ns=objective_ns))
        return models


LOADS = (
    Load("mixed objectives, Poisson", MIXED_MS, poisson),
    Load("mixed objectives, bursts", MIXED_MS, bursts),
    Load("equal objectives, Poisson", EQUAL_MS, poisson),
    Load("equal objectives, bursts", EQUAL_MS, bursts),
)


def attained(outcomes: list[Outcome]) -> float:
    """The worst model's share of requests answered in time."""
    return min(outcome.attainment for outcome in outcomes)


def by_erg(load: Load, rate_per_s: float, devices: int, seconds: float, seed: int) -> float:
    """Attainment of the real scheduler."""
    models = load.at(rate_per_s, told=True, seed=seed)
    return attained(Simulation(models, devices=devices, seed=seed, warm_up_ns=WARM_UP_NS).run(seconds))


def by_triton(load: Load, rate_per_s: float, devices: int, seconds: float, seed: int) -> float:
    """Attainment of the best fixed delay."""
    best = 0.0
    for serial in (True, False):
        for delay_ms in DELAYS_MS:
            models = load.at(rate_per_s, told=False, seed=seed)
            policy = TritonPolicy(
                models, devices=devices, delay_ns=round(delay_ms * MS), serial=serial, seed=seed, warm_up_ns=WARM_UP_NS
            )
            best = max(best, attained(policy.run(seconds)))
            if best >= ATTAINMENT:
                return best
    return best


def by_bound(load: Load, rate_per_s: float, devices: int, seconds: float, seed: int) -> float:
    """Attainment of whoever knows the future: all of what is asked, or none of it where that is impossible."""
    models = load.at(rate_per_s, told=False, seed=seed)
    return float(can_attain(models, devices=devices, duration_s=seconds, attainment=ATTAINMENT, warm_up_ns=WARM_UP_NS))


Policy = Callable[[Load, float, int, float, int], float]


def highest_rate(policy: Policy, load: Load, seconds: float, seed: int) -> float:
    """The highest rate that is attained, within 2 %, from doubling and bisection."""
    low, high = 0.0, 500.0
    while policy(load, high, DEVICES, seconds, seed) >= ATTAINMENT:
        low, high = high, high * 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if policy(load, middle, DEVICES, seconds, seed) >= ATTAINMENT:
            low = middle
        else:
            high = middle
    return low


def show(console: Console, text: str) -> None:
    """Progress, apart from the results."""
    console.print(f"[dim]{time.strftime('%H:%M:%S')} {text}[/dim]")


def goodput(progress: Console, seconds: float, seed: int) -> tuple[Table, dict[str, float]]:
    """Goodput of both on every load, and what nobody can exceed."""
    table = Table("load", "fixed delay, best (requests/s)", "Erg", "ratio", "bound", "its ratio", "Erg of the bound")
    rates = {}
    for load in LOADS:
        show(progress, load.name)
        triton = highest_rate(by_triton, load, seconds, seed)
        erg = rates[load.name] = highest_rate(by_erg, load, seconds, seed)
        bound = highest_rate(by_bound, load, seconds, seed)
        table.add_row(
            load.name, f"{triton:.0f}", f"{erg:.0f}", f"{erg / triton:.2f}",
            f"{bound:.0f}", f"{bound / triton:.2f}", f"{erg / bound:.0%}",
        )  # fmt: skip
    return table, rates


def devices_needed(progress: Console, rates: dict[str, float], seconds: float, seed: int) -> Table:
    """How many devices the fixed delay needs for what Erg does with eight, and how few nobody could do with less."""
    table = Table("load", "requests/s", "Erg's devices", "fixed delay's devices", "fewer", "bound", "fewer at most")
    for load in LOADS:
        rate = rates[load.name]
        needed = DEVICES
        while by_triton(load, rate, needed, seconds, seed) < ATTAINMENT:
            show(progress, f"{load.name}: {needed} devices are not enough for the fixed delay")
            needed += 1
        least = 1
        while by_bound(load, rate, least, seconds, seed) < ATTAINMENT:
            least += 1
        table.add_row(
            load.name, f"{rate:.0f}", str(DEVICES), str(needed), f"{1 - DEVICES / needed:.0%}",
            str(least), f"{1 - least / needed:.0%}",
        )  # fmt: skip
    return table


def scaling(progress: Console, seconds: float, seed: int) -> Table:
    """What one model's requests at 1.3 times the capacity get answered in time, from 1 to 64 devices."""
    load = Load("", EQUAL_MS, poisson, models=1)
    rows = load.at(1.0, told=True, seed=seed)
    full = sum(model.cost.mean_ns(MAX_ROWS) for model in rows) / len(rows) / MAX_ROWS
    table = Table("devices", "answered in time (requests/s)", "of linear")
    first = 0.0
    for devices in (1, 2, 4, 8, 16, 32, 64):
        show(progress, f"{devices} devices")
        rate = 1.3 * devices * 1e9 / full
        models = load.at(rate, told=True, seed=seed)
        length = seconds / 2
        outcomes = Simulation(models, devices=devices, seed=seed, warm_up_ns=WARM_UP_NS).run(length)
        answered = sum(outcome.in_time for outcome in outcomes) / (length - WARM_UP_NS / 1e9)
        first = first or answered
        table.add_row(str(devices), f"{answered:.0f}", f"{answered / devices / first:.1%}")
    return table


def fixed(progress: Console, seed: int) -> Table:
    """What one device answers in time where much of a batch's time is fixed: 40 ms and 1.25 ms a row."""
    cost, most = LinearCost(40.0 * MS, 1.25 * MS, jitter=0.05), 64
    full = most / cost.mean_ns(most) * 1e9
    table = Table("objective", "load, of the capacity", "answered in time", "of the capacity")
    for objective_ms in (300, 150):
        for load in (0.5, 0.7, 0.9, 1.0, 1.3):
            show(progress, f"objective {objective_ms} ms, {load:g} of the capacity")
            model = SimulatedModel(
                spec=simulated_spec("m", max_rows=most, objective_ns=objective_ms * MS),
                cost=cost,
                arrivals=poisson(load * full, Random(seed)),  # noqa: S311 (a simulation)
                promise_ns=objective_ms * MS,
            )
            outcome = Simulation([model], devices=1, seed=seed, warm_up_ns=2 * WARM_UP_NS).run(12.0)[0]
            table.add_row(
                f"{objective_ms} ms", f"{load:g}", f"{outcome.attainment:.1%}", f"{outcome.in_time / 10 / full:.0%}"
            )
    return table


class _AnswersAtOnce:
    """Stands for the scheduler where only the simulation's own CPU is measured."""

    def enqueue(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        """Answer."""
        entry.on_done(InferenceResponse(model_name=queue.spec.name, model_version="1", id="", outputs=[]))


def cpu(progress: Console, seconds: float, seed: int) -> Table:
    """CPU a request of everything between `enqueue` and `on_done`: admission, batching, tensors in and out, counting.

    From the CPU time of the process, less that of the same simulation whose requests are answered at once. The heap is
    set up as the server sets up its own.
    """
    heap.keep_freed_memory()
    heap.collect_seldom()
    table = Table("devices", "models", "objective", "requests", "mean batch (rows)", "CPU a request (µs)")
    for devices, models in ((1, 1), (8, 20), (64, 20), (8, 100), (64, 100)):
        for told in (True, False):
            show(progress, f"{devices} devices, {models} models")
            load = Load("", EQUAL_MS, poisson, models)
            rate = devices * 1200.0
            length = min(seconds, max(1.0, 100_000 / rate))
            spent = []
            for bare in (True, False):
                simulation = Simulation(load.at(rate, told=told, seed=seed), devices=devices, seed=seed)
                if bare:
                    simulation.scheduler = _AnswersAtOnce()  # type: ignore[assignment]
                began_s = time.process_time()
                outcomes = simulation.run(length)
                spent.append(time.process_time() - began_s)
            requests = sum(outcome.offered for outcome in outcomes)
            batches = sum(queue.meter.executions for queue in simulation.queues)
            table.add_row(
                str(devices), str(models), "50 ms" if told else "none", str(requests),
                f"{requests / max(1, batches):.1f}", f"{(spent[1] - spent[0]) / requests * 1e6:.1f}",
            )  # fmt: skip
    return table


@click.command()
@click.option("--figure", type=click.Choice(["goodput", "devices", "scaling", "fixed", "cpu", "all"]), default="all")
@click.option("--seconds", default=10.0, help="Simulated seconds of each run; the first is warm-up and not counted.")
@click.option("--seed", default=3)
def main(figure: str, seconds: float, seed: int) -> None:
    """Measure and print."""
    progress, out = Console(file=sys.stderr), Console(width=120)
    if figure in ("goodput", "devices", "all"):
        table, rates = goodput(progress, seconds, seed)
        out.print(table)
        if figure != "goodput":
            out.print(devices_needed(progress, rates, seconds, seed))
    if figure in ("scaling", "all"):
        out.print(scaling(progress, seconds, seed))
    if figure in ("fixed", "all"):
        out.print(fixed(progress, seed))
    if figure in ("cpu", "all"):
        out.print(cpu(progress, seconds, seed))


if __name__ == "__main__":
    main()
