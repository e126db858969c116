import itertools

import pytest
from erg_loadtest.arrivals import (
    ClosedLoop,
    ConstantRate,
    Limit,
    PoissonRate,
    due_offsets_ns,
    split_arrivals,
    split_limit,
)
from erg_loadtest.errors import PlanError


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
    ],
)
def test_impossible_loads_are_refused(make):
    with pytest.raises(PlanError):
        make()
