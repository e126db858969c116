"""When a request has to be answered, and whether it can be: the deadline that it gets as it joins a queue."""

from __future__ import annotations

from typing import Final

from erg_server.errors import ErgError, ResourceExhaustedError
from erg_server.scheduling.admission import Forecast, check_in_time
from erg_server.scheduling.fleet import OVERLOAD
from erg_server.scheduling.latency_curve import LatencyCurve
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.request_queue import AGEING_NS, Deadline, QueuedRequest
from erg_server.scheduling.slack import SLACK_MARGIN_NS

NO_PROMISE_NS: Final = 3_600_000_000_000
"""What warms a version up may be as late as this: the first inference of a model may take minutes."""
REMEASURE_NS: Final = 1_000_000_000
"""How old a prediction may be by which a request is refused. Then one goes in spite of it, or a model that was slow
once would be refused for ever."""


def set_deadline(queue: ModelQueue, entry: QueuedRequest, now_ns: int) -> None:
    """Give a request the earlier of its caller's deadline and its model's objective, one of which it must have.

    Raises:
        ErgError: it cannot be answered by then; see `admission.check_in_time`.
    """
    at_ns = entry.request.deadline_ns
    if queue.objective_ns:
        promised_ns = entry.request.arrival_ns + queue.objective_ns
        at_ns = promised_ns if at_ns is None else min(at_ns, promised_ns)
    assert at_ns is not None
    deadline = Deadline(at_ns, min(at_ns, now_ns + AGEING_NS))
    last_ns, curve = at_ns, queue.latency.curve(entry.key)
    if not queue.promises:
        last_ns = at_ns + NO_PROMISE_NS
    elif curve is not None:
        best = curve.best_rows(queue.batcher.limits.max_rows)
        deadline.work_ns = int(curve.predict_ns(best) * entry.rows / best)
        alone_ns = curve.predict_high_ns(entry.rows)
        rows = queue.batcher.queue.rows + entry.rows
        # With an idle device nothing waits but for its own good: the batch that it joins could go now.
        if rows > best or not queue.fleet.idle or now_ns + curve.predict_high_ns(rows) > at_ns:
            alone_ns = _check(queue, entry, curve, best=best, at_ns=at_ns, now_ns=now_ns)
        # Later than that not even a batch of its own would be in time.
        last_ns = at_ns - int(alone_ns)
    entry.expires_ns = last_ns if entry.expires_ns is None else min(last_ns, entry.expires_ns)
    entry.deadline = deadline
    queue.timed = True
    if deadline.work_ns:
        queue.add_work(deadline.work_ns)


def _check(
    queue: ModelQueue, entry: QueuedRequest, curve: LatencyCurve, *, best: int, at_ns: int, now_ns: int
) -> float:
    """What the request takes alone, 0 for one that goes in spite of it; raises ErgError for one that is refused."""
    fleet, waiting = queue.fleet, queue.batcher.queue
    if queue.greedy and not queue.share.still_greedy(now_ns):
        queue.set_greedy(False)
    whole = waiting.rows // best
    own_ns = whole * curve.predict_ns(best) if whole else 0.0
    if queue.greedy:
        # It takes turns, and has as many of them as its weight gives it.
        ahead_ns = own_ns * fleet.weights / queue.spec.weight
    else:
        ahead_ns = own_ns + fleet.work_ns(queue.work_class) - queue.work_ns
    forecast = Forecast(
        wait_ns=(fleet.free_in_ns(now_ns) + ahead_ns / max(1, fleet.size)) * queue.caution.factor,
        batch_ns=SLACK_MARGIN_NS
        + curve.predict_high_ns(max(entry.rows, min(best, waiting.rows - whole * best + entry.rows))),
        alone_ns=curve.predict_high_ns(entry.rows),
        waiting_requests=len(waiting),
    )
    left_ns = at_ns - now_ns
    if forecast.wait_ns + forecast.batch_ns > left_ns and not queue.greedy and fleet.load(now_ns) < OVERLOAD:
        # The devices have time for batches smaller than those that pay best.
        forecast = _in_smaller_batches(queue, entry, curve, forecast, others_ns=ahead_ns - own_ns, left_ns=left_ns)
    try:
        check_in_time(entry.request, left_ns, forecast)
    except ErgError as error:
        if isinstance(error, ResourceExhaustedError) and fleet.models > 1:
            _find_greedy(queue, now_ns)
        if now_ns - queue.observed_ns < REMEASURE_NS or queue.running or waiting:
            raise
        queue.observed_ns = now_ns
        return 0.0
    return forecast.alone_ns


def _in_smaller_batches(
    queue: ModelQueue,
    entry: QueuedRequest,
    curve: LatencyCurve,
    forecast: Forecast,
    *,
    others_ns: float,
    left_ns: int,
) -> Forecast:
    """The forecast with the largest batches that are in time; as it was where none are.

    A batch as large as pays takes most of an objective, and leaves next to nothing to wait.
    """
    fleet, waiting = queue.fleet, queue.batcher.queue.rows
    rows = queue.batcher.limits.max_rows
    while (rows := rows // 2) >= entry.rows:
        whole = waiting // rows
        ahead_ns = whole * curve.predict_ns(rows) + others_ns if whole else others_ns
        smaller = Forecast(
            wait_ns=(fleet.free_in_ns(entry.phases.queued_ns) + ahead_ns / max(1, fleet.size)) * queue.caution.factor,
            batch_ns=SLACK_MARGIN_NS
            + curve.predict_high_ns(max(entry.rows, min(rows, waiting - whole * rows + entry.rows))),
            alone_ns=forecast.alone_ns,
            waiting_requests=forecast.waiting_requests,
        )
        if smaller.wait_ns + smaller.batch_ns <= left_ns:
            return smaller
    return forecast


def _find_greedy(queue: ModelQueue, now_ns: int) -> None:
    """A request was refused because of waiting work: note whether its model has more of that than its share."""
    fleet = queue.fleet
    greedy = queue.share.refused(
        now_ns, own_work_ns=queue.work_ns, all_work_ns=fleet.waiting_ns, all_weights=fleet.weights
    )
    if greedy and not queue.greedy:
        queue.set_greedy(True)
