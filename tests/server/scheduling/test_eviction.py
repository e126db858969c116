"""Which model is evicted first."""

from __future__ import annotations

from erg_server.scheduling.eviction import GreedyDualSize


def test_what_is_cheap_to_reload_for_its_size_goes_first() -> None:
    worth = GreedyDualSize()
    worth.used(1, reload_s=10.0, memory_bytes=100)
    worth.used(2, reload_s=1.0, memory_bytes=100)
    worth.used(3, reload_s=1.0, memory_bytes=400)
    assert worth.least_first([1, 2, 3]) == [3, 2, 1]


def test_of_equal_models_the_one_not_used_since_others_were_evicted_goes_first() -> None:
    worth = GreedyDualSize()
    for key in (1, 2, 3):
        worth.used(key, reload_s=1.0, memory_bytes=100)
    worth.evicted(3)
    worth.used(1, reload_s=1.0, memory_bytes=100)
    assert worth.least_first([1, 2]) == [2, 1]


def test_a_dear_model_that_nobody_asks_for_goes_in_the_end() -> None:
    worth = GreedyDualSize()
    worth.used(1, reload_s=5.0, memory_bytes=100)
    for _ in range(6):
        worth.used(2, reload_s=1.0, memory_bytes=100)
        worth.evicted(2)
    worth.used(2, reload_s=1.0, memory_bytes=100)
    assert worth.least_first([1, 2]) == [1, 2]
