"""The figures of one run: only what was measured; what could not be is a sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from erg_loadtest.arrivals import NS_PER_S, Arrivals, arrivals_json, describe
from erg_loadtest.cost import Cost
from erg_loadtest.dispatch import DEFAULT_MAX_IN_FLIGHT
from erg_loadtest.mlperf import Mlperf, Verdict
from erg_loadtest.record import RunRecord
from erg_loadtest.samples import OK, STATUS_NAMES, WRONG_ANSWER, DurationSummary, Int64s, Samples, summarise_ns
from erg_loadtest.server_statistics import ServerPhases
from erg_loadtest.validity import ClientUse, Validity, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """CPU time the server spent during the run, all its models and idle work included."""

    front_s: float
    by_worker_s: dict[str, float]
    """By the worker's name, or its process id where the server tells no names."""
    source: str

    @property
    def workers_s(self) -> float:
        """Of all workers."""
        return sum(self.by_worker_s.values())

    @property
    def total_s(self) -> float:
        """Of all the server's processes."""
        return self.front_s + self.workers_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What one run showed."""

    model: str
    version: str
    url: str
    arrivals: Arrivals | Mlperf
    connections: int
    processes: int
    wall_s: float
    """From the first request's due time to the last answer."""
    requests: int
    succeeded: int
    inferences: int
    """Rows answered: requests times their batch size."""
    count_by_status: dict[str, int]
    latency: DurationSummary | None
    """Of requests answered rightly, counted from when each was due."""
    latency_by_status: dict[str, DurationSummary]
    """Of the others, by status: quick refusals are not to be mixed with answers."""
    service: DurationSummary | None
    """The same as `latency`, but counted from when each request was really sent."""
    send_delay: DurationSummary | None
    """From due to sent, of all requests: the client's own lateness."""
    server: ServerPhases | str
    cpu: CpuUse | str
    client_cpu_s: float
    client_loop_busy: float | None = None
    """The share of the run that the busiest client's event loop was on a CPU or waiting for one."""
    validity: Validity = field(default_factory=Validity)
    """Whether the figures are the server's or the client's."""
    mlperf: Verdict | None = None
    """LoadGen's own, where it issued the queries."""
    wrong_answer: str | None = None
    """One of the wrong answers, where answers were checked."""
    cost: Cost | None = None
    latencies_ns: Int64s
    """Every latency behind `latency`, in order of completion."""
    record: RunRecord | None = None
    """What a report needs beside the figures; None for a result that was not made by `run_load`."""

    @property
    def requests_per_s(self) -> float:
        """Requests answered rightly, a second."""
        return self.succeeded / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def inferences_per_s(self) -> float:
        """Rows answered rightly, a second."""
        return self.inferences / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def failed(self) -> int:
        """Requests that were not answered rightly."""
        return self.requests - self.succeeded

    @property
    def mean_batch(self) -> float | None:
        """Rows the server put into one execution, by its own statistics."""
        return None if isinstance(self.server, str) else self.server.mean_batch

    @property
    def front_cpu_us_per_inference(self) -> float | None:
        """CPU time of the server's front per row answered."""
        return None if isinstance(self.cpu, str) else self._per_inference_us(self.cpu.front_s)

    @property
    def workers_cpu_us_per_inference(self) -> float | None:
        """CPU time of the server's workers per row answered."""
        return None if isinstance(self.cpu, str) else self._per_inference_us(self.cpu.workers_s)

    @property
    def cpu_us_per_inference(self) -> float | None:
        """CPU time of all the server's processes per row answered."""
        return None if isinstance(self.cpu, str) else self._per_inference_us(self.cpu.total_s)

    @property
    def busy_by_worker(self) -> dict[str, float]:
        """The share of the run in which each worker was on a CPU; above 1 for one with several threads."""
        if isinstance(self.cpu, str) or self.wall_s <= 0:
            return {}
        return {worker: seconds / self.wall_s for worker, seconds in self.cpu.by_worker_s.items()}

    @classmethod
    def from_samples(
        cls,
        samples: Samples,
        *,
        rows: Sequence[int],
        model: str,
        version: str,
        url: str,
        arrivals: Arrivals | Mlperf,
        connections: int,
        processes: int,
        server: ServerPhases | str,
        cpu: CpuUse | str,
        client_cpu_s: float,
        client_loop_busy: float | None = None,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        mlperf: Verdict | None = None,
        wrong_answer: str | None = None,
    ) -> LoadResult:
        """Work out the figures; `rows` gives the batch size of each prepared request."""
        good = samples.succeeded
        elapsed_ns = samples.done_ns - samples.due_ns
        service = summarise_ns((samples.done_ns - samples.sent_ns)[good])
        client = ClientUse(
            cpu_s=client_cpu_s, processes=processes, max_in_flight=max_in_flight, loop_busy=client_loop_busy
        )
        failures = sorted(set(samples.status[~good].tolist()) - {OK})
        return cls(
            model=model,
            version=version,
            url=url,
            arrivals=arrivals,
            connections=connections,
            processes=processes,
            wall_s=samples.window_ns() / NS_PER_S,
            requests=len(samples),
            succeeded=int(good.sum()),
            inferences=int(np.asarray(rows, dtype=np.int64)[samples.payload[good]].sum()),
            count_by_status=samples.count_by_status(),
            latency=summarise_ns(elapsed_ns[good]),
            latency_by_status={
                STATUS_NAMES[status]: summary
                for status in failures
                if (summary := summarise_ns(elapsed_ns[samples.status == status])) is not None
            },
            service=service,
            send_delay=summarise_ns(samples.sent_ns - samples.due_ns),
            server=server,
            cpu=cpu,
            client_cpu_s=client_cpu_s,
            client_loop_busy=client_loop_busy,
            validity=judge(samples, None if isinstance(arrivals, Mlperf) else arrivals, service, client),
            mlperf=mlperf,
            # A difference met while warming up is not of this run.
            wrong_answer=wrong_answer if (samples.status == WRONG_ANSWER).any() else None,
            latencies_ns=elapsed_ns[good],
        )

    def priced(self, cost: Cost | None) -> LoadResult:
        """The same result with its cost."""
        return replace(self, cost=cost)

    def to_json(self, *, raw: bool = False) -> dict[str, Any]:
        """All figures as plain values, and every latency as well when `raw`."""
        document: dict[str, Any] = {
            "model": self.model,
            "version": self.version,
            "url": self.url,
            "arrivals": arrivals_json(self.arrivals),
            "description": describe(self.arrivals),
            "connections": self.connections,
            "client_processes": self.processes,
            "wall_s": self.wall_s,
            "requests": self.requests,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "count_by_status": self.count_by_status,
            "inferences": self.inferences,
            "requests_per_s": self.requests_per_s,
            "inferences_per_s": self.inferences_per_s,
            "latency": _summary_json(self.latency),
            "latency_by_status": {name: _summary_json(value) for name, value in self.latency_by_status.items()},
            "service": _summary_json(self.service),
            "send_delay": _summary_json(self.send_delay),
            "server": {"missing": self.server} if isinstance(self.server, str) else asdict(self.server),
            "server_cpu": self._cpu_json(),
            "client_cpu_s": self.client_cpu_s,
            "client_loop_busy": self.client_loop_busy,
            "validity": self.validity.to_json(),
            "wrong_answer": self.wrong_answer,
            "mlperf": None if self.mlperf is None else self.mlperf.to_json(),
            "cost": None if self.cost is None else asdict(self.cost),
        }
        if raw:
            document["latencies_ns"] = self.latencies_ns.tolist()
        return document

    def _cpu_json(self) -> dict[str, Any]:
        if isinstance(self.cpu, str):
            return {"missing": self.cpu}
        return {
            **asdict(self.cpu),
            "workers_s": self.cpu.workers_s,
            "busy_by_worker": self.busy_by_worker,
            "front_us_per_inference": self.front_cpu_us_per_inference,
            "workers_us_per_inference": self.workers_cpu_us_per_inference,
            "us_per_inference": self.cpu_us_per_inference,
        }

    def _per_inference_us(self, seconds: float) -> float | None:
        return seconds * 1e6 / self.inferences if self.inferences else None


def _summary_json(summary: DurationSummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    document = asdict(summary)
    document["percentiles_us"] = {f"p{percentile:g}": value for percentile, value in summary.percentiles_us.items()}
    return document
