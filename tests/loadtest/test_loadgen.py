import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import grpc
import pytest
from erg_loadtest import loadgen
from erg_loadtest.arrivals import ClosedLoop, Limit
from erg_loadtest.client import InferClient, Target
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.load import run_load_async
from erg_loadtest.loadgen import load_library
from erg_loadtest.mlperf import Mlperf, MlperfScenario
from erg_loadtest.payloads import Payload
from erg_loadtest.work import Work

from tests.loadtest.fake_server import running
from tests.loadtest.narrow import known
from tests.loadtest.test_load import plan

real = pytest.mark.skipif(find_spec("mlperf_loadgen") is None, reason="LoadGen is not installed: erg[loadtest-mlperf]")


def scenario(name, **options):
    return Mlperf(scenario=name, min_duration_s=0.2, min_queries=10, **options)


SCENARIOS = [
    scenario(MlperfScenario.SINGLE_STREAM),
    scenario(MlperfScenario.MULTI_STREAM),
    scenario(MlperfScenario.SERVER, rate_per_s=200.0, latency_bound_ms=1000.0),
    scenario(MlperfScenario.OFFLINE, rate_per_s=200.0, concurrency=4),
]


@real
@pytest.mark.parametrize("arrivals", SCENARIOS, ids=lambda arrivals: str(arrivals.scenario))
async def test_every_scenario_ends_with_loadgen_s_verdict_beside_our_figures(arrivals):
    async with running() as server:
        result = await run_load_async(plan(server, arrivals=arrivals))
        assert len(server.infer_requests) == result.requests + 5
    verdict = known(result.mlperf)
    assert verdict.conditions["Min queries satisfied"]
    assert verdict.figures
    assert result.failed == 0
    assert result.requests >= 10
    assert result.to_json()["mlperf"]["valid"] is verdict.valid
    assert str(arrivals.scenario) in result.to_json()["description"]


@real
async def test_multi_stream_has_eight_samples_in_flight_and_single_stream_one():
    for arrivals, samples in ((SCENARIOS[0], 1), (SCENARIOS[1], 8)):
        async with running() as server:
            result = await run_load_async(plan(server, arrivals=arrivals))
        assert result.requests % samples == 0


@real
async def test_a_seed_repeats_loadgen_s_choice_of_samples():
    async def sent(seed):
        async with running() as server:
            arrivals = scenario(MlperfScenario.OFFLINE, rate_per_s=200.0, concurrency=1, seed=seed)
            await run_load_async(plan(server, arrivals=arrivals, warmup=None))
            return [request.raw_input_contents[0] for request in server.infer_requests]

    assert await sent(1) == await sent(1)
    assert await sent(1) != await sent(2)


@real
async def test_queries_that_fail_are_completed_and_make_the_run_invalid():
    async with running() as server:
        server.failure = lambda number: grpc.StatusCode.UNAVAILABLE if number == 7 else None
        result = await run_load_async(plan(server, arrivals=SCENARIOS[3]))
    assert result.count_by_status["UNAVAILABLE"] == 1
    assert "Every query answered (1 not): no" in known(result.mlperf).reasons


class OneQuery:
    """A library that issues one query and ends when the test lets it."""

    def __init__(self):
        self.end = threading.Event()
        self.completed = []
        self.settings = None

    class TestSettings(SimpleNamespace):
        pass

    class LogSettings(SimpleNamespace):
        log_output = SimpleNamespace()

    TestScenario = SimpleNamespace(SingleStream=0)
    TestMode = SimpleNamespace(PerformanceOnly=0)
    QuerySampleResponse = staticmethod(lambda query, data, size: query)

    def ConstructSUT(self, issue, flush):  # noqa: N802
        return issue

    def ConstructQSL(self, total, performance, load, unload):  # noqa: N802
        return None

    def StartTestWithLogSettings(self, issue, data, settings, log, audit):  # noqa: N802
        self.settings = settings
        issue([SimpleNamespace(id=7, index=0)])
        self.end.wait()

    def DestroyQSL(self, data):  # noqa: N802
        pass

    def DestroySUT(self, system):  # noqa: N802
        pass

    def QuerySamplesComplete(self, responses):  # noqa: N802
        self.completed += responses
        self.end.set()


def one_query(monkeypatch, send, arrivals=SCENARIOS[0]):
    library = OneQuery()
    monkeypatch.setattr(loadgen, "load_library", lambda: library)
    client = InferClient(Target())
    monkeypatch.setattr(client, "sender", lambda payloads, check: send)
    work = Work(
        target=Target(),
        arrivals=ClosedLoop(concurrency=1),
        limit=Limit(requests=1),
        warmup=None,
        payloads=(Payload(body=b"", rows=1),),
        max_in_flight=8,
    )
    return library, loadgen.LoadGenRun(work, arrivals, client)


async def test_a_bug_in_the_client_ends_the_run_instead_of_hanging_it(monkeypatch):
    async def send(index):
        raise ValueError("bug")

    library, run = one_query(monkeypatch, send)
    with pytest.raises(ValueError, match="bug"):
        await run.measure()
    assert library.completed == []
    library.end.set()


async def test_a_library_that_wrote_no_summary_refused_its_settings(monkeypatch):
    async def send(index):
        return 0

    library, run = one_query(monkeypatch, send)
    with pytest.raises(LoadTestError, match="wrote no summary"):
        await run.measure()
    assert library.completed == [7]


async def test_a_seed_gives_loadgen_s_three_and_the_warm_up_its_expected_latency(monkeypatch):
    async def send(index):
        return 0

    library, run = one_query(monkeypatch, send, replace(SCENARIOS[0], seed=30))
    with pytest.raises(LoadTestError):
        await run.measure()
    settings = library.settings
    seeds = (settings.qsl_rng_seed, settings.sample_index_rng_seed, settings.schedule_rng_seed)
    assert seeds == (30, 31, 32)
    assert settings.single_stream_expected_latency_ns == 1_000_000


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(PlanError, match=r"erg\[loadtest-mlperf\]"):
        load_library()


async def test_several_processes_are_refused():
    with pytest.raises(PlanError, match="one client process"):
        async with running() as server:
            plan(server, arrivals=SCENARIOS[0], processes=2)
