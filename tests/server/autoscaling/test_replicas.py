"""The signal over the real scheduler on a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import pytest
from erg_server.autoscaling.margin import MOST
from erg_server.autoscaling.replicas import Need, ReplicaNeed, ServedQueue
from erg_server.simulation.arrivals import merge, poisson
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import SimulatedModel, Simulation, simulated_spec

MS = 1_000_000
S = 1_000_000_000


class Server:
    """One simulated server of 10 ms a row with its signal, looked at every ten seconds."""

    def __init__(self, *, objective_ms: int = 100, devices: int = 2, max_rows: int = 1) -> None:
        model = SimulatedModel(
            spec=simulated_spec("m", max_rows=max_rows, objective_ns=objective_ms * MS),
            cost=LinearCost(0, 10 * MS, jitter=0.05),
            arrivals=iter(()),
            promise_ns=objective_ms * MS,
        )
        self.simulation = Simulation([model], devices=devices)
        self.served = True
        self.signal = ReplicaNeed(self.simulation.clock, self._queues)

    def _queues(self) -> list[ServedQueue]:
        workers = frozenset(worker.name for worker in self.simulation.workers)
        return [ServedQueue(queue=queue, workers=workers) for queue in self.simulation.queues] if self.served else []

    def take(self, arrivals: Iterator[int], seconds: float) -> Need:
        """Send what comes within `seconds` of now, and look."""
        start_ns = self.simulation.clock.now_ns()
        need = self.signal.look()
        next_look_ns = 10 * S
        for at_ns, _ in merge([arrivals], round(seconds * S)):
            while at_ns >= next_look_ns:
                self.simulation.timers.run(start_ns + next_look_ns)
                need = self.signal.look()
                next_look_ns += 10 * S
            self.simulation.timers.run(start_ns + at_ns)
            self.simulation.send(0)
        self.simulation.timers.run(start_ns + round(seconds * S))
        return self.signal.look() if seconds else need


def steady(rate_per_s: float, seed: int = 1) -> Iterator[int]:
    return poisson(rate_per_s, Random(seed))


def test_an_idle_server_needs_nothing() -> None:
    server = Server()
    need = server.take(iter(()), 30)
    assert need.replicas == 0
    assert need.queue_seconds == {"m": 0.0}
    assert need.slack_seconds["m"] == pytest.approx(0.1 - 0.011)


def test_a_server_without_a_model_needs_nothing() -> None:
    server = Server()
    server.served = False
    assert server.take(iter(()), 30) == Need(replicas=0.0, queue_seconds={}, slack_seconds={})


def test_need_grows_in_proportion_to_the_load() -> None:
    low, high = (Server().take(steady(rate), 60).replicas for rate in (40, 160))
    assert low == pytest.approx(0.26, abs=0.04)
    assert high == pytest.approx(4 * low, rel=0.15)


def test_refused_requests_count_so_that_overload_shows_whole() -> None:
    server = Server()
    need = server.take(steady(600), 60)
    assert server.simulation.outcomes[0].refused > 10_000
    # Two devices do 200 a second, of which 190 within the objective. That two of three are late is learnt from, too.
    assert 1.25 * 600 / 190 < need.replicas < 1.1 * MOST * 600 / 190


def test_a_load_split_over_servers_needs_as_much_in_all_as_on_one() -> None:
    whole = Server().take(steady(150), 60).replicas
    for count in (2, 5):
        parts = [Server().take(steady(150 / count, seed), 60).replicas for seed in range(count)]
        # Each estimate has noise of 6 to 13 % here, which is less in the sum.
        assert sum(parts) == pytest.approx(whole, rel=0.15)


def test_the_need_of_a_load_that_ends_is_gone_within_minutes() -> None:
    server = Server()
    assert server.take(steady(150), 60).replicas > 0.8
    assert server.take(iter(()), 120).replicas < 0.01


def test_work_that_waits_without_an_objective_is_to_be_caught_up_with() -> None:
    server = Server(objective_ms=0)
    for _ in range(6000):
        server.simulation.send(0)
    server.simulation.timers.settle()
    server.simulation.timers.run(server.simulation.clock.now_ns() + 1)
    need = server.signal.look()
    assert need.queue_seconds["m"] == pytest.approx(60, rel=0.01)
    # 60 seconds of two devices in 30 s take one of such a server, or more with devices used as planned.
    assert need.replicas > 1
    assert "m" not in need.slack_seconds


def test_slack_is_that_of_the_tightest_request_that_waits() -> None:
    server = Server(devices=1)
    for _ in range(5):
        server.simulation.send(0)
    server.simulation.timers.settle()
    waiting = len(server.simulation.queues[0].batcher.queue)
    server.simulation.timers.run(server.simulation.clock.now_ns() + 5 * MS)
    need = server.signal.look()
    assert waiting > 0
    assert need.slack_seconds["m"] == pytest.approx(0.1 - 0.011 - 0.005, abs=0.001)


def test_two_looks_at_once_find_the_same() -> None:
    server = Server()
    first = server.take(steady(100), 30)
    assert server.signal.look() == first


def test_a_version_that_goes_takes_its_need_with_it_and_comes_back_without_an_old_count() -> None:
    server = Server()
    server.take(steady(100), 60)
    server.served = False
    server.simulation.clock.advance(600 * S)
    assert server.signal.look().replicas == 0
    server.served = True
    server.simulation.clock.advance(10 * S)
    assert server.signal.look().replicas == pytest.approx(0, abs=0.01)


def test_every_figure_is_finite_whatever_happened_between_two_looks() -> None:
    server = Server(objective_ms=12, devices=1)
    for rate in (0.1, 5000, 1):
        need = server.take(steady(rate), 20)
        figures = [need.replicas, *need.queue_seconds.values(), *need.slack_seconds.values()]
        assert all(math.isfinite(figure) for figure in figures)
