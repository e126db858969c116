"""The arithmetic of Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`, with its default behaviour. Pure.

After the documentation (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale) and the controller's
`replica_calculator.go`: the ratio of the metric's mean to its target, a tolerance, pods without metrics counted as 0
where more are wanted and as on target (of a utilization: as 100 %) where fewer are; then the highest proposal of the
stabilization window, and at most double or 4 pods more in 15 seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

SYNC_S = 15
TOLERANCE = 0.1
DOWN_WINDOW_S = 300
UP_PODS, UP_FACTOR, UP_PERIOD_S = 4, 2, 15


def proposed_replicas(
    values: Sequence[float], missing: int, target: float, current: int, *, missing_high: float
) -> int:
    """Replicas for a metric of each ready pod, and `missing` pods without one.

    Args:
        values: the metric by pod.
        missing: pods that start.
        target: what the mean should be.
        current: replicas that are wanted now.
        missing_high: what a pod without metrics counts as where fewer are proposed.
    """
    if not values:
        return current
    ratio = sum(values) / len(values) / target
    if not missing:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(values))
    total = sum(values)
    if ratio < 1:
        total += missing * missing_high
    count = len(values) + missing
    again = total / count / target
    if abs(1 - again) <= TOLERANCE or (ratio < 1) != (again < 1):
        return current
    proposed = math.ceil(again * count)
    return current if (again < 1) == (proposed > current) else proposed


class HorizontalAutoscaler:
    """Bounds what was proposed, over time."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most
        self._proposals: deque[tuple[float, int]] = deque()
        self._added: deque[tuple[float, int]] = deque()

    def replicas(self, now_s: float, proposed: int, current: int) -> int:
        """How many there should be from now on."""
        self._proposals.append((now_s, proposed))
        while self._proposals[0][0] < now_s - DOWN_WINDOW_S:
            self._proposals.popleft()
        while self._added and self._added[0][0] <= now_s - UP_PERIOD_S:
            self._added.popleft()
        wanted = proposed if proposed > current else min(current, max(count for _, count in self._proposals))
        before = current - sum(count for _, count in self._added)
        wanted = min(wanted, max(before + UP_PODS, before * UP_FACTOR, current))
        wanted = max(self._least, min(self._most, wanted))
        if wanted > current:
            self._added.append((now_s, wanted - current))
        return wanted
