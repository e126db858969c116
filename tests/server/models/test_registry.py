"""Which version answers while versions come, fail and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from erg_server.errors import ErgError, FailedPreconditionError, InternalError, NotFoundError, UnavailableError
from erg_server.models.registry import ControlMode
from erg_server.storage.model_stores import ModelStores
from erg_server.workers.supervisor import WorkerModel

from tests.server.models.harness import CONFIG, FakeWorker, Harness
from tests.server.storage.fakes import FakeSource

ALL = "version_policy { all { } }"


@pytest.fixture
async def harness(tmp_path: Path) -> Harness:
    return Harness(root=tmp_path / "repo")


def broken(version: int) -> Callable[[WorkerModel], BaseException | None]:
    def fail(model: WorkerModel) -> BaseException | None:
        return InternalError("the file is broken") if model.version == version else None

    return fail


async def test_a_new_version_answers_only_after_its_load_and_its_warm_up(harness: Harness) -> None:
    harness.write()
    await harness.load()
    harness.write("m", 2)
    worker = harness.worker
    worker.may_load.clear()
    worker.loading.clear()
    loading = asyncio.create_task(harness.load())
    await worker.loading.wait()
    assert (await harness.infer()).model_version == "1"
    assert harness.states() == {"1": "READY", "2": "LOADING"}
    worker.may_run = False
    worker.may_load.set()
    await worker.until(lambda: worker.batches[-1][0] == 2)
    assert harness.registry.resolve("m", "").version == 1, "its warm-up still runs"
    worker.run()
    await loading
    assert (await harness.infer()).model_version == "2"
    assert harness.states() == {"1": "UNAVAILABLE", "2": "READY"}


async def test_a_version_that_fails_to_load_leaves_the_old_one_serving(harness: Harness) -> None:
    harness.write()
    await harness.load()
    harness.write("m", 2)
    harness.worker.load_failure = broken(2)
    with pytest.raises(InternalError, match="the file is broken"):
        await harness.load()
    assert (await harness.infer()).model_version == "1"
    assert harness.states() == {"1": "READY", "2": "UNAVAILABLE"}
    assert harness.reason() == " the file is broken"
    assert len(harness.worker.models) == 1


async def test_a_changed_configuration_that_is_wrong_leaves_the_old_one_serving(harness: Harness) -> None:
    harness.write()
    await harness.load()
    harness.write(config=CONFIG + "max_batch_sise: 3")
    with pytest.raises(ErgError, match="max_batch_sise"):
        await harness.load()
    assert (await harness.infer(rows=4)).model_version == "1"


async def test_requests_in_flight_finish_on_the_version_they_started_on(harness: Harness) -> None:
    harness.write()
    await harness.load()
    worker = harness.worker
    worker.may_run = False
    running = [asyncio.create_task(harness.infer()) for _ in range(7)]
    await asyncio.sleep(0)
    harness.write("m", 2)
    loading = asyncio.create_task(harness.load())
    await worker.until(lambda: len(worker.models) == 2)
    worker.run()
    await loading
    assert [answer.model_version for answer in await asyncio.gather(*running)] == ["1"] * 7
    await harness.settle()
    assert [model.version for model in worker.models.values()] == [2]


async def test_a_version_is_unloaded_only_when_what_it_accepted_is_answered(harness: Harness) -> None:
    harness.write()
    await harness.load()
    worker = harness.worker
    worker.may_run = False
    running = asyncio.create_task(harness.infer())
    await asyncio.sleep(0)
    await harness.registry.unload("m")
    with pytest.raises(UnavailableError, match="unloaded"):
        await harness.infer()
    assert worker.models
    worker.run()
    assert (await running).model_version == "1"
    await harness.settle()
    assert not worker.models
    assert harness.states() == {"1": "UNAVAILABLE"}


async def test_an_unload_while_loading_waits_for_the_load_and_then_unloads(harness: Harness) -> None:
    harness.write()
    harness.worker.may_load.clear()
    loading = asyncio.create_task(harness.load())
    await harness.worker.loading.wait()
    unloading = asyncio.create_task(harness.registry.unload("m"))
    await asyncio.sleep(0)
    harness.worker.may_load.set()
    await asyncio.gather(loading, unloading)
    await harness.settle()
    assert not harness.worker.models
    assert not harness.registry.model_ready("m", "")


async def test_a_load_whose_caller_goes_away_leaves_nothing_behind(harness: Harness) -> None:
    harness.write()
    harness.worker.may_load.clear()
    loading = asyncio.create_task(harness.load())
    await harness.worker.loading.wait()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert harness.states() == {"1": "UNAVAILABLE"}
    assert "cancelled" in harness.reason()
    assert harness.worker.unloaded == [1]
    harness.worker.may_load.set()
    await harness.load()
    assert harness.states() == {"1": "READY"}


async def test_what_no_error_class_foresaw_fails_one_model_and_not_the_start(tmp_path: Path) -> None:
    harness = Harness(root=tmp_path / "repo", mode=ControlMode.NONE)
    harness.write("bad")
    harness.write("good")
    harness.worker.load_failure = lambda model: RuntimeError("surprise") if model.name == "bad" else None
    await harness.registry.start([])
    assert harness.states("bad") == {"1": "UNAVAILABLE"}
    assert "RuntimeError" in harness.reason("bad")
    assert (await harness.infer("good")).model_name == "good"
    assert not harness.registry.ready()


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", ["3"]),
        ("version_policy { latest { num_versions: 2 } }", ["3", "2"]),
        (ALL, ["3", "2", "1"]),
        ("version_policy { specific { versions: [ 1, 3 ] } }", ["3", "1"]),
    ],
    ids=["default", "latest 2", "all", "specific"],
)
async def test_the_version_policy_says_what_is_served(harness: Harness, policy: str, served: list[str]) -> None:
    harness.write("m", 1, 2, 3, config=CONFIG + policy)
    await harness.load()
    assert list(harness.registry.versions("m")) == served
    assert (await harness.infer()).model_version == "3"
    for version in ("1", "2", "3"):
        assert harness.registry.model_ready("m", version) == (version in served)
    with pytest.raises(NotFoundError, match="has no version '9'"):
        await harness.infer(version="9")


@pytest.mark.parametrize("version", ["x", "01", "0", "-1", "1 ", "1_0", "9" * 5000, "\u0661"])
async def test_a_version_that_is_no_number_is_not_found(harness: Harness, version: str) -> None:
    harness.write()
    await harness.load()
    with pytest.raises(NotFoundError, match="has no version"):
        harness.registry.resolve("m", version)


async def test_one_bad_version_of_several_leaves_the_others_serving(harness: Harness) -> None:
    harness.write("m", 1, 2, 3, config=CONFIG + ALL)
    harness.worker.load_failure = broken(2)
    with pytest.raises(InternalError):
        await harness.load()
    assert harness.states() == {"1": "READY", "2": "UNAVAILABLE", "3": "READY"}
    with pytest.raises(UnavailableError, match="version 2 does not serve: the file is broken"):
        harness.registry.resolve("m", "2")
    assert [entry.version for entry in harness.registry.index("", ready=True)] == ["1", "3"]


async def test_a_reload_that_changes_nothing_keeps_the_version_as_it_is(harness: Harness) -> None:
    harness.write()
    await harness.load()
    served = harness.registry.resolve("m", "")
    await harness.load()
    assert harness.registry.resolve("m", "") is served


async def test_a_changed_configuration_loads_the_version_anew(harness: Harness) -> None:
    harness.write()
    await harness.load()
    config = {"backend": "identity", "max_batch_size": 2}
    sides = {side: [{"name": name, "data_type": "TYPE_FP32", "dims": [2]}] for side, name in
             (("input", "x"), ("output", "y"))}  # fmt: skip
    await harness.registry.load("m", json.dumps(config | sides), {})
    assert harness.registry.resolve("m", "").spec.max_batch_size == 2
    await harness.settle()
    assert len(harness.worker.models) == 1


@pytest.mark.parametrize("mode", [ControlMode.NONE, ControlMode.POLL])
async def test_only_the_explicit_mode_takes_load_and_unload(tmp_path: Path, mode: ControlMode) -> None:
    harness = Harness(root=tmp_path / "repo", mode=mode)
    harness.write()
    await harness.registry.start([])
    with pytest.raises(FailedPreconditionError, match="--model-control-mode explicit"):
        await harness.load()
    with pytest.raises(FailedPreconditionError, match="--model-control-mode explicit"):
        await harness.registry.unload("m")
    assert (await harness.infer()).model_version == "1"


@pytest.mark.parametrize(("names", "served"), [([], []), (["a"], ["a"]), (["*"], ["a", "b"]), (["a", "gone"], ["a"])])
async def test_the_explicit_mode_starts_with_what_it_is_told(
    harness: Harness, names: list[str], served: list[str]
) -> None:
    harness.write("a")
    harness.write("b")
    assert not harness.registry.ready()
    await harness.registry.start(names)
    assert sorted(model.name for model in harness.registry.served()) == served
    assert harness.registry.ready()
    assert {entry.name: entry.state for entry in harness.registry.index("", ready=False)} == {
        name: "READY" if name in served else "" for name in ("a", "b")
    }


async def test_a_worker_that_died_takes_its_models_readiness_along(harness: Harness) -> None:
    harness.write()
    await harness.registry.start(["m"])
    assert harness.registry.ready()
    harness.worker.models.clear()
    assert not harness.registry.ready()
    assert not harness.registry.model_ready("m", "1")


async def test_the_index_is_of_one_repository_where_one_is_named(harness: Harness) -> None:
    harness.write()
    assert harness.registry.index("repo", ready=False)
    assert harness.registry.index(str(harness.root), ready=False)
    with pytest.raises(NotFoundError, match="'other'"):
        harness.registry.index("other", ready=False)


async def test_several_workers_must_all_have_a_model(tmp_path: Path) -> None:
    workers = FakeWorker(0), FakeWorker(1)
    harness = Harness(root=tmp_path / "repo", workers=workers)
    harness.write()
    workers[1].load_failure = broken(1)
    with pytest.raises(InternalError):
        await harness.load()
    assert not workers[0].models
    assert not harness.registry.served()


class TestBuckets:
    """Models that lie in a bucket, whose reads the test holds and breaks."""

    @pytest.fixture
    def source(self) -> FakeSource:
        source = FakeSource()
        source.data["m/config.pbtxt"] = CONFIG.encode()
        source.put_version("m", 1, weights_bin=b"one")
        return source

    def harness(self, source: FakeSource, tmp_path: Path, mode: ControlMode) -> Harness:
        (tmp_path / "repo").mkdir(exist_ok=True)
        return Harness(root=tmp_path / "repo", mode=mode, stores=ModelStores([source], tmp_path / "cache"))

    async def test_requests_are_answered_while_a_version_is_fetched(self, source: FakeSource, tmp_path: Path) -> None:
        harness = self.harness(source, tmp_path, ControlMode.POLL)
        await harness.registry.start([])
        source.put_version("m", 2, weights_bin=b"two")
        arrived, may_go_on = asyncio.Event(), asyncio.Event()

        def hold(key: str, _: int) -> object:
            arrived.set()
            return may_go_on.wait() if key == "m/2/weights.bin" else None

        source.before_chunk = hold
        polling = asyncio.create_task(harness.registry.poll())
        await arrived.wait()
        assert (await harness.infer()).model_version == "1"
        may_go_on.set()
        await polling
        assert (await harness.infer()).model_version == "2"

    async def test_a_version_that_does_not_load_leaves_the_old_ones_files(
        self, source: FakeSource, tmp_path: Path
    ) -> None:
        harness = self.harness(source, tmp_path, ControlMode.POLL)
        await harness.registry.start([])
        harness.worker.load_failure = broken(2)
        source.put_version("m", 2, weights_bin=b"two")
        for _ in range(2):
            await harness.registry.poll()
        assert (await harness.infer()).model_version == "1"
        assert harness.registry.resolve("m", "1").definition.version_path(1).joinpath("weights.bin").is_file()

    async def test_a_model_that_cannot_be_fetched_at_the_start_keeps_the_server_from_being_ready_until_it_can(
        self, source: FakeSource, tmp_path: Path
    ) -> None:
        source.data["m/1/weights.bin"] = b"ONE"
        harness = self.harness(source, tmp_path, ControlMode.POLL)
        await harness.registry.start([])
        assert not harness.registry.ready()
        assert "has sha256" in harness.registry.index("", ready=False)[0].reason
        with pytest.raises(UnavailableError, match="has sha256"):
            harness.registry.resolve("m", "")
        source.data["m/1/weights.bin"] = b"one"
        await harness.registry.poll()
        assert harness.registry.ready()
        assert (await harness.infer()).model_version == "1"

    async def test_a_broken_model_that_leaves_the_bucket_is_forgotten(self, source: FakeSource, tmp_path: Path) -> None:
        source.data["m/1/weights.bin"] = b"ONE"
        harness = self.harness(source, tmp_path, ControlMode.POLL)
        await harness.registry.start([])
        source.data.clear()
        await harness.registry.poll()
        assert harness.registry.ready()
        with pytest.raises(NotFoundError):
            harness.registry.resolve("m", "")

    async def test_a_new_model_that_is_broken_does_not_take_the_server_out_of_service(
        self, source: FakeSource, tmp_path: Path
    ) -> None:
        harness = self.harness(source, tmp_path, ControlMode.POLL)
        await harness.registry.start([])
        source.put_version("new", 1, weights_bin=b"one")
        source.data["new/1/weights.bin"] = b"ONE"
        await harness.registry.poll()
        assert harness.registry.ready()
        assert "has sha256" in {entry.name: entry.reason for entry in harness.registry.index("", ready=False)}["new"]

    async def test_an_explicit_load_of_a_model_in_a_folder_needs_no_bucket(
        self, source: FakeSource, tmp_path: Path
    ) -> None:
        harness = self.harness(source, tmp_path, ControlMode.EXPLICIT)
        await harness.registry.start(["m"])
        harness.write("own")
        source.listing_error = UnavailableError("connection refused")
        await harness.registry.load("own", None, {})
        assert harness.registry.model_ready("own", "")
        with pytest.raises(UnavailableError, match="connection refused"):
            await harness.registry.load("m", None, {})
        assert harness.registry.model_ready("m", "")
        with pytest.raises(UnavailableError, match="connection refused"):
            await harness.registry.load("absent", None, {})
