"""What the pods serve: models with objectives on a few devices, as the real scheduler runs them."""

from __future__ import annotations

from dataclasses import dataclass

from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import SimulatedModel, Simulation, simulated_spec

MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model of a pod. `share` is its part of the requests; `fixed_ms` and `row_ms` are a batch's cost."""

    name: str
    objective_ms: float
    fixed_ms: float
    row_ms: float
    max_rows: int = 1
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What every pod of a deployment is. `peak_per_s` is the highest rate of the day, for all pods."""

    name: str
    models: tuple[ServedModel, ...]
    devices: int
    peak_per_s: float

    @property
    def shares(self) -> list[float]:
        """Each model's part of the requests."""
        return [model.share for model in self.models]

    def pod(self, seed: int) -> Simulation:
        """One pod: the real scheduler on simulated devices, to which requests are sent one by one."""
        models = [
            SimulatedModel(
                spec=simulated_spec(model.name, max_rows=model.max_rows, objective_ns=round(model.objective_ms * MS)),
                cost=LinearCost(model.fixed_ms * MS, model.row_ms * MS, jitter=0.05),
                arrivals=iter(()),
                promise_ns=round(model.objective_ms * MS),
            )
            for model in self.models
        ]
        return Simulation(models, devices=self.devices, seed=seed)


SERVICES = (
    # MiniLM at 32 tokens on two cores, as measured here: batches save little.
    Service(
        name="encoder",
        models=(ServedModel(name="encoder", objective_ms=100, fixed_ms=1.2, row_ms=7.7, max_rows=16),),
        devices=2,
        peak_per_s=2000,
    ),
    # Batches save nearly everything, as on a GPU: a device is busy long before it is full.
    Service(
        name="batching",
        models=(ServedModel(name="batching", objective_ms=300, fixed_ms=40, row_ms=1.25, max_rows=64),),
        devices=1,
        peak_per_s=3500,
    ),
    # One device and four times its time: a device that is half busy is full.
    Service(
        name="tight",
        models=(ServedModel(name="tight", objective_ms=80, fixed_ms=0, row_ms=20),),
        devices=1,
        peak_per_s=220,
    ),
    # Short requests beside long ones on the same devices.
    Service(
        name="mixed",
        models=(
            ServedModel(name="short", objective_ms=150, fixed_ms=2, row_ms=6, max_rows=8, share=0.8),
            ServedModel(name="long", objective_ms=1000, fixed_ms=0, row_ms=60, share=0.2),
        ),
        devices=2,
        peak_per_s=900,
    ),
)
