"""Models that come and go under a memory budget, and around workers that die, with workers that the test holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from erg_server.clock import MonotonicClock
from erg_server.errors import DeadlineExceededError, InternalError, ResourceExhaustedError, UnavailableError
from erg_server.request import InferenceRequest
from erg_server.workers.supervisor import WorkerModel

from tests.server.models.harness import CONFIG, FakeWorker, Harness, request

PINNED = CONFIG + "erg { pinned: true }"


@pytest.fixture
async def harness(tmp_path: Path) -> Harness:
    """One worker, whose models count one byte each, and room for two."""
    return Harness(root=tmp_path / "repo", budgets={"cpu": 2})


async def load(harness: Harness, *names: str, config: str = CONFIG) -> None:
    for name in names:
        harness.write(name, config=config)
        await harness.load(name)


def resident(harness: Harness, worker: int = 0) -> list[str]:
    return sorted(model.name for model in harness.workers[worker].models.values())


def figures(harness: Harness, name: str) -> tuple[int, int]:
    sample = harness.placer.sample_memory()
    return sample.loads.get((name, "1"), 0), sample.evictions.get((name, "1"), 0)


async def test_the_third_model_evicts_one_and_each_comes_back_when_it_is_asked_for(harness: Harness) -> None:
    await load(harness, "a", "b", "c")
    assert len(resident(harness)) == 2
    for name in ("a", "b", "c", "a", "c", "b"):
        assert (await harness.infer(name)).model_name == name
        assert name in resident(harness)
        assert len(resident(harness)) == 2
        assert harness.placer.sample_memory().used_bytes == {"cpu": 2}
    loads, evictions = zip(*(figures(harness, name) for name in "abc"), strict=True)
    assert sum(loads) - sum(evictions) == 2
    assert all(harness.registry.model_ready(name, "") for name in "abc"), "an evicted model answers, so it is ready"


async def test_concurrent_callers_of_more_models_than_fit_are_all_answered(harness: Harness) -> None:
    await load(harness, "a", "b", "c", "d")

    async def caller(name: str) -> None:
        for _ in range(5):
            assert (await harness.infer(name)).model_name == name
            assert len(harness.worker.models) <= 2

    async with asyncio.timeout(30):
        await asyncio.gather(*(caller(name) for name in "abcd" for _ in range(3)))


async def test_a_batch_in_flight_is_answered_before_its_model_goes(harness: Harness) -> None:
    await load(harness, "a", "b", config=CONFIG)
    worker = harness.worker
    worker.may_run = False
    running = [asyncio.create_task(harness.infer("a")), asyncio.create_task(harness.infer("b"))]
    await worker.until(lambda: len(worker.batches) == 4)
    harness.write("c")
    loading = asyncio.create_task(harness.load("c"))
    await worker.until(lambda: any(model.name == "c" for model in worker.models.values()))
    worker.run()
    assert {answer.model_name for answer in await asyncio.gather(*running)} == {"a", "b"}
    await loading


async def test_a_pinned_model_stays(harness: Harness) -> None:
    await load(harness, "p", config=PINNED)
    await load(harness, "a", "b")
    for name in ("a", "b", "a", "b"):
        await harness.infer(name)
        assert resident(harness) == sorted(["p", name])
    assert figures(harness, "p") == (1, 0)


async def test_a_model_that_does_not_fit_beside_the_pinned_ones_is_refused_by_name(harness: Harness) -> None:
    await load(harness, "p", "q", config=PINNED)
    for config in (CONFIG, PINNED):
        harness.write("r", config=config)
        with pytest.raises(ResourceExhaustedError, match=r"'r' needs 1 bytes .* raise the budget, or pin fewer"):
            await harness.load("r")
    assert resident(harness) == ["p", "q"]


async def test_a_request_waits_for_the_load_and_no_longer_than_its_deadline(harness: Harness) -> None:
    await load(harness, "a", "b", "c")
    [gone] = {"a", "b", "c"} - set(resident(harness))
    harness.worker.may_load.clear()
    now_ns = MonotonicClock.now_ns()
    hasty = InferenceRequest(
        model_name=gone, inputs=request().inputs, arrival_ns=now_ns, deadline_ns=now_ns + 20_000_000
    )
    served = harness.registry.resolve(gone, "")
    patient = asyncio.create_task(harness.infer(gone))
    with pytest.raises(DeadlineExceededError):
        await served.infer(hasty)
    harness.worker.may_load.set()
    assert (await patient).model_name == gone


async def test_a_model_that_does_not_come_back_is_told_to_those_who_wait_and_tried_again(harness: Harness) -> None:
    await load(harness, "a", "b", "c")
    [gone] = {"a", "b", "c"} - set(resident(harness))
    harness.worker.load_failure = lambda _: InternalError("the file is broken")
    for _ in range(2):
        with pytest.raises(InternalError, match="the file is broken"):
            await harness.infer(gone)
    harness.worker.load_failure = lambda _: None
    assert (await harness.infer(gone)).model_name == gone


async def test_an_evicted_model_is_unloaded_for_good_without_being_loaded(harness: Harness) -> None:
    await load(harness, "a", "b", "c")
    [gone] = {"a", "b", "c"} - set(resident(harness))
    loads = figures(harness, gone)
    await harness.registry.unload(gone)
    await harness.settle()
    assert figures(harness, gone) == loads
    assert len(resident(harness)) == 2


async def test_a_model_counted_once_moves_while_its_worker_is_away(tmp_path: Path) -> None:
    workers = (FakeWorker(0), FakeWorker(1))
    harness = Harness(root=tmp_path / "repo", workers=workers)
    await load(harness, "one", config=CONFIG + "instance_group { kind: KIND_CPU count: 1 }")
    await load(harness, "all")
    assert (resident(harness, 0), resident(harness, 1)) == (["all", "one"], ["all"])
    workers[0]._set_state("restarting")
    await workers[1].until(lambda: resident(harness, 1) == ["all", "one"])
    assert (await harness.infer("one")).model_name == "one"
    assert [model.name for model in workers[0].models.values()] == ["all"], "it is not loaded there again"
    workers[0]._set_state("ready")
    assert (await harness.infer("all")).model_name == "all"
    assert resident(harness, 1) == ["all", "one"], "nothing moves back for nothing"


async def test_a_worker_that_comes_back_empty_is_given_its_models_again(tmp_path: Path) -> None:
    workers = (FakeWorker(0), FakeWorker(1))
    harness = Harness(root=tmp_path / "repo", workers=workers)
    await load(harness, "all")
    workers[0]._set_state("restarting")
    workers[0].models.clear()
    workers[0]._set_state("ready")
    await workers[0].until(lambda: resident(harness, 0) == ["all"])


async def test_a_hot_model_gets_a_second_instance_within_memory(tmp_path: Path) -> None:
    workers = (FakeWorker(0), FakeWorker(1))
    harness = Harness(root=tmp_path / "repo", workers=workers, budgets={"cpu": 2})
    await load(harness, "hot")
    assert [bool(worker.models) for worker in workers] == [True, False]
    # Longer than any test: whatever time has passed, the device was busy for all of it, several times over.
    harness.registry.resolve("hot", "").queue.meter.compute_histogram.observe(10**15)
    harness.placer.sample_loads()
    await workers[1].until(lambda: resident(harness, 1) == ["hot"])
    await load(harness, "other")
    assert sorted(resident(harness, 0) + resident(harness, 1)) == ["hot", "other"]


async def test_what_a_version_did_before_it_was_loaded_anew_is_not_its_load(tmp_path: Path) -> None:
    workers = (FakeWorker(0), FakeWorker(1))
    harness = Harness(root=tmp_path / "repo", workers=workers, budgets={"cpu": 2})
    await load(harness, "m")
    harness.registry.resolve("m", "").queue.meter.compute_histogram.observe(10**15)
    await harness.registry.unload("m")
    await harness.settle()
    await harness.load("m")
    harness.placer.sample_loads()
    assert sum(len(worker.models) for worker in workers) == 1


async def test_requests_that_wait_for_one_load_ask_for_it_once(harness: Harness) -> None:
    await load(harness, "a", "b", "c")
    [gone] = {"a", "b", "c"} - set(resident(harness))
    loads, _ = figures(harness, gone)
    harness.worker.may_load.clear()
    waiting = [asyncio.create_task(harness.infer(gone)) for _ in range(8)]
    await asyncio.sleep(0)
    harness.worker.may_load.set()
    await asyncio.gather(*waiting)
    assert figures(harness, gone)[0] == loads + 1


async def test_a_worker_that_dies_while_it_loads_is_passed_over_until_it_is_back(tmp_path: Path) -> None:
    workers = (FakeWorker(0), FakeWorker(1))
    harness = Harness(root=tmp_path / "repo", workers=workers)

    def die(_: WorkerModel) -> UnavailableError:
        workers[0].state = "restarting"
        return UnavailableError("worker cpu0 died while it loaded the model")

    workers[0].load_failure = die
    await load(harness, "m")
    assert (resident(harness, 0), resident(harness, 1)) == ([], ["m"])
    workers[0].load_failure = lambda _: None
    workers[0]._set_state("ready")
    await workers[0].until(lambda: resident(harness, 0) == ["m"])
