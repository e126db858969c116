from erg_server.scheduling.placement import share_rows
from hypothesis import given
from hypothesis import strategies as st


def linear(rows: int) -> float:
    return rows * 100.0


def constant(rows: int) -> float:
    return 100.0


def test_rows_are_split_evenly_over_idle_workers() -> None:
    assert share_rows(8, 32, [0.0], linear) == 4
    assert share_rows(9, 32, [0.0, 0.0], linear) == 3


def test_a_worker_alone_takes_everything() -> None:
    assert share_rows(8, 32, [], linear) == 8
    assert share_rows(80, 32, [], linear) == 32


def test_rows_are_not_left_for_a_worker_that_is_busy_longer_than_they_take() -> None:
    assert share_rows(8, 32, [10_000.0], linear) == 8


def test_a_worker_that_is_free_soon_gets_the_rows_it_can_finish_in_time() -> None:
    # 4 rows here end at 400; the other is free at 200 and ends 2 rows at 400.
    assert share_rows(6, 32, [200.0], linear) == 4


def test_everything_goes_at_once_where_batching_is_free_and_the_other_is_busy() -> None:
    assert share_rows(8, 32, [50.0], constant) == 8


def test_full_batches_are_not_split_when_every_worker_can_fill_one() -> None:
    assert share_rows(64, 32, [0.0], linear) == 32


@given(
    st.integers(1, 200),
    st.integers(1, 64),
    st.lists(st.floats(0, 1e6), max_size=8),
    st.floats(0, 1e5),
    st.floats(0.1, 1e4),
)
def test_the_share_is_never_empty_and_never_above_the_limit(
    waiting: int, limit: int, others: list[float], fixed: float, per_row: float
) -> None:
    share = share_rows(waiting, limit, others, lambda rows: fixed + per_row * rows)
    assert 1 <= share <= min(waiting, limit)


@given(st.integers(2, 64), st.lists(st.integers(0, 50_000), min_size=1, max_size=4), st.integers(1, 10_000))
def test_no_smaller_share_would_let_the_last_row_end_as_soon(waiting: int, others: list[int], per_row: int) -> None:
    limit = 64

    def predict(rows: int) -> float:
        return per_row * rows

    def others_take(until: float) -> int:
        return sum(max(0, min(limit, int((until - free) // per_row))) for free in others)

    share = share_rows(waiting, limit, others, predict)
    if share > 1:
        assert share - 1 + others_take(predict(share - 1)) < waiting
