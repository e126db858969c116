import numpy as np
import pytest
from erg_loadtest.samples import Recorder, Samples, summarise_ns

from tests.loadtest.narrow import known


def test_percentiles_are_durations_that_occurred():
    summary = known(summarise_ns(np.arange(1, 101, dtype=np.int64) * 1000))
    assert summary.percentile_us(50.0) == 50
    assert summary.percentile_us(95.0) == 95
    assert summary.percentile_us(99.0) == 99
    assert summary.percentile_us(99.9) == 100
    assert (summary.min_us, summary.max_us, summary.count) == (1, 100, 100)
    assert summary.mean_us == pytest.approx(50.5)


def test_one_sample_is_every_percentile():
    summary = known(summarise_ns(np.array([7000], dtype=np.int64)))
    assert set(summary.percentiles_us.values()) == {7.0}


def test_no_samples_have_no_summary():
    assert summarise_ns(np.array([], dtype=np.int64)) is None


def recorded(*rows):
    recorder = Recorder()
    for due_ns, done_ns, status in rows:
        recorder.add(due_ns=due_ns, sent_ns=due_ns + 1, done_ns=done_ns, status=status, payload=0)
    return recorder.samples()


def test_statuses_are_counted_by_name():
    samples = recorded((0, 5, 0), (1, 6, 8), (2, 7, 8), (3, 8, 17))
    assert samples.count_by_status() == {"OK": 1, "RESOURCE_EXHAUSTED": 2, "WRONG_ANSWER": 1}
    assert samples.succeeded.tolist() == [True, False, False, False]


def test_the_window_runs_from_the_first_due_time_to_the_last_answer():
    assert recorded((5, 9, 0), (3, 20, 0)).window_ns() == 17
    assert recorded().window_ns() == 0


def test_merging_keeps_every_sample_in_order_of_completion():
    merged = Samples.merge([recorded((0, 30, 0), (1, 40, 8)), recorded((2, 35, 14))])
    assert merged.done_ns.tolist() == [30, 35, 40]
    assert merged.status.tolist() == [0, 14, 8]
    assert merged.due_ns.tolist() == [0, 2, 1]
