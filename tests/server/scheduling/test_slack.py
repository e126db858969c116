from __future__ import annotations

from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.latency_model import LatencyModel
from erg_server.scheduling.slack import SLACK_MARGIN_NS, SlackPolicy, rows_in_time, rows_to_drop

MS = 1_000_000
SHAPE = None


def linear(fixed_ms: float, row_ms: float, most: int = 32) -> LatencyModel:
    model = LatencyModel()
    means = {rows: (fixed_ms + row_ms * rows) * MS for rows in range(1, most + 1)}
    model.restore({SHAPE: CurveSnapshot(means_ns=means, spread=1.0)})
    return model


def test_a_batch_is_due_when_one_row_more_would_be_too_late() -> None:
    policy = SlackPolicy(linear(4, 1))
    assert policy.due_ns(50 * MS, SHAPE, 3, 32) == 50 * MS - 8 * MS - SLACK_MARGIN_NS
    assert policy.due_ns(50 * MS, SHAPE, 8, 8) == 50 * MS - 12 * MS - SLACK_MARGIN_NS, "a full one does not grow"


def test_a_batch_is_due_earlier_by_what_batches_wait_for_a_device() -> None:
    policy = SlackPolicy(linear(4, 1))
    for _ in range(200):
        policy.waited(5 * MS)
    waited = 50 * MS - 8 * MS - SLACK_MARGIN_NS - policy.due_ns(50 * MS, SHAPE, 3, 32)
    assert abs(waited - 5 * MS) < 0.01 * MS
    for number in range(200):
        policy.waited((number % 2) * 10 * MS)
    waited = 50 * MS - 8 * MS - SLACK_MARGIN_NS - policy.due_ns(50 * MS, SHAPE, 3, 32)
    assert abs(waited - 15 * MS) < MS, "the mean, and two deviations"


def test_waiting_pays_while_the_next_request_is_expected_before_the_batch_is_due() -> None:
    policy = SlackPolicy(linear(4, 1))
    assert not policy.pays(100 * MS, 0), "nothing is known of a second request"
    for number in range(200):
        policy.arrived(number * 5 * MS + 1)
    assert policy.pays(1006 * MS, 1000 * MS)
    assert not policy.pays(1004 * MS, 1000 * MS)


def test_rows_in_time_leave_the_margin_and_are_never_none() -> None:
    model = linear(4, 1)
    assert rows_in_time(model, SHAPE, 20 * MS, 10 * MS, 32) == 4
    assert rows_in_time(model, SHAPE, 11 * MS, 10 * MS, 32) == 1
    assert rows_in_time(model, "unknown", 11 * MS, 10 * MS, 32) == 32


def test_a_request_that_would_keep_a_batch_small_is_given_up_for_it() -> None:
    model = linear(10, 0.1)
    tight, loose = 12 * MS, 60 * MS
    assert rows_to_drop(model, SHAPE, [tight] + [loose] * 16, 0, 16) == 1
    assert rows_to_drop(model, SHAPE, [tight, tight] + [loose] * 16, 0, 16) == 2


def test_nothing_is_given_up_where_the_batch_would_not_grow_by_more() -> None:
    model = linear(10, 0.1)
    assert rows_to_drop(model, SHAPE, [60 * MS] * 20, 0, 16) == 0
    assert rows_to_drop(model, SHAPE, [12 * MS, 60 * MS], 0, 16) == 0
    assert rows_to_drop(linear(0.1, 10), SHAPE, [12 * MS] + [600 * MS] * 16, 0, 16) == 0, "rows cost what they cost"


def test_many_devices_give_up_together_what_none_of_them_alone_would() -> None:
    model = linear(10, 1)
    # A row more takes as long as four requests take to come, which is worth it to many devices only.
    deadlines_ns = [round((12.5 + SLACK_MARGIN_NS / MS + 0.25 * place) * MS) for place in range(256)]
    assert rows_to_drop(model, SHAPE, deadlines_ns, 0, 16) == 0
    count = rows_to_drop(model, SHAPE, deadlines_ns, 0, 16, devices=8)
    assert count >= 8
    assert count % 8 == 0


def test_few_requests_for_many_devices_are_not_given_up() -> None:
    assert rows_to_drop(linear(10, 1), SHAPE, [13 * MS] * 8, 0, 16, devices=8) == 0
