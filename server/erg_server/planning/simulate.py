"""Runs a scenario's models through the real scheduler on a virtual clock, and says what became of their requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from erg_server.errors import InvalidArgumentError
from erg_server.planning.catalogue import PlannedModel
from erg_server.planning.forecast import (
    ATTAINMENT,
    DeviceForecast,
    Forecast,
    MemoryForecast,
    ModelForecast,
    Status,
)
from erg_server.planning.placing import Placement, place, used_bytes
from erg_server.planning.scenario import Scenario
from erg_server.repository.spec import ModelSpec
from erg_server.simulation.simulation import Outcome, SimulatedModel, Simulation, simulated_spec

MAX_REQUESTS = 20_000_000
"""A simulation handles some 20,000 to 50,000 requests a second; beyond this one forgot that it has an end."""
_ROUNDS = 4
"""How often placement is done anew with the loads that were found, as a server does while it runs."""
_BUSY = 0.98
"""Utilization from which a device has no time left: what has no objective then waits ever longer."""

Advance = Callable[[float], None]
"""Told how much of a simulation is done, from 0 to 1."""


def forecast(scenario: Scenario, advance: Advance = lambda _: None) -> Forecast:
    """Place the models, simulate, and place again with the loads found until nothing moves.

    Raises:
        InvalidArgumentError: there are too many requests to simulate.
    """
    if (requests := scenario.requests()) > MAX_REQUESTS:
        raise InvalidArgumentError(
            f"{requests:.3g} requests in {scenario.seconds:g} s are too many to simulate; the most are "
            f"{MAX_REQUESTS:.0e}: lower --seconds"
        )
    floors = [scenario.load(model) for model in scenario.models]
    placement = place(scenario, floors)
    for _ in range(_ROUNDS - 1):
        run = _Run(scenario, placement, advance)
        loads = [max(floor, load) for floor, load in zip(floors, run.loads(), strict=True)]
        again = place(scenario, loads, placement)
        if [set(devices) for devices in again] == [set(devices) for devices in placement]:
            return run.forecast()
        placement = again
    return _Run(scenario, placement, advance).forecast()


class _Run:
    """One simulation that has ended."""

    def __init__(self, scenario: Scenario, placement: Placement, advance: Advance) -> None:
        self._scenario = scenario
        self._placement = placement
        numbers = {device.name: number for number, device in enumerate(scenario.devices)}
        self._running = [
            number
            for number, model in enumerate(scenario.models)
            if model.traffic is not None and model.times is not None and placement[number]
        ]
        simulated = [
            _simulated(scenario.models[number], scenario, [numbers[name] for name in placement[number]], advance)
            for number in self._running
        ]
        self._simulation = Simulation(simulated, devices=len(scenario.devices), seed=scenario.seed)
        self._outcomes = dict(zip(self._running, self._simulation.run(scenario.seconds), strict=True))
        self._elapsed_ns = max(self._simulation.clock.now_ns(), round(scenario.seconds * 1e9))

    def loads(self) -> list[float]:
        """Device-seconds a second that each model took."""
        loads = [0.0] * len(self._scenario.models)
        for queue, number in zip(self._simulation.queues, self._running, strict=True):
            loads[number] = queue.meter.compute_histogram.total / self._elapsed_ns
        return loads

    def forecast(self) -> Forecast:
        """What it found."""
        scenario = self._scenario
        order = [device.name for device in scenario.devices]
        placement = tuple(tuple(sorted(devices, key=order.index)) for devices in self._placement)
        busy = {
            device.name: worker.busy_ns / self._elapsed_ns
            for device, worker in zip(scenario.devices, self._simulation.workers, strict=True)
        }
        loads = self.loads()
        models = tuple(
            _model_forecast(
                model,
                placement[number],
                self._outcomes.get(number),
                seconds=scenario.seconds,
                load=loads[number],
                full=min((busy[name] for name in placement[number]), default=0.0) >= _BUSY,
            )
            for number, model in enumerate(scenario.models)
        )
        devices = tuple(
            DeviceForecast(
                name=device.name,
                kind=device.kind,
                utilization=busy[device.name],
                models=tuple(each.model.name for each in models if device.name in each.devices),
            )
            for device in scenario.devices
        )
        return Forecast(models=models, devices=devices, memory=_memory(scenario, placement))


def _simulated(model: PlannedModel, scenario: Scenario, devices: Sequence[int], advance: Advance) -> SimulatedModel:
    assert model.traffic is not None
    assert model.times is not None
    end_ns = scenario.seconds * 1e9
    return SimulatedModel(
        spec=_scheduled_spec(model.spec),
        cost=model.times.cost,
        arrivals=_watched(model.traffic.times_ns(scenario.seed), end_ns, advance),
        promise_ns=model.spec.objective_ns,
        devices=frozenset(devices),
        rows=model.traffic.row_counts(),
    )


def _scheduled_spec(spec: ModelSpec) -> ModelSpec:
    """All that the scheduler goes by, with tensors of one number in place of the model's own."""
    plain = simulated_spec(spec.name, max_rows=spec.max_batch_size, objective_ns=spec.objective_ns)
    return dataclasses.replace(plain, batching=spec.batching, batch_limit=spec.batch_limit, weight=spec.weight)


def _watched(times_ns: Iterator[int], end_ns: float, advance: Advance) -> Iterator[int]:
    """The same times; tells how far they are at each hundredth of the whole."""
    next_ns = 0.0
    for at_ns in times_ns:
        if at_ns >= next_ns:
            advance(min(1.0, at_ns / end_ns))
            next_ns = at_ns + end_ns / 100
        yield at_ns


def _model_forecast(
    model: PlannedModel, devices: tuple[str, ...], outcome: Outcome | None, *, seconds: float, load: float, full: bool
) -> ModelForecast:
    if outcome is None:
        if model.traffic is None or devices:
            return ModelForecast(model=model, devices=devices, status="no traffic")
        offered_per_s = model.traffic.requests(seconds) / seconds
        return ModelForecast(
            model=model, devices=(), status="no memory", offered_per_s=offered_per_s, in_time_share=0.0
        )
    offered = max(1, outcome.offered)
    answered = bool(outcome.latencies_ns)
    return ModelForecast(
        model=model,
        devices=devices,
        status=_status(model.spec.objective_ns, outcome, full=full),
        requests=outcome.offered,
        offered_per_s=outcome.offered / seconds,
        goodput_per_s=outcome.in_time / seconds,
        in_time_share=outcome.attainment,
        refused_share=outcome.refused / offered,
        dropped_share=outcome.dropped / offered,
        late_share=outcome.late / offered,
        p50_ns=outcome.quantile_ns(0.5) if answered else None,
        p99_ns=outcome.quantile_ns(0.99) if answered else None,
        load=load,
    )


def _status(objective_ns: int, outcome: Outcome, *, full: bool) -> Status:
    if objective_ns:
        return "met" if outcome.attainment >= ATTAINMENT else "missed"
    return "falls behind" if full or outcome.attainment < ATTAINMENT else "no objective"


def _memory(scenario: Scenario, placement: Placement) -> tuple[MemoryForecast, ...]:
    budgets = scenario.budgets
    capacities = {device.memory_pool: device.memory_bytes or None for device in scenario.devices}
    return tuple(
        MemoryForecast(
            pool=pool, used_bytes=nbytes, budget_bytes=budgets.get(pool), capacity_bytes=capacities.get(pool)
        )
        for pool, nbytes in used_bytes(scenario, placement).items()
    )
