import itertools

import numpy as np
import pytest
from erg_loadtest.arrivals import ClosedLoop, ConstantRate
from erg_loadtest.samples import Samples, summarise_ns
from erg_loadtest.validity import ClientUse, judge, most_in_flight, unsupported_percentiles
from hypothesis import given
from hypothesis import strategies as st

MS = 1_000_000
OPEN = ConstantRate(rate_per_s=100.0)
IDLE = ClientUse(cpu_s=0.001, processes=1, max_in_flight=4096)


def samples_of(late_ns, *, service_ns=5 * MS, status=None):
    late_ns = np.asarray(late_ns, dtype=np.int64)
    count = len(late_ns)
    due_ns = np.arange(count, dtype=np.int64) * 10 * MS
    sent_ns = due_ns + late_ns
    return Samples(
        due_ns=due_ns,
        sent_ns=sent_ns,
        done_ns=sent_ns + service_ns,
        status=np.zeros(count, dtype=np.int64) if status is None else np.asarray(status, dtype=np.int64),
        payload=np.zeros(count, dtype=np.int64),
    )


def verdict(samples, arrivals=OPEN, client=IDLE):
    return judge(samples, arrivals, summarise_ns((samples.done_ns - samples.sent_ns)[samples.succeeded]), client)


def test_a_punctual_idle_client_makes_a_valid_run():
    assert verdict(samples_of([0] * 100)).valid


@pytest.mark.parametrize(
    ("late_ms", "service_ms", "valid"), [(2, 5, True), (3, 5, False), (3, 15, True), (4, 15, False)]
)
def test_requests_may_be_late_by_2_ms_or_a_fifth_of_the_service_time(late_ms, service_ms, valid):
    late = verdict(samples_of([late_ms * MS] * 100, service_ns=service_ms * MS))
    assert late.valid is valid
    assert valid or f"{late_ms}.00 ms late (p99)" in late.reasons[0]
    assert valid or "use --processes" in late.reasons[0]


def test_one_late_request_in_a_hundred_is_no_lateness():
    assert verdict(samples_of([0] * 99 + [90 * MS])).valid is False  # The last one late is a rate that was not kept.
    assert verdict(samples_of([0] * 50 + [9 * MS] + [0] * 49)).valid


def test_a_client_that_sends_slower_than_asked_is_named_with_the_share_it_reached():
    falling_behind = verdict(samples_of(np.arange(100) * MS))
    assert any("left at 90.9% of the rate" in reason for reason in falling_behind.reasons)


def test_a_short_run_s_jitter_is_no_rate_that_was_missed():
    assert verdict(samples_of([0, 0, 0, 0, 1.5 * MS])).valid
    assert not verdict(samples_of([0, 0, 0, 0, 2.5 * MS])).valid


def test_the_rate_is_the_client_s_fault_only_where_the_server_answered_everything():
    status = [0] * 99 + [14]
    falling_behind = verdict(samples_of(np.arange(100) * MS, status=status))
    assert not any("of the rate" in reason for reason in falling_behind.reasons)


def test_waiting_at_the_in_flight_bound_is_the_server_s_doing():
    overloaded = samples_of(np.arange(100) * MS, service_ns=100 * MS)
    assert not verdict(overloaded).valid
    bounded = verdict(overloaded, client=ClientUse(cpu_s=0.1, processes=1, max_in_flight=10))
    assert bounded.valid
    assert "10 requests were in flight, the client's bound" in bounded.notes[0]


@pytest.mark.parametrize("arrivals", [OPEN, ClosedLoop(concurrency=1), None])
def test_an_event_loop_that_never_rests_makes_any_run_invalid(arrivals):
    busy = ClientUse(cpu_s=0.1, processes=2, max_in_flight=4096, loop_busy=0.95)
    found = verdict(samples_of([0] * 100), arrivals, busy)
    assert "waited for a CPU, for 95%" in found.reasons[0]
    assert "--processes 3" in found.reasons[0]


def test_several_busy_processes_are_judged_by_one_core_each():
    # 0.995 s of run.
    assert verdict(samples_of([0] * 100), client=ClientUse(cpu_s=1.7, processes=2, max_in_flight=1)).valid
    assert not verdict(samples_of([0] * 100), client=ClientUse(cpu_s=1.9, processes=2, max_in_flight=1)).valid


def test_a_closed_loop_is_never_late():
    assert verdict(samples_of([50 * MS] * 100), ClosedLoop(concurrency=1)).valid


def test_a_percentile_needs_ten_samples_beyond_it():
    assert 99.0 in unsupported_percentiles(999)
    assert unsupported_percentiles(1000) == (99.9, 99.99)
    assert unsupported_percentiles(100_000) == ()
    assert verdict(samples_of([0] * 100)).unsupported_percentiles == (95.0, 99.0, 99.9, 99.99)


def test_a_run_without_an_answer_or_a_request_is_judged_too():
    assert verdict(samples_of([0] * 100, status=[14] * 100)).valid
    assert verdict(samples_of([])).valid


def test_the_verdict_is_plain_values_in_json():
    document = verdict(samples_of([3 * MS] * 100)).to_json()
    assert document["valid"] is False
    assert document["unsupported_percentiles"] == ["p95", "p99", "p99.9", "p99.99"]
    assert len(document["reasons"]) == 1


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 1000)), min_size=1))
def test_the_most_in_flight_is_what_counting_each_moment_finds(flights):
    sent_ns = np.array([sent for sent, _ in flights], dtype=np.int64)
    done_ns = np.array([sent + took for sent, took in flights], dtype=np.int64)
    zeros = np.zeros(len(flights), dtype=np.int64)
    samples = Samples(due_ns=sent_ns, sent_ns=sent_ns, done_ns=done_ns, status=zeros, payload=zeros)
    moments = sorted({*itertools.chain(sent_ns.tolist())})
    counted = max(int(((sent_ns <= at) & (done_ns > at)).sum()) for at in moments)
    assert most_in_flight(samples) == counted
