"""The models of a repository as a plan needs them: what each would be served as, its memory and its batch times."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erg_server.devices.device import Device
from erg_server.errors import ErgError
from erg_server.models.loader import version_identity
from erg_server.planning.batch_times import BatchTimes, MissingTimesError, measured_times
from erg_server.planning.hardware import device_of
from erg_server.planning.load_problem import LoadFileError
from erg_server.planning.objectives import Objectives
from erg_server.planning.traffic import Load, ModelTraffic
from erg_server.repository.problem import Problem, did_you_mean
from erg_server.repository.repository import ModelDefinition, ModelRepository
from erg_server.repository.spec import ModelSpec
from erg_server.scheduling.latency_cache import LatencyCache


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """One version to be served. Without `traffic` it takes memory alone, and its `times` need not be known.

    `spec` has the objective that the plan is judged by. `memory_source` says where `memory_bytes`, of one instance, are
    from.
    """

    name: str
    version: int
    spec: ModelSpec
    memory_bytes: int
    memory_source: str = ""
    times: BatchTimes | None = None
    traffic: ModelTraffic | None = None

    @property
    def most_batch_rows(self) -> int:
        """The rows of the largest batch that the server forms of several requests."""
        if self.spec.batching is None:
            return 1
        return max(1, min(self.spec.max_batch_size, self.spec.batch_limit or self.spec.max_batch_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The models, and those that `erg serve` would not load either: `passed_over` says why, by name."""

    models: tuple[PlannedModel, ...]
    passed_over: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What is known beside the repository: learnt times, times assumed in place of them, and objectives stated."""

    objectives: Objectives
    cache: LatencyCache | None = None
    assumed: Mapping[str, BatchTimes] = field(default_factory=dict)


def read_catalogue(
    roots: Sequence[Path], load: Load, devices: Sequence[Device], backends: Collection[str], known: Knowledge
) -> Catalogue:
    """Open every model as a server would. Requests go to the newest version that is served; all take memory.

    Raises:
        LoadFileError: the load names a model that is not there, or sends a request that it would refuse.
        MissingTimesError: nothing says what the batches of a model with traffic take.
        ErgError: a model with traffic cannot be served.
    """
    repository = ModelRepository(roots)
    names = list(repository.scan())
    traffic = {each.name: each for each in load.models}
    _check_names(load.models, names)
    models: list[PlannedModel] = []
    passed_over: dict[str, str] = {}
    for name in names:
        try:
            models += _versions(repository.open(name), traffic.get(name), devices, backends, known)
        except ErgError as error:
            if name in traffic:
                raise
            passed_over[name] = error.message
    _check_rows(models)
    missing = {each.name: _told(device_of(each.spec, devices)) for each in models if each.traffic and not each.times}
    if missing:
        raise MissingTimesError(missing)
    return Catalogue(models=tuple(models), passed_over=passed_over)


def _versions(
    definition: ModelDefinition,
    traffic: ModelTraffic | None,
    devices: Sequence[Device],
    backends: Collection[str],
    known: Knowledge,
) -> list[PlannedModel]:
    device = device_of(definition.spec, devices)
    found: list[PlannedModel] = []
    for version in definition.versions:
        plan = definition.plan(version, device.kind, backends)
        manifest = definition.manifest(version)
        variant = "" if plan.artifact is None else plan.artifact.name
        measurements = () if manifest is None else manifest.measurements
        asked = traffic if version == definition.versions[-1] else None
        times = known.assumed.get(definition.name)
        if asked is not None and times is None:
            times = measured_times(
                plan.spec,
                device,
                identity=version_identity(definition, version),
                measurements=measurements,
                variant=variant,
                cache=known.cache,
                length=asked.length,
            )
        file_bytes = plan.path.stat().st_size if plan.path.is_file() else 0
        ran_bytes = max(
            (each.memory_bytes or 0 for each in measurements if (each.variant, each.device) == (variant, device.kind)),
            default=0,
        )
        found.append(
            PlannedModel(
                name=definition.name,
                version=version,
                spec=known.objectives.applied(plan.spec, asked),
                memory_bytes=max(file_bytes, ran_bytes),
                memory_source="manifest" if ran_bytes > file_bytes else "file size",
                times=times if asked is not None else None,
                traffic=asked,
            )
        )
    return found


def _told(device: Device) -> str:
    """What batch times are looked for on: of a CPU worker they count for its number of threads alone."""
    plural = "" if device.threads == 1 else "s"
    return "gpu" if device.kind == "gpu" else f"cpu workers of {device.threads} thread{plural}"


def _check_names(traffic: Sequence[ModelTraffic], names: Sequence[str]) -> None:
    problems = [
        Problem(
            path=each.place,
            message=f"the repository has no model '{each.name}'",
            suggestion=did_you_mean(each.name, names),
        )
        for each in traffic
        if each.name not in names
    ]
    if problems:
        raise LoadFileError(problems)


def _check_rows(models: Sequence[PlannedModel]) -> None:
    """A request of more rows than a batch may have is refused by the server, at any load."""
    problems = []
    for model in models:
        most = max(1, model.spec.max_batch_size)
        if model.traffic is not None and model.traffic.most_rows > most:
            message = f"model '{model.name}' takes requests of {most} rows at most, not of {model.traffic.most_rows}"
            hint = "send fewer rows, or raise max_batch_size"
            problems.append(Problem(path=model.traffic.place, key="rows", message=message, suggestion=hint))
    if problems:
        raise LoadFileError(problems)
