"""Idle power: stated, or learnt from quiet moments."""

from __future__ import annotations

from erg_server.energy.idle_watts import IdleWatts

from tests.server.energy.builders import S

TENTH = S // 10


def quiet(idle: IdleWatts, watts: float, windows: int = 1) -> None:
    for _ in range(10 * windows):
        idle.observe(TENTH, round(watts * 1e5), quiet=True)


def test_what_is_stated_is_not_learnt() -> None:
    idle = IdleWatts(20.0)
    quiet(idle, 90.0, 5)
    assert (idle.watts, idle.known) == (20.0, True)
    assert idle.energy_uj(TENTH) == 2_000_000


def test_nothing_is_known_before_a_second_without_work() -> None:
    idle = IdleWatts()
    for _ in range(9):
        idle.observe(TENTH, 6_000_000, quiet=True)
    assert (idle.watts, idle.known) == (0.0, False)
    idle.observe(TENTH, 6_000_000, quiet=True)
    assert (idle.watts, idle.known) == (60.0, True)


def test_work_breaks_a_quiet_second_off() -> None:
    idle = IdleWatts()
    for _ in range(9):
        idle.observe(TENTH, 6_000_000, quiet=True)
    idle.observe(TENTH, 30_000_000, quiet=False)
    idle.observe(TENTH, 6_000_000, quiet=True)
    assert not idle.known


def test_a_counter_that_moves_in_steps_is_averaged_over_the_second() -> None:
    idle = IdleWatts()
    for step in range(10):
        idle.observe(TENTH, 0 if step % 2 else 12_000_000, quiet=True)
    assert idle.watts == 60.0


def test_neither_an_outlier_below_nor_clocks_that_stay_up_after_work_decide() -> None:
    idle = IdleWatts()
    quiet(idle, 5.0)
    quiet(idle, 60.0, 30)
    quiet(idle, 110.0, 40)
    assert idle.watts == 60.0


def test_a_level_that_is_gone_is_forgotten() -> None:
    idle = IdleWatts()
    quiet(idle, 60.0, 10)
    quiet(idle, 80.0, 120)
    assert idle.watts == 80.0
