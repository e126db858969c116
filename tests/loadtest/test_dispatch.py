import itertools

import pytest
from erg_loadtest.arrivals import BurstyRate, ClosedLoop, ConstantRate, Limit, Replay, due_offsets_ns
from erg_loadtest.dispatch import Requests, drive

from tests.loadtest.virtual_timer import VirtualTimer

MS = 1_000_000


class VirtualService:
    """Answers each request after a fixed virtual time; can stall once."""

    def __init__(self, timer, service_ns, stall=None):
        self.timer = timer
        self.service_ns = service_ns
        self.stall = stall
        self.in_flight = 0
        self.most_in_flight = 0
        self.sent = []

    async def send(self, index):
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.sent.append(index)
        if self.stall is not None and self.timer.now_ns() < self.stall:
            await self.timer.sleep_until(self.stall)
        await self.timer.sleep(self.service_ns)
        self.in_flight -= 1
        return 0


async def run(service, timer, arrivals, limit, **options):
    requests = Requests(send=service.send, distinct=options.pop("distinct", 1), offset=options.pop("offset", 0))
    return await timer.run(drive(arrivals=arrivals, limit=limit, requests=requests, timer=timer, **options))


async def test_a_closed_loop_keeps_exactly_its_callers_in_flight():
    timer = VirtualTimer()
    service = VirtualService(timer, 10 * MS)
    samples = await run(service, timer, ClosedLoop(concurrency=4), Limit(requests=40))
    assert service.most_in_flight == 4
    assert len(samples) == 40
    assert samples.window_ns() == 100 * MS


async def test_a_closed_loop_starts_nothing_after_its_duration_but_waits_for_answers():
    timer = VirtualTimer()
    samples = await run(VirtualService(timer, 30 * MS), timer, ClosedLoop(concurrency=1), Limit(duration_s=0.1))
    assert samples.sent_ns.tolist() == [0, 30 * MS, 60 * MS, 90 * MS]
    assert samples.done_ns.max() == 120 * MS


async def test_an_open_loop_sends_when_due_whether_or_not_answers_came():
    timer = VirtualTimer()
    service = VirtualService(timer, 1000 * MS)
    samples = await run(service, timer, ConstantRate(rate_per_s=100.0), Limit(requests=20))
    assert sorted(samples.sent_ns.tolist()) == [index * 10 * MS for index in range(20)]
    assert service.most_in_flight == 20


async def test_an_open_loop_ends_at_its_duration():
    timer = VirtualTimer()
    samples = await run(VirtualService(timer, MS), timer, ConstantRate(rate_per_s=100.0), Limit(duration_s=0.1))
    assert len(samples) == 10


async def test_a_stalled_server_shows_in_the_latency_of_every_request_that_was_due_meanwhile():
    # 100 requests are due during a stall of a second. With one request in flight, a tester that counted from
    # sending would report one slow request and 99 fast ones.
    timer = VirtualTimer()
    service = VirtualService(timer, MS, stall=1000 * MS)
    samples = await run(service, timer, ConstantRate(rate_per_s=100.0), Limit(requests=200), max_in_flight=1)
    latency_ms = (samples.done_ns - samples.due_ns) / MS
    service_ms = (samples.done_ns - samples.sent_ns) / MS
    assert (service_ms > 100).sum() == 1
    assert (latency_ms > 100).sum() > 90


@pytest.mark.parametrize(
    "arrivals",
    [
        BurstyRate(rate_per_s=100.0, factor=4.0, share=0.2, period_s=0.5),
        Replay(offsets_ns=tuple(index * 10 * MS for index in range(200)), source="recorded"),
    ],
)
async def test_bursts_and_replays_count_from_when_each_request_was_due(arrivals):
    timer = VirtualTimer()
    service = VirtualService(timer, MS, stall=1000 * MS)
    samples = await run(service, timer, arrivals, Limit(requests=200), max_in_flight=1)
    due = list(itertools.islice(due_offsets_ns(arrivals), 200))
    assert sorted(samples.due_ns.tolist()) == due
    late = (samples.done_ns - samples.due_ns) > 100 * MS
    assert late.sum() >= sum(at < 800 * MS for at in due)


async def test_a_replay_ends_with_its_recording():
    timer = VirtualTimer()
    replay = Replay(offsets_ns=(0, 5 * MS, 5 * MS), source="recorded")
    samples = await run(VirtualService(timer, MS), timer, replay, Limit(duration_s=60.0))
    assert samples.sent_ns.tolist() == [0, 5 * MS, 5 * MS]


async def test_the_in_flight_bound_holds_and_loses_no_request():
    timer = VirtualTimer()
    service = VirtualService(timer, 100 * MS)
    samples = await run(service, timer, ConstantRate(rate_per_s=1000.0), Limit(requests=50), max_in_flight=5)
    assert service.most_in_flight == 5
    assert len(samples) == 50


async def test_prepared_requests_are_sent_in_turn_from_the_offset():
    timer = VirtualTimer()
    service = VirtualService(timer, MS)
    await run(service, timer, ClosedLoop(concurrency=1), Limit(requests=5), distinct=3, offset=1)
    assert service.sent == [1, 2, 0, 1, 2]


async def test_progress_counts_every_finished_request():
    timer = VirtualTimer()
    seen: list[int] = []
    await run(VirtualService(timer, MS), timer, ClosedLoop(concurrency=2), Limit(requests=6), on_done=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_an_error_that_is_no_status_ends_the_run():
    timer = VirtualTimer()

    async def broken(_):
        raise ValueError("bug")

    requests = Requests(send=broken, distinct=1)
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await timer.run(
            drive(arrivals=ClosedLoop(concurrency=2), limit=Limit(requests=9), requests=requests, timer=timer)
        )
