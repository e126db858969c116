import itertools

import pytest
from erg_loadtest.arrival_shares import processes_needed, split_arrivals, split_limit
from erg_loadtest.arrivals import (
    NS_PER_S,
    BurstyRate,
    ClosedLoop,
    ConstantRate,
    Limit,
    PoissonRate,
    Replay,
    arrivals_json,
    describe,
    due_offsets_ns,
)
from erg_loadtest.errors import PlanError
from hypothesis import given
from hypothesis import strategies as st

BURSTS = BurstyRate(rate_per_s=1000.0, factor=5.0, share=0.1, period_s=2.0, seed=1)


def offsets(arrivals, count):
    return list(itertools.islice(due_offsets_ns(arrivals), count))


def test_a_constant_rate_spaces_requests_evenly_without_drift():
    due = offsets(ConstantRate(rate_per_s=3.0), 300_001)
    assert due[:3] == [0, 333_333_333, 666_666_667]
    assert due[300_000] == 100_000 * 1_000_000_000


def test_a_poisson_rate_has_the_mean_and_the_spread_of_independent_arrivals():
    due = offsets(PoissonRate(rate_per_s=1000.0, seed=7), 50_000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    mean_ns = sum(gaps) / len(gaps)
    spread_ns = (sum((gap - mean_ns) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean_ns == pytest.approx(1_000_000, rel=0.02)
    assert spread_ns == pytest.approx(mean_ns, rel=0.03)


def test_a_seed_repeats_the_same_arrivals_and_another_does_not():
    same = PoissonRate(rate_per_s=10.0, seed=3)
    assert offsets(same, 20) == offsets(same, 20)
    assert offsets(same, 20) != offsets(PoissonRate(rate_per_s=10.0, seed=4), 20)


def test_due_times_never_go_back():
    due = offsets(PoissonRate(rate_per_s=1e6), 10_000)
    assert due == sorted(due)


def test_a_split_constant_rate_interleaves_into_the_whole():
    whole = ConstantRate(rate_per_s=100.0)
    parts = [offsets(part, 5) for part in split_arrivals(whole, 4)]
    assert sorted(itertools.chain(*parts)) == offsets(whole, 20)


def test_a_split_poisson_rate_keeps_the_rate_and_differs_by_part():
    parts = [part for part in split_arrivals(PoissonRate(rate_per_s=90.0, seed=1), 3) if isinstance(part, PoissonRate)]
    assert sum(part.rate_per_s for part in parts) == pytest.approx(90.0)
    assert len({offsets(part, 1)[0] for part in parts}) == 3


@pytest.mark.parametrize(("total", "parts", "shares"), [(8, 3, [3, 3, 2]), (4, 4, [1, 1, 1, 1])])
def test_a_split_closed_loop_keeps_every_caller(total, parts, shares):
    split = split_arrivals(ClosedLoop(concurrency=total), parts)
    assert split == tuple(ClosedLoop(concurrency=share) for share in shares)


def test_a_split_limit_keeps_every_request_and_the_duration():
    parts = split_limit(Limit(requests=10, duration_s=2.0), 3)
    assert [part.requests for part in parts] == [4, 3, 3]
    assert {part.duration_s for part in parts} == {2.0}
    assert split_limit(Limit(duration_s=1.0), 2) == (Limit(duration_s=1.0),) * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClosedLoop(concurrency=0),
        lambda: ConstantRate(rate_per_s=0),
        lambda: PoissonRate(rate_per_s=float("inf")),
        Limit,
        lambda: Limit(duration_s=float("inf")),
        lambda: Limit(requests=-1),
        lambda: split_arrivals(ClosedLoop(concurrency=2), 3),
        lambda: split_arrivals(Replay(offsets_ns=(0, 1), source="t"), 3),
        lambda: BurstyRate(rate_per_s=0),
        lambda: BurstyRate(rate_per_s=1, factor=1),
        lambda: BurstyRate(rate_per_s=1, share=1),
        lambda: BurstyRate(rate_per_s=1, period_s=0),
        lambda: Replay(offsets_ns=(), source="t"),
    ],
)
def test_impossible_loads_are_refused(make):
    with pytest.raises(PlanError):
        make()


def test_bursts_keep_the_average_and_have_their_factor_of_it():
    due = [at for at in offsets(BURSTS, 100_000) if at < 90 * NS_PER_S]
    in_burst = sum(at % (2 * NS_PER_S) < NS_PER_S // 5 for at in due)
    assert len(due) / 90 == pytest.approx(1000, rel=0.02)
    assert in_burst / 9 == pytest.approx(5000, rel=0.03)
    assert (len(due) - in_burst) / 81 == pytest.approx(BURSTS.quiet_rate_per_s, rel=0.03)


def test_a_burst_that_takes_the_whole_average_leaves_silence():
    bursts = BurstyRate(rate_per_s=100.0, factor=10.0, share=0.1, period_s=1.0)
    assert bursts.quiet_rate_per_s == 0
    assert all(at % NS_PER_S <= NS_PER_S // 10 for at in offsets(bursts, 2000))


def test_bursts_beyond_the_average_are_refused_with_both_ways_out():
    with pytest.raises(PlanError, match=r"lower the factor to 2 or the share to 0\.2"):
        BurstyRate(rate_per_s=1.0, factor=5.0, share=0.5)


def test_split_bursts_stay_together_and_keep_the_rate():
    parts = split_arrivals(BURSTS, 4)
    due = list(itertools.chain(*([at for at in offsets(part, 9000) if at < 20 * NS_PER_S] for part in parts)))
    assert len(due) / 20 == pytest.approx(1000, rel=0.05)
    assert sum(at % (2 * NS_PER_S) < NS_PER_S // 5 for at in due) / 2 == pytest.approx(5000, rel=0.1)
    assert len({offsets(part, 1)[0] for part in parts}) == 4


@given(
    rate_per_s=st.floats(0.1, 1e5),
    share=st.floats(0.01, 0.99),
    filled=st.floats(0.0, 1.0),
    period_s=st.floats(0.01, 100),
    seed=st.integers(0, 1 << 40),
)
def test_any_bursts_come_in_order_and_a_seed_repeats_them(rate_per_s, share, filled, period_s, seed):
    factor = 1.001 + filled * max(0.0, 0.999 / share - 1.001)
    if factor * share > 1:
        return
    bursts = BurstyRate(rate_per_s=rate_per_s, factor=factor, share=share, period_s=period_s, seed=seed)
    due = offsets(bursts, 200)
    assert due == sorted(due)
    assert due == offsets(bursts, 200)


@given(st.lists(st.integers(0, 1 << 50), min_size=1).map(sorted), st.integers(1, 8))
def test_a_split_replay_is_the_whole_and_its_parts_fit_the_split_limit(times, parts):
    replay = Replay(offsets_ns=tuple(times), source="t")
    if len(times) < parts:
        return
    shares = [part for part in split_arrivals(replay, parts) if isinstance(part, Replay)]
    assert sorted(itertools.chain(*(part.offsets_ns for part in shares))) == times
    assert [len(part.offsets_ns) for part in shares] == [
        limit.requests for limit in split_limit(Limit(requests=len(times)), parts)
    ]


def test_a_replay_is_reported_by_its_source_and_not_by_its_times():
    replay = Replay(offsets_ns=(0, NS_PER_S, 4 * NS_PER_S), source="t.csv", speed=2.0)
    document = arrivals_json(replay)
    assert document == {"kind": "Replay", "source": "t.csv", "speed": 2.0, "requests": 3, "rate_per_s": 0.5}
    assert describe(replay) == "replay of t.csv at 2 times its speed, 0.5 a second on average"
    assert "bursts of 5 times that for 10% of each 2 s" in describe(BURSTS)


@pytest.mark.parametrize(
    ("arrivals", "cpu_us", "share", "cpus", "expected"),
    [
        (ConstantRate(rate_per_s=1000.0), 100, 0.9, 8, 1),
        (ConstantRate(rate_per_s=10_000.0), 100, 0.9, 8, 2),
        (PoissonRate(rate_per_s=10_001.0), 100, 0.9, 8, 3),
        (PoissonRate(rate_per_s=1e6), 100, 0.9, 8, 8),
        (Replay(offsets_ns=(0, 1000, 2000), source="t"), 100, 0.9, 8, 3),
        (Replay(offsets_ns=(0, 0), source="t"), 100, 0.9, 8, 1),
        (ClosedLoop(concurrency=8), 100, 0.5, 8, 1),
        (ClosedLoop(concurrency=8), 100, 0.6, 8, 2),
        (ClosedLoop(concurrency=1), 100, 0.9, 8, 1),
        (ClosedLoop(concurrency=8), 100, 0.9, 1, 1),
    ],
)
def test_client_processes_are_enough_to_keep_each_half_idle(arrivals, cpu_us, share, cpus, expected):
    needed = processes_needed(arrivals, loop_cpu_s_per_request=cpu_us / 1e6, loop_share=share, cpus=cpus)
    assert needed == expected
