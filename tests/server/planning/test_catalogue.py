from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from erg_server.errors import FailedPreconditionError
from erg_server.models.loader import version_identity
from erg_server.planning.batch_times import MissingTimesError, parse_assumptions
from erg_server.planning.catalogue import Catalogue, Knowledge, read_catalogue
from erg_server.planning.load_problem import LoadFileError
from erg_server.planning.objectives import Objectives
from erg_server.planning.traffic import Load, ModelTraffic
from erg_server.repository.repository import ModelRepository
from erg_server.scheduling.latency_cache import LatencyCache
from erg_server.scheduling.latency_curve import CurveSnapshot

from tests.server.planning.builders import CONFIG, MS, cpus, measured, traffic, write_model


def read(root: Path, *load: ModelTraffic, **known: Any) -> Catalogue:
    knowledge = Knowledge(objectives=Objectives(), **known)
    return read_catalogue([root], Load(models=load), cpus(2), {"identity"}, knowledge)


def test_a_published_model_is_planned_from_its_manifest(tmp_path: Path) -> None:
    elsewhere = [measured(1, 5.0, memory_bytes=9_000_000, **other) for other in ({"device": "gpu"}, {"variant": "v"})]
    write_model(tmp_path, "m", [measured(1, 5.0, memory_bytes=7_000_000), *elsewhere])
    (model,) = read(tmp_path, traffic()).models
    assert model.times is not None
    assert (model.times.mean_ns(1), model.times.source) == (5 * MS, "manifest")
    assert (model.memory_bytes, model.memory_source) == (7_000_000, "manifest")


def test_the_cache_of_a_server_knows_the_version(tmp_path: Path) -> None:
    write_model(tmp_path / "repo", "m")
    cache = LatencyCache(tmp_path / "cache.json")
    definition = ModelRepository([tmp_path / "repo"]).open("m")
    cache.put(version_identity(definition, 1), "cpu/1", {None: CurveSnapshot(means_ns={1: 3.0 * MS})})
    (model,) = read(tmp_path / "repo", traffic(), cache=cache).models
    assert model.times is not None
    assert model.times.source == "latency cache"


def test_a_model_without_times_is_refused_with_what_to_do(tmp_path: Path) -> None:
    write_model(tmp_path, "m")
    write_model(tmp_path, "idle")
    with pytest.raises(MissingTimesError) as caught:
        read(tmp_path, traffic())
    told = caught.value.message
    assert "of model 'm' on cpu workers of 1 thread." in told
    assert all(hint in told for hint in ("`erg convert`", "--latency-cache", "--assume-ms m=5"))


def test_an_assumption_is_taken_instead_of_what_was_measured(tmp_path: Path) -> None:
    write_model(tmp_path, "m", [measured(1, 5.0)])
    (model,) = read(tmp_path, traffic(), assumed=parse_assumptions(["m=2"])).models
    assert model.times is not None
    assert model.times.source == "assumed: 2 ms a row"


def test_a_model_without_traffic_takes_memory_alone(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "idle", config=CONFIG + 'default_model_filename: "weights"')
    (folder / "weights").write_bytes(bytes(123))
    write_model(tmp_path, "m", [measured(1, 5.0)])
    idle, _ = read(tmp_path, traffic()).models
    assert (idle.name, idle.times, idle.traffic) == ("idle", None, None)
    assert (idle.memory_bytes, idle.memory_source) == (123, "file size")


def test_requests_go_to_the_newest_version_and_all_take_memory(tmp_path: Path) -> None:
    write_model(tmp_path, "m", [measured(1, 5.0)], config=CONFIG + "version_policy { all { } }")
    (tmp_path / "m" / "2").mkdir()
    models = read(tmp_path, traffic(), assumed=parse_assumptions(["m=2"])).models
    assert [(model.version, model.traffic is not None) for model in models] == [(1, False), (2, True)]


def test_a_model_that_is_not_there_is_told_with_its_place(tmp_path: Path) -> None:
    write_model(tmp_path, "minilm")
    stated = ModelTraffic(name="minlm", arrivals=traffic().arrivals, place="rates.toml:7")
    with pytest.raises(LoadFileError) as caught:
        read(tmp_path, stated)
    assert caught.value.message == "rates.toml:7: the repository has no model 'minlm'; did you mean 'minilm'?"


def test_a_request_that_the_server_would_refuse_is_told(tmp_path: Path) -> None:
    write_model(tmp_path, "m", [measured(1, 5.0)])
    with pytest.raises(LoadFileError, match="model 'm' takes requests of 8 rows at most, not of 9"):
        read(tmp_path, traffic(rows=9))


def test_a_broken_model_is_passed_over_unless_it_has_traffic(tmp_path: Path) -> None:
    write_model(tmp_path, "m", [measured(1, 5.0)])
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "config.pbtxt").write_text(CONFIG)
    assert "has no version" in read(tmp_path, traffic()).passed_over["draft"]
    with pytest.raises(FailedPreconditionError, match="model 'draft' has no version"):
        read(tmp_path, traffic("draft"))
