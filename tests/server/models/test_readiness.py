"""What readiness depends on, and how the poll mode follows a repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from erg_server.errors import ErgError, InternalError, InvalidArgumentError, NotFoundError, UnavailableError
from erg_server.models.registry import ControlMode
from erg_server.telemetry.readiness_families import ModelState

from tests.server.models.harness import CONFIG, Harness


@pytest.fixture
async def harness(tmp_path: Path) -> Harness:
    return Harness(root=tmp_path / "repo")


@pytest.fixture
async def polled(tmp_path: Path) -> Harness:
    return Harness(root=tmp_path / "repo", mode=ControlMode.POLL)


@pytest.mark.parametrize("name", ["gone", "../m", "", "a" * 5000])
async def test_a_load_of_what_is_not_there_does_not_touch_readiness(harness: Harness, name: str) -> None:
    harness.write()
    await harness.registry.start(["m"])
    with pytest.raises((NotFoundError, InvalidArgumentError)):
        await harness.registry.load(name, None, {})
    assert harness.registry.ready()
    assert not harness.registry.known(name)
    with pytest.raises(NotFoundError):
        harness.registry.resolve(name, "")


async def test_a_callers_failing_load_does_not_take_the_server_out_of_service(harness: Harness) -> None:
    harness.write()
    harness.write("other")
    await harness.registry.start(["m"])
    harness.worker.load_failure = lambda _: InternalError("broken")
    with pytest.raises(InternalError):
        await harness.load("other")
    with pytest.raises(ErgError):
        await harness.registry.load("other", "{", {})
    assert harness.registry.ready()
    harness.worker.load_failure = lambda _: None
    await harness.load("other")
    harness.worker.models.popitem()
    assert not harness.registry.ready(), "what was loaded belongs to readiness"


async def test_a_model_that_fails_at_the_start_keeps_the_server_from_being_ready_until_it_is_unloaded(
    harness: Harness,
) -> None:
    harness.write(config="nonsense")
    await harness.registry.start(["*"])
    assert not harness.registry.ready()
    with pytest.raises(UnavailableError, match="nonsense"):
        harness.registry.resolve("m", "")
    assert harness.states() == {"": "UNAVAILABLE"}
    await harness.registry.unload("m")
    assert harness.registry.ready()
    with pytest.raises(NotFoundError, match="not loaded"):
        await harness.registry.unload("m")


async def test_every_change_is_told_to_listeners(harness: Harness) -> None:
    harness.write()
    told: list[bool] = []
    harness.registry.subscribe(lambda: told.append(harness.registry.model_ready("m", "")))
    await harness.load()
    await harness.registry.unload("m")
    assert told[-1] is False
    assert True in told


async def test_polling_loads_reloads_and_unloads_what_changed(polled: Harness) -> None:
    polled.write("a")
    await polled.registry.start([])
    polled.write("b")
    polled.write("a", 2)
    await polled.registry.poll()
    assert (await polled.infer("a")).model_version == "2"
    assert (await polled.infer("b")).model_version == "1"
    shutil.rmtree(polled.root / "a")
    await polled.registry.poll()
    with pytest.raises(UnavailableError, match="unloaded"):
        await polled.infer("a")
    assert polled.registry.ready()
    polled.write("a", 3)
    await polled.registry.poll()
    assert (await polled.infer("a")).model_version == "3"


async def test_polling_an_unchanged_repository_loads_nothing(polled: Harness) -> None:
    polled.write()
    await polled.registry.start([])
    polled.worker.loading.clear()
    await polled.registry.poll()
    assert not polled.worker.loading.is_set()


async def test_polling_goes_on_behind_a_model_that_fails(polled: Harness) -> None:
    await polled.registry.start([])
    polled.write("a", config="nonsense")
    polled.write("b")
    await polled.registry.poll()
    assert (await polled.infer("b")).model_version == "1"
    assert not polled.registry.ready()
    polled.write("a", config=CONFIG)
    await polled.registry.poll()
    assert polled.registry.ready()


async def test_a_broken_model_that_leaves_the_repository_is_forgotten(polled: Harness) -> None:
    polled.write("a", config="nonsense")
    await polled.registry.start([])
    assert not polled.registry.ready()
    shutil.rmtree(polled.root / "a")
    await polled.registry.poll()
    assert polled.registry.ready()


async def test_states_tell_which_models_serve_and_which_loads_failed(harness: Harness) -> None:
    harness.write()
    harness.write("other")
    harness.write("broken", config="nonsense")
    harness.write("aside")
    await harness.registry.start(["m", "broken"])
    assert harness.registry.states() == [
        ModelState(model="broken", ready=False, failed={"": True}),
        ModelState(model="m", ready=True, failed={"1": False}),
    ]
    harness.worker.load_failure = lambda _: InternalError("broken")
    for name in ("m", "other"):
        harness.write(name, 1, 2)
        with pytest.raises(InternalError):
            await harness.load(name)
    # What served goes on, and what nobody wanted is nobody's alarm.
    assert harness.registry.states()[1:] == [ModelState(model="m", ready=True, failed={"1": False, "2": True})]
    harness.worker.load_failure = lambda _: None
    await harness.load("m")
    assert harness.registry.states()[1:] == [ModelState(model="m", ready=True, failed={"2": False})]
    await harness.registry.unload("m")
    assert [state.model for state in harness.registry.states()] == ["broken"]
