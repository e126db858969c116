from __future__ import annotations

import pytest
from erg_server.errors import DeadlineExceededError, ResourceExhaustedError
from erg_server.scheduling.fair_share import GREEDY_NS, Share

from tests.server.scheduling.test_objectives import MS, SLO_50, Bench


def flood(bench: Bench) -> None:
    """Send until a request is refused for those that wait."""
    for _ in range(200):
        try:
            bench.send()
        except ResourceExhaustedError:
            return
    raise AssertionError("nothing was refused")


def test_turns_come_by_weight() -> None:
    shares = {"light": Share(1.0), "heavy": Share(3.0)}
    virtual_ns, turns = 0, []
    for _ in range(40):
        name = min(shares, key=lambda each: shares[each].start(virtual_ns))
        virtual_ns = shares[name].charge(virtual_ns, 10 * MS)
        turns.append(name)
    assert turns.count("heavy") == 30


def test_who_was_away_has_no_turns_saved_up() -> None:
    busy, away = Share(1.0), Share(1.0)
    virtual_ns = 0
    for _ in range(10):
        virtual_ns = busy.charge(virtual_ns, 10 * MS)
    assert away.start(virtual_ns) == virtual_ns
    virtual_ns = away.charge(virtual_ns, 10 * MS)
    assert busy.start(virtual_ns) <= away.start(virtual_ns)


@pytest.mark.parametrize(
    ("own", "everything", "weights", "greedy"),
    [(60, 100, 2.0, True), (40, 100, 2.0, False), (10, 10, 1.0, True), (0, 0, 1.0, False), (0, 50, 2.0, False)],
    ids=["more than half", "less than half", "nobody else waits", "nothing waits", "only others wait"],
)
def test_greedy_is_who_has_more_of_the_waiting_work_than_its_share(
    own: int, everything: int, weights: float, greedy: bool
) -> None:
    share = Share(1.0)
    assert share.refused(5, own_work_ns=own, all_work_ns=everything, all_weights=weights) == greedy
    assert share.still_greedy(5) == greedy
    assert not share.still_greedy(5 + GREEDY_NS)


def test_a_model_that_is_refused_for_its_own_queue_is_greedy_for_a_while() -> None:
    bench = Bench(SLO_50, SLO_50)
    flood(bench)
    assert [queue.greedy for queue in bench.queues] == [True, False]
    bench.run_ms(1000)
    for _ in range(9):
        bench.send()
    assert not bench.queues[0].greedy
    bench.run_ms(1000)
    assert bench.queues[0].fleet.waiting_ns == 0
    assert bench.queues[0].fleet.weights == 0


def test_deadlines_that_no_server_could_keep_make_nobody_greedy() -> None:
    bench = Bench(SLO_50, SLO_50)
    for _ in range(12):
        bench.send()
    with pytest.raises(DeadlineExceededError):
        bench.send(within_ms=1)
    assert not bench.queues[0].greedy


def test_a_model_alone_on_its_devices_is_not_greedy() -> None:
    bench = Bench(SLO_50)
    flood(bench)
    assert not bench.queues[0].greedy
