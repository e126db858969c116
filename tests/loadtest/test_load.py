import json
import os
import sys
from typing import Any

import grpc
import numpy as np
import pytest
from erg_loadtest import load
from erg_loadtest.answers import CheckKind, CheckRule
from erg_loadtest.arrivals import ClosedLoop, ConstantRate, Limit
from erg_loadtest.client import Target
from erg_loadtest.cost import CpuPrice
from erg_loadtest.errors import LoadTestError, PlanError, ServerError
from erg_loadtest.input_data import FileScenario
from erg_loadtest.load import LoadPlan, PreparedScenario, run_load_async
from erg_loadtest.payloads import Payload
from erg_loadtest.report import warnings
from erg_loadtest.scenarios import Dim, RandomScenario
from erg_server.pb import inference_pb2

from tests.loadtest.fake_server import running
from tests.loadtest.narrow import known

SCENARIO = RandomScenario(batch_size=2, shapes={"ids": (Dim(3, 3),)}, omit=frozenset({"mask"}), distinct=4)


def plan(server, **options):
    options = {"limit": Limit(requests=20), "warmup": Limit(requests=5), "scenario": SCENARIO, **options}
    return LoadPlan(model="echo", target=Target(url=server.url, timeout_s=10), **options)


async def test_client_and_server_counts_agree_and_the_warm_up_is_in_neither():
    async with running() as server:
        result = await run_load_async(plan(server, arrivals=ClosedLoop(concurrency=3)))
        assert len(server.infer_requests) == 25
    assert result.count_by_status == {"OK": 20}
    assert (result.requests, result.succeeded, result.inferences) == (20, 20, 40)
    assert (known(result.server).succeeded, known(result.server).inferences, known(result.server).executions) == (
        20,
        40,
        20,
    )
    assert result.mean_batch == 2
    assert (known(result.server).queue_us, known(result.server).infer_us, known(result.server).batches) == (
        1,
        2,
        {2: 20},
    )
    assert known(result.latency).count == len(result.latencies_ns) == 20
    assert known(result.latency).min_us > 0


async def test_an_open_loop_sends_every_request():
    async with running() as server:
        result = await run_load_async(plan(server, arrivals=ConstantRate(rate_per_s=2000.0)))
    assert result.succeeded == 20
    assert known(result.send_delay).count == 20


async def test_failures_are_counted_by_status_and_kept_out_of_the_latency():
    async with running() as server:
        server.failure = lambda number: grpc.StatusCode.RESOURCE_EXHAUSTED if number % 4 == 0 else None
        result = await run_load_async(plan(server, warmup=None))
    assert result.count_by_status == {"OK": 15, "RESOURCE_EXHAUSTED": 5}
    assert result.failed == 5
    assert known(result.latency).count == 15
    assert result.latency_by_status["RESOURCE_EXHAUSTED"].count == 5


async def test_an_answer_that_the_check_refuses_is_a_failure():
    async with running() as server:
        result = await run_load_async(plan(server, warmup=None), check=lambda index, _: index != 0)
    assert result.count_by_status == {"OK": 15, "WRONG_ANSWER": 5}


async def test_the_check_sees_the_answer_to_the_request_it_names():
    bodies = []
    for number in range(3):
        request = inference_pb2.ModelInferRequest(model_name="echo", id=str(number))
        request.inputs.add(name="ids", datatype="INT64", shape=[1, 1])
        request.raw_input_contents.append(number.to_bytes(8, "little"))
        bodies.append(Payload(body=request.SerializeToString(), rows=1))

    def check(index, answer):
        return inference_pb2.ModelInferResponse.FromString(answer).id == str(index)

    async with running() as server:
        result = await run_load_async(plan(server, scenario=PreparedScenario(payloads=tuple(bodies))), check=check)
    assert result.count_by_status == {"OK": 20}


async def test_a_server_without_extensions_is_measured_and_the_gaps_are_named():
    async with running() as server:
        server.statistics_supported = False
        server.config_supported = False
        # Without a configuration nothing names the batch axis: it is a size like any other.
        scenario = RandomScenario(shapes={"ids": (Dim(1, 1), Dim(3, 3)), "mask": (Dim(1, 1), Dim(3, 3))})
        result = await run_load_async(plan(server, scenario=scenario))
    assert result.succeeded == 20
    assert "UNIMPLEMENTED" in str(result.server)
    assert result.mean_batch is None
    assert "not asked for" in str(result.cpu)
    assert json.loads(json.dumps(result.to_json(raw=True)))["server"]["missing"] == result.server


async def test_a_server_with_the_open_protocol_alone_is_measured_by_its_metadata():
    async with running(extensions=False) as server:
        result = await run_load_async(plan(server, batch_axis=True, check=CheckRule(kind=CheckKind.FIRST)))
        assert list(server.infer_requests[0].inputs[0].shape) == [2, 3]
    assert result.count_by_status == {"OK": 20}
    assert result.inferences == 40
    assert "UNIMPLEMENTED" in str(result.server)


async def test_a_model_whose_inputs_are_not_told_is_refused():
    async with running(extensions=False) as server:
        server.inputs = ()
        with pytest.raises(ServerError, match="names no inputs"):
            await run_load_async(plan(server))


def wrong_from(first):
    def spoil(number, response):
        if number >= first:
            response.raw_output_contents[0] = b"\x01" * len(response.raw_output_contents[0])

    return spoil


@pytest.mark.parametrize("kind", [CheckKind.FIRST, CheckKind.HASH])
@pytest.mark.parametrize("processes", [1, 2])
async def test_answers_unlike_the_first_ones_are_wrong_and_one_is_shown(kind, processes):
    async with running() as server:
        # 4 first answers, then 20 that count.
        server.spoil = wrong_from(14)
        options = {"warmup": None, "check": CheckRule(kind=kind), "processes": processes}
        result = await run_load_async(plan(server, arrivals=ClosedLoop(concurrency=2), **options))
        assert len(server.infer_requests) == 24
    assert result.count_by_status == {"OK": 10, "WRONG_ANSWER": 10}
    assert "prepared request" in str(result.wrong_answer)
    assert result.to_json()["wrong_answer"] == result.wrong_answer
    assert any("A wrong answer" in warning for warning in warnings(result))


async def test_golden_outputs_are_checked_while_loading(tmp_path):
    ids = np.arange(12).reshape(4, 3)
    path = tmp_path / "d.npz"
    columns: Any = {"ids": ids, "expected.ids": np.where(ids == 5, 6, ids)}
    np.savez(path, **columns)
    async with running() as server:
        golden = {"scenario": FileScenario(path=path), "check": CheckRule(kind=CheckKind.GOLDEN)}
        result = await run_load_async(plan(server, warmup=None, **golden))
    assert result.count_by_status == {"OK": 15, "WRONG_ANSWER": 5}
    assert result.wrong_answer == ("prepared request 1: output 'ids'[0, 2] is 5, expected 6 (1 of 3 values differ)")


async def test_a_check_without_golden_outputs_says_where_they_would_be():
    async with running() as server:
        with pytest.raises(PlanError, match=r"expected\.OUTPUT"):
            await run_load_async(plan(server, check=CheckRule(kind=CheckKind.GOLDEN)))


async def test_a_first_answer_that_is_an_error_ends_the_test():
    async with running() as server:
        server.failure = lambda number: grpc.StatusCode.UNAVAILABLE
        with pytest.raises(ServerError, match="first answer to prepared request 0: UNAVAILABLE"):
            await run_load_async(plan(server, check=CheckRule(kind=CheckKind.FIRST)))


async def test_a_wrong_answer_of_the_warm_up_is_not_this_run_s():
    async with running() as server:
        server.spoil = lambda number, response: wrong_from(4)(number if number < 9 else 0, response)
        result = await run_load_async(plan(server, check=CheckRule(kind=CheckKind.FIRST)))
    assert result.count_by_status == {"OK": 20}
    assert result.wrong_answer is None


async def test_a_measured_process_has_a_cost_and_an_unmeasured_one_has_none():
    price = CpuPrice(per_cpu_hour=3.6, currency="EUR")
    async with running() as server:
        measured = await run_load_async(plan(server, server_pid=os.getpid(), price=price))
        unmeasured = await run_load_async(plan(server, price=price))
    assert known(measured.cost).source.startswith("measured")
    assert known(measured.cost).per_1000 == pytest.approx(known(measured.cpu).total_s / 40)
    assert unmeasured.cost is None


async def test_progress_names_the_phase_and_the_total():
    seen = []
    async with running() as server:
        await run_load_async(plan(server), progress=lambda *update: seen.append(update))
    assert seen[0] == ("warm-up", 1, 5)
    assert seen[-1] == ("measuring", 20, 20)


async def test_an_unknown_model_is_an_error_of_the_test_not_of_its_requests():
    async with running() as server:
        with pytest.raises(ServerError, match="NOT_FOUND"):
            await run_load_async(LoadPlan(model="nope", target=Target(url=server.url)))


async def test_a_model_that_never_gets_ready_is_reported():
    async with running() as server:
        server.ready = False
        with pytest.raises(ServerError, match="not ready within"):
            await run_load_async(plan(server, ready_timeout_s=0.01))


async def test_several_client_processes_share_the_load_and_report_together():
    async with running() as server:
        seen = []
        result = await run_load_async(
            plan(server, processes=2, arrivals=ClosedLoop(concurrency=3), warmup=Limit(requests=4)),
            progress=lambda *update: seen.append(update),
        )
        assert len(server.infer_requests) == 24
    assert result.count_by_status == {"OK": 20}
    assert known(result.server).succeeded == 20
    assert result.client_cpu_s > 0


async def test_the_number_of_processes_may_be_left_to_the_warm_up(monkeypatch):
    asked = []

    def two(arrivals, **measured):
        asked.append(measured)
        return 2

    monkeypatch.setattr(load, "processes_needed", two)
    async with running() as server:
        result = await run_load_async(plan(server, processes=None, arrivals=ClosedLoop(concurrency=2)))
    assert (result.processes, result.count_by_status) == (2, {"OK": 20})
    assert asked[0]["loop_cpu_s_per_request"] > 0
    assert 0 < asked[0]["loop_share"] <= 1.1
    with pytest.raises(PlanError, match="decided by the warm-up"):
        async with running() as server:
            await run_load_async(plan(server, processes=None, warmup=None))


async def test_a_client_process_that_dies_ends_the_test_with_its_code(monkeypatch):
    async with running() as server:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(LoadTestError, match="ended early, with code 1"):
            await run_load_async(plan(server, processes=2))


def test_a_plan_without_a_process_is_refused():
    with pytest.raises(PlanError, match="at least 1, not 0"):
        LoadPlan(model="m", processes=0)


def test_impossible_targets_are_refused():
    for options in ({"url": "http://x:1"}, {"connections": 0}, {"timeout_s": 0}):
        with pytest.raises(PlanError):
            Target(**options)
