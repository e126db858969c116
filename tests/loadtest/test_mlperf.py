import pytest
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.mlperf import Mlperf, MlperfScenario, parse_summary, server_bound_ms
from hypothesis import given
from hypothesis import strategies as st

SERVER = """================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 179.93
Result is : INVALID
  Performance constraints satisfied : Yes
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
Early Stopping Result:
 * Run unsuccessful.
 * Would need to run at least 366 more queries,
 with the run being successful if every additional
 query were under latency.

================================================
Additional Stats
================================================
Scheduled samples per second : 180.74
99.00 percentile latency (ns)   : 6779026

================================================
Test Parameters Used
================================================
target_latency (ns): 10000000

No warnings encountered during test.
"""
OFFLINE = """Samples per second: 4.75241e+04
Result is : INVALID
  Min duration satisfied : NO
  Min queries satisfied : Yes
Recommendations:
 * Increase expected QPS so the loadgen pre-generates a larger (coalesced) query.
"""

MORE_NEEDED = "Would need to run at least 366 more queries, with the run being successful if every additional"


def test_a_summary_is_read_with_its_conditions_and_figures():
    verdict = parse_summary(SERVER)
    assert verdict.valid is False
    assert verdict.conditions == {
        "Performance constraints satisfied": True,
        "Min duration satisfied": True,
        "Min queries satisfied": True,
        "Early stopping satisfied": False,
    }
    assert verdict.figures == {
        "Completed samples per second": 179.93,
        "Scheduled samples per second": 180.74,
        "99.00 percentile latency (ns)": 6779026.0,
    }


def test_the_reasons_are_what_was_not_satisfied_and_what_loadgen_advises():
    assert parse_summary(SERVER).reasons == (
        "Early stopping satisfied: no",
        "Run unsuccessful.",
        f"{MORE_NEEDED} query were under latency.",
    )
    verdict = parse_summary(OFFLINE)
    assert verdict.reasons[0] == "Min duration satisfied: no"
    assert verdict.reasons[1].startswith("Increase expected QPS")
    assert verdict.figures == {"Samples per second": 47524.1}


def test_failed_queries_make_a_valid_run_invalid():
    valid = parse_summary("Result is : VALID\n  Min queries satisfied : Yes\n")
    assert valid.reasons == ()
    assert valid.with_failures(0) == valid
    assert valid.with_failures(3).reasons == ("Every query answered (3 not): no",)


@given(st.text())
def test_any_other_text_is_no_verdict(text):
    if "Result is" in text:
        return
    with pytest.raises(LoadTestError, match="no verdict"):
        parse_summary(text)


def test_server_has_mlperf_s_bound_of_the_model():
    assert server_bound_ms("resnet50_onnx") == 15
    assert server_bound_ms("BERT-large") == 130
    assert server_bound_ms("minilm") == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": MlperfScenario.SERVER, "latency_bound_ms": 5.0}, "needs --request-rate: the rate to hold"),
        ({"scenario": MlperfScenario.OFFLINE}, "needs --request-rate: the rate to expect"),
        ({"scenario": MlperfScenario.OFFLINE, "rate_per_s": 0.0}, "rate must be positive"),
        ({"scenario": MlperfScenario.SINGLE_STREAM, "rate_per_s": 5.0}, "has no rate"),
        ({"scenario": MlperfScenario.SERVER, "rate_per_s": 5.0}, "latency bound must be"),
        ({"scenario": MlperfScenario.MULTI_STREAM, "latency_bound_ms": 5.0}, "only server has one"),
        ({"scenario": MlperfScenario.MULTI_STREAM, "min_duration_s": 0.0}, "minimum duration"),
        ({"scenario": MlperfScenario.MULTI_STREAM, "min_queries": 0}, "at least 1"),
    ],
)
def test_impossible_scenarios_are_refused(options, message):
    with pytest.raises(PlanError, match=message):
        Mlperf(**options)
