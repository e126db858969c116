"""What the scheduler tells of its batches, and what is known of those that are out."""

from __future__ import annotations

from erg_server.energy.batch_log import BatchLog, Share

SHARES: list[Share] = [("inference", "", 1, 1)]


def end(log: BatchLog, end_ns: int, start_ns: int = 0, device: str = "cpu0") -> None:
    log.ended(device, "m", "1", start_ns=start_ns, end_ns=end_ns, shares=SHARES)


def test_a_batch_is_known_of_when_it_ended() -> None:
    log = BatchLog()
    log.handed("cpu0", 10)
    assert log.take() == []
    end(log, 40, 20)
    (record,) = log.take()
    assert (record.device, record.model, record.version, record.start_ns, record.end_ns) == ("cpu0", "m", "1", 20, 40)
    assert record.shares == SHARES
    assert log.take() == []


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
    end(log, 40)
    end(log, 60)
    assert [(record.start_ns, record.end_ns) for record in log.take()] == [(10, 40), (40, 60)]


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
