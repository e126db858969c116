"""Ratios are of one round each, and money and joules of CPU time alone."""

import json

import pytest
from bench.published.figures import (
    LoadReport,
    NotRun,
    Record,
    Tried,
    best_setting,
    modelled_joules_per_1000,
    of_raw,
    spread,
    times_erg,
    usd_per_1000,
)

from tests.loadtest.published.records import raw, record, turn


def test_a_spread_is_the_median_with_the_least_and_the_most():
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert found is not None
    assert (found.median, found.low, found.high) == (2.5, 1.0, 10.0)
    assert spread([]) is None


def test_a_rival_is_compared_with_erg_round_by_round():
    # A machine that slows down for one round slows down both; medians apart would give 1.5.
    turns = [turn(round=0, cpu_us=1000.0), turn(round=1, cpu_us=3000.0)]
    turns += [turn("Mosec", round=0, cpu_us=1000.0), turn("Mosec", round=1, cpu_us=6000.0)]
    found = times_erg(record(*turns), "m", "Mosec", 8, lambda each: each.cpu_us)
    assert found is not None
    assert (found.low, found.median, found.high) == (1.0, 1.5, 2.0)


def test_a_round_that_erg_lacks_is_not_compared():
    found = times_erg(record(turn(round=1), turn("Mosec", round=0)), "m", "Mosec", 8, lambda each: each.cpu_us)
    assert found is None


def test_raw_is_taken_from_the_same_round():
    turns = [turn(round=0, cpu_us=2000.0), turn(round=1, cpu_us=4000.0)]
    found = of_raw(record(*turns, raw=[raw(0, 1000.0), raw(1, 4000.0)]), "m", "Erg", 8)
    assert found is not None
    assert (found.low, found.high) == (0.5, 1.0)


def test_a_thousand_requests_cost_their_cpu_time():
    # 3,600 s of CPU time for 1,000 requests is an hour of it.
    assert usd_per_1000(record(), 3_600_000.0) == pytest.approx(0.036)
    assert modelled_joules_per_1000(record(), 1000.0) == pytest.approx(5.0)


def test_the_best_setting_is_the_fastest_that_ran():
    assert best_setting([0.0, 12.0, 30.0, 7.0]) == 2
    assert best_setting([0.0, 0.0]) is None
    assert best_setting([]) is None


def test_a_record_survives_json():
    held = record(
        turn(),
        raw=[raw()],
        tried=[Tried(model="m", server="Mosec", setting="no batches", score=1.0, chosen=True)],
        not_run=[NotRun(model="m", server="MLServer", why="no wheel")],
        reports=[LoadReport(server="Erg", command="erg load m", document={"succeeded": 1})],
        answers={"m": {"Erg": "equal"}},
    )
    assert Record.from_json(json.loads(json.dumps(held.to_json()))) == held
