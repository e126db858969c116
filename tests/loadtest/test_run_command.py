from dataclasses import replace

import pytest
from click.testing import CliRunner
from erg_loadtest import cli, run_command
from erg_loadtest.answers import CheckKind, CheckRule
from erg_loadtest.arrivals import BurstyRate, ClosedLoop, ConstantRate, Limit, PoissonRate, Replay
from erg_loadtest.errors import LoadTestError
from erg_loadtest.image_data import ImageOptions, Normalization
from erg_loadtest.input_data import FileScenario
from erg_loadtest.mlperf import Mlperf, MlperfScenario, parse_summary
from erg_loadtest.scenarios import Dim
from erg_loadtest.text_data import TextOptions
from erg_loadtest.validity import Validity

from tests.loadtest.test_report import result


@pytest.fixture
def invoke(monkeypatch):
    """Run the command; returns its outcome and the plan it made."""

    def run(*arguments):
        plans = []

        def stop(plan, progress):
            plans.append(plan)
            raise LoadTestError("stopped by the test")

        monkeypatch.setattr(run_command, "run_load", stop)
        outcome = CliRunner().invoke(cli.load, list(arguments))
        return outcome, plans[0] if plans else None

    return run


def test_the_defaults_are_a_bounded_closed_loop_on_loopback(invoke):
    _, plan = invoke("m")
    assert plan.arrivals == ClosedLoop(concurrency=8)
    assert plan.limit == Limit(duration_s=10.0)
    assert plan.target.url == "127.0.0.1:8001"


def test_a_rate_makes_an_open_loop(invoke):
    assert invoke("m", "--request-rate", "50", "--seed", "2")[1].arrivals == PoissonRate(rate_per_s=50, seed=2)
    constant = invoke("m", "--request-rate", "50", "--request-distribution", "constant")[1]
    assert constant.arrivals == ConstantRate(rate_per_s=50)


def test_bursts_are_set_by_factor_share_and_period(invoke):
    arguments = ("--request-rate", "50", "--request-distribution", "bursty", "--burst-factor", "4")
    _, plan = invoke("m", *arguments, "--burst-share", "0.2", "--burst-period", "3", "--seed", "5")
    assert plan.arrivals == BurstyRate(rate_per_s=50, factor=4, share=0.2, period_s=3, seed=5)


def test_a_recording_of_the_model_is_replayed_to_its_end(invoke, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time_s,model\n1,m\n2,other\n3,m\n")
    _, plan = invoke("m", "--trace", str(path), "--replay-speed", "2")
    assert plan.arrivals == Replay(offsets_ns=(0, 1_000_000_000), source="t.csv", speed=2.0)
    assert plan.limit == Limit(requests=2)
    assert invoke("m", "--trace", str(path), "--duration", "1")[1].limit == Limit(duration_s=1.0)


def test_a_recording_excludes_a_rate(invoke, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time_s\n1\n")
    outcome, _ = invoke("m", "--trace", str(path), "--request-rate", "5")
    assert outcome.exit_code == 2
    assert "leave out --request-rate" in outcome.output


@pytest.mark.parametrize(
    ("status", "reasons", "code"),
    [(0, (), 0), (0, ("too slow",), 3), (14, (), 1), (14, ("too slow",), 1)],
)
def test_the_exit_code_tells_failures_from_an_invalid_run(monkeypatch, status, reasons, code):
    def measured(plan, progress):
        return replace(result(status=[status] * 100), validity=Validity(reasons=reasons))

    monkeypatch.setattr(run_command, "run_load", measured)
    outcome = CliRunner().invoke(cli.load, ["m"])
    assert outcome.exit_code == code
    assert ("NO: the client was the limit" in outcome.output) is bool(reasons)


def test_texts_and_images_are_made_as_the_options_say(invoke, tmp_path):
    data = ("--input-data", str(tmp_path), "--image-size", "6x7", "--image-layout", "nhwc")
    assert invoke("m", *data, "--image-normalization", "1/2", "-b", "3")[1].scenario == FileScenario(
        path=tmp_path,
        batch_size=3,
        images=ImageOptions(size=(6, 7), layout="nhwc", normalization=Normalization(mean=(1,) * 3, std=(2,) * 3)),
    )
    text = ("--tokenizer", str(tmp_path), "--text-field", "body", "--max-length", "9")
    assert invoke("m", "--input-data", str(tmp_path), *text)[1].scenario.text == TextOptions(
        tokenizer=tmp_path, field="body", max_length=9
    )


def test_answers_are_checked_by_kind_and_tolerance(invoke):
    assert invoke("m")[1].check is None
    rule = invoke("m", "--check", "first", "--atol", "0.5", "--rtol", "0")[1].check
    assert rule == CheckRule(kind=CheckKind.FIRST, atol=0.5, rtol=0)


def test_client_processes_are_a_number_or_left_to_the_warm_up(invoke):
    assert invoke("m")[1].processes == 1
    assert invoke("m", "--processes", "3")[1].processes == 3
    assert invoke("m", "--processes", "auto")[1].processes is None
    assert "give a number, or auto" in invoke("m", "--processes", "many")[0].output


def test_a_mix_and_a_batch_axis_reach_the_plan(invoke):
    _, plan = invoke("m", "--mix", "0.7=ids:16", "--mix", "0.3=ids:128", "--batch-axis")
    assert [(mix.weight, mix.shapes) for mix in plan.scenario.mixes] == [
        (0.7, {"ids": (Dim(16, 16),)}),
        (0.3, {"ids": (Dim(128, 128),)}),
    ]
    assert plan.batch_axis


def test_mlperf_scenarios_take_their_bound_from_the_model_unless_it_is_given(invoke):
    _, plan = invoke("bert", "--mlperf", "server", "--request-rate", "50", "--min-duration", "60", "--seed", "3")
    assert plan.arrivals == Mlperf(
        scenario=MlperfScenario.SERVER, rate_per_s=50, latency_bound_ms=130, min_duration_s=60, seed=3
    )
    own = invoke("bert", "--mlperf", "server", "--request-rate", "50", "--latency-bound-ms", "20")[1]
    assert own.arrivals.latency_bound_ms == 20
    offline = invoke("m", "--mlperf", "offline", "--request-rate", "50", "--concurrency", "9", "--min-queries", "5")[1]
    assert (offline.arrivals.concurrency, offline.arrivals.min_queries) == (9, 5)


def test_loadgen_s_invalid_ends_with_the_code_of_an_invalid_run(monkeypatch):
    verdict = parse_summary("Result is : INVALID\n  Min duration satisfied : NO\n")
    monkeypatch.setattr(run_command, "run_load", lambda plan, progress: replace(result(), mlperf=verdict))
    outcome = CliRunner().invoke(cli.load, ["m"])
    assert outcome.exit_code == 3
    assert "INVALID: Min duration satisfied: no" in outcome.output


def test_a_request_count_alone_has_no_time_limit(invoke):
    assert invoke("m", "--request-count", "7")[1].limit == Limit(requests=7)


def test_shapes_ranges_and_omissions_reach_the_scenario(invoke):
    _, plan = invoke("m", "--shape", "ids:5..9", "--range", "ids:0:3", "--omit", "mask", "-b", "2")
    assert plan.scenario.shapes == {"ids": (Dim(5, 9),)}
    assert plan.scenario.ranges == {"ids": (0.0, 3.0)}
    assert plan.scenario.omit == {"mask"}
    assert plan.scenario.batch_size == 2


def test_a_file_replaces_random_inputs(invoke, tmp_path):
    path = tmp_path / "d.npz"
    path.write_bytes(b"")
    assert invoke("m", "--input-data", str(path))[1].scenario == FileScenario(path=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--concurrency", "2", "--request-rate", "5"), "give one of them"),
        (("--price-per-cpu-hour", "1"), "--metrics-url or --server-pid"),
        (("--shape", "ids"), "NAME:SIZE"),
        (("--request-rate", "0"), "rate must be positive"),
        (("--replay-speed", "2"), "give --trace"),
        (("--input-data", "tests", "--mix", "1=ids:4"), "describe random inputs"),
        (("--mlperf", "server"), "needs --request-rate"),
        (("--mlperf", "single-stream", "--duration", "5"), "--min-duration"),
        (("--mlperf", "single-stream", "-b", "2"), "single rows"),
        (("--mlperf", "single-stream", "--concurrency", "2"), "no --concurrency"),
        (("--latency-bound-ms", "2"), "give --mlperf server"),
    ],
)
def test_contradictions_end_with_code_2_and_say_what_to_change(invoke, arguments, message):
    outcome, plan = invoke("m", *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert plan is None


def test_a_model_without_the_word_run_is_loaded(invoke):
    assert invoke("run", "m")[1] == invoke("m")[1]
    assert invoke("-u", "host:1", "m")[1].target.url == "host:1"
