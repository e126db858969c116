"""What the scheduler tells of its batches, and what is known of those that are out."""

from __future__ import annotations

from erg_server.energy.batch_log import BatchLog, Share


def end(
    log: BatchLog,
    end_ns: int,
    start_ns: int = 0,
    *,
    device: str = "cpu0",
    model: str = "m",
    share: Share = ("inference", "", 1, 1),
) -> None:
    log.ended(device, model, "1", start_ns=start_ns, end_ns=end_ns, shares=[share])


def test_a_batch_is_known_of_when_it_ended() -> None:
    log = BatchLog()
    log.handed("cpu0", 10)
    assert log.take(1000) == []
    end(log, 40, 20)
    (record,) = log.take(1000)
    assert (record.device, record.model, record.version, record.start_ns, record.end_ns) == ("cpu0", "m", "1", 20, 40)
    assert record.shares == [("inference", "", 1, 1)]
    assert log.take(1000) == []


def test_everything_is_known_up_to_the_handover_of_the_oldest_batch_that_is_out() -> None:
    log = BatchLog()
    assert log.settled_until(["cpu0", "cpu1"], 5) == 5
    log.handed("cpu0", 10)
    log.handed("cpu1", 20)
    log.handed("cpu0", 30)
    assert log.settled_until(["cpu0", "cpu1"], 50) == 10
    end(log, 40)
    assert log.settled_until(["cpu0", "cpu1"], 50) == 20
    assert log.settled_until(["cpu0"], 50) == 30
    assert log.held_since("cpu1") == 20
    end(log, 60)
    end(log, 60, device="cpu1")
    assert log.settled_until(["cpu0", "cpu1"], 70) == 70
    assert log.held_since("cpu0") is None


def test_a_batch_of_which_nobody_tells_when_it_began_ran_since_it_could() -> None:
    log = BatchLog()
    log.handed("cpu0", 10)
    log.handed("cpu0", 15)
    end(log, 40, model="a")
    end(log, 60, model="b")
    assert [(record.start_ns, record.end_ns) for record in log.take(1000)] == [(10, 40), (40, 60)]


def test_a_device_holds_batches_from_the_first_handover_to_the_last_end() -> None:
    log = BatchLog()
    assert log.held_ns("cpu0", 5) == 0
    log.handed("cpu0", 10)
    log.handed("cpu0", 20)
    assert log.held_ns("cpu0", 25) == 15
    end(log, 30)
    assert log.held_ns("cpu0", 40) == 30
    end(log, 50)
    assert log.held_ns("cpu0", 80) == 40
    log.handed("cpu0", 100)
    assert log.held_ns("cpu0", 105) == 45


def test_batches_of_one_interval_that_were_for_the_same_are_one_record() -> None:
    log = BatchLog()
    log.take(100)
    for handed_ns in (105, 120, 150):
        log.handed("cpu0", handed_ns)
    end(log, 120, 110)
    end(log, 140, 130, share=("inference", "", 4, 3))
    end(log, 170, 155)
    (record,) = log.take(200)
    assert (record.start_ns, record.end_ns, record.busy_ns, record.batches) == (110, 170, 35, 3)
    assert record.shares == [("inference", "", 6, 5)]


def test_batches_that_differ_or_reach_into_another_interval_stay_apart() -> None:
    log = BatchLog()
    log.handed("cpu0", 90)
    log.take(100)
    for handed_ns in (105, 106, 107, 108):
        log.handed("cpu0", handed_ns)
    log.handed("cpu1", 109)
    end(log, 110, 95)
    end(log, 120, 112)
    end(log, 130, 122, model="other")
    end(log, 140, 132, model="other", share=("late", "", 1, 1))
    end(log, 150, 142, model="other", share=("late", "acme", 1, 1))
    end(log, 150, 142, device="cpu1", model="other", share=("late", "acme", 1, 1))
    records = log.take(200)
    assert [record.batches for record in records] == [1] * 6
    log.handed("cpu0", 210)
    end(log, 220, 215, model="other", share=("late", "acme", 1, 1))
    assert [record.batches for record in log.take(300)] == [1]
