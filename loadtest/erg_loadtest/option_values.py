"""What the options of `plan_options` ask for, as a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erg_loadtest.answers import CheckKind, CheckRule
from erg_loadtest.arrivals import Arrivals, BurstyRate, ClosedLoop, ConstantRate, Limit, PoissonRate, Replay
from erg_loadtest.client import Target
from erg_loadtest.cost import CpuPrice
from erg_loadtest.errors import PlanError
from erg_loadtest.image_data import ImageOptions, parse_normalization, parse_size
from erg_loadtest.input_data import FileScenario
from erg_loadtest.load import LoadPlan
from erg_loadtest.mlperf import Mlperf, MlperfScenario, server_bound_ms
from erg_loadtest.scenarios import RandomScenario, parse_mix, parse_range, parse_shape
from erg_loadtest.text_data import TextOptions
from erg_loadtest.trace_file import read_trace

_CLOSED_LOOP_DEFAULT = 8
_DURATION_DEFAULT_S = 10.0
_OFFLINE_IN_FLIGHT = 64


def plan_of(options: dict[str, Any]) -> LoadPlan:
    """The plan that a command's options describe; raises PlanError."""
    return PlanOptions(**options).plan()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options as click has parsed them."""

    model: str
    url: str
    model_version: str
    concurrency: int | None
    request_rate: float | None
    request_distribution: str
    burst_factor: float
    burst_share: float
    burst_period: float
    trace: Path | None
    replay_speed: float
    mlperf: str | None
    latency_bound_ms: float | None
    min_duration: float
    min_queries: int
    request_count: int | None
    duration: float | None
    warmup_request_count: int
    batch_size: int
    shapes: tuple[str, ...]
    mixes: tuple[str, ...]
    ranges: tuple[str, ...]
    omitted: tuple[str, ...]
    distinct: int
    seed: int
    input_data: Path | None
    tokenizer: Path | None
    text_field: str
    max_length: int | None
    image_size: str | None
    image_layout: str | None
    image_normalization: str | None
    batch_axis: bool
    check: str | None
    atol: float
    rtol: float
    connections: int
    processes: str
    client_timeout: float
    metrics_url: str | None
    server_pid: int | None
    price_per_cpu_hour: float | None
    currency: str

    def plan(self) -> LoadPlan:
        """The plan they describe; raises PlanError."""
        duration_s = self.duration
        arrivals = self._arrivals()
        request_count = self.request_count
        # LoadGen ends by itself, when its own conditions are met.
        if duration_s is None and request_count is None:
            # A replay ends by itself.
            if isinstance(arrivals, Replay):
                request_count = len(arrivals.offsets_ns)
            else:
                duration_s = _DURATION_DEFAULT_S
        return LoadPlan(
            model=self.model,
            version=self.model_version,
            target=Target(url=self.url, connections=self.connections, timeout_s=self.client_timeout),
            arrivals=arrivals,
            limit=Limit(requests=request_count, duration_s=duration_s),
            warmup=Limit(requests=self.warmup_request_count) if self.warmup_request_count else None,
            scenario=self._scenario(),
            check=self._check(),
            batch_axis=self.batch_axis,
            processes=self._processes(),
            metrics_url=self.metrics_url,
            server_pid=self.server_pid,
            price=self._price(),
        )

    def _arrivals(self) -> Arrivals | Mlperf:
        if self.mlperf is not None:
            return self._mlperf(MlperfScenario(self.mlperf))
        if self.latency_bound_ms is not None:
            raise PlanError("--latency-bound-ms is MLPerf's: give --mlperf server")
        if self.trace is not None:
            if self.request_rate is not None or self.concurrency is not None:
                raise PlanError("--trace says when requests are due: leave out --request-rate and --concurrency")
            return read_trace(self.trace, speed=self.replay_speed, model=self.model)
        if self.replay_speed != 1:
            raise PlanError("--replay-speed belongs to a recording: give --trace")
        if self.request_rate is None:
            return ClosedLoop(concurrency=_CLOSED_LOOP_DEFAULT if self.concurrency is None else self.concurrency)
        if self.concurrency is not None:
            raise PlanError("--concurrency makes a closed loop and --request-rate an open one: give one of them")
        if self.request_distribution == "constant":
            return ConstantRate(rate_per_s=self.request_rate)
        if self.request_distribution == "bursty":
            return BurstyRate(
                rate_per_s=self.request_rate,
                factor=self.burst_factor,
                share=self.burst_share,
                period_s=self.burst_period,
                seed=self.seed,
            )
        return PoissonRate(rate_per_s=self.request_rate, seed=self.seed)

    def _mlperf(self, scenario: MlperfScenario) -> Mlperf:
        if self.trace is not None or self.request_count is not None or self.duration is not None:
            raise PlanError("LoadGen decides about arrivals and end: use --min-duration and --min-queries alone")
        if self.batch_size != 1:
            raise PlanError("MLPerf's samples are single rows: leave out --batch-size, the server forms batches")
        bound_ms = self.latency_bound_ms
        if bound_ms is None and scenario is MlperfScenario.SERVER:
            bound_ms = server_bound_ms(self.model)
        if self.concurrency is not None and scenario is not MlperfScenario.OFFLINE:
            raise PlanError(f"MLPerf's {scenario} scenario has no --concurrency; offline's is what it keeps in flight")
        return Mlperf(
            scenario=scenario,
            rate_per_s=self.request_rate,
            latency_bound_ms=bound_ms,
            min_duration_s=self.min_duration,
            min_queries=self.min_queries,
            seed=self.seed,
            concurrency=_OFFLINE_IN_FLIGHT if self.concurrency is None else self.concurrency,
        )

    def _scenario(self) -> RandomScenario | FileScenario:
        if self.input_data is None:
            return RandomScenario(
                batch_size=self.batch_size,
                distinct=self.distinct,
                seed=self.seed,
                shapes=dict(parse_shape(text) for text in self.shapes),
                mixes=tuple(parse_mix(text) for text in self.mixes),
                ranges=dict(parse_range(text) for text in self.ranges),
                omit=frozenset(self.omitted),
            )
        if self.shapes or self.mixes or self.ranges or self.omitted:
            raise PlanError("--shape, --mix, --range and --omit describe random inputs; --input-data brings its own")
        normalization = self.image_normalization
        return FileScenario(
            path=self.input_data,
            batch_size=self.batch_size,
            text=TextOptions(tokenizer=self.tokenizer, field=self.text_field, max_length=self.max_length),
            images=ImageOptions(
                size=None if self.image_size is None else parse_size(self.image_size),
                layout=self.image_layout,
                normalization=None if normalization is None else parse_normalization(normalization),
            ),
        )

    def _check(self) -> CheckRule | None:
        if self.check is None:
            return None
        return CheckRule(kind=CheckKind(self.check), atol=self.atol, rtol=self.rtol)

    def _processes(self) -> int | None:
        if self.processes == "auto":
            return None
        if not (self.processes.isascii() and self.processes.isdecimal()):
            raise PlanError(f"--processes '{self.processes}': give a number, or auto")
        return int(self.processes)

    def _price(self) -> CpuPrice | None:
        if self.price_per_cpu_hour is None:
            return None
        if self.metrics_url is None and self.server_pid is None:
            raise PlanError("a cost needs the server's CPU time: give --metrics-url or --server-pid")
        return CpuPrice(per_cpu_hour=self.price_per_cpu_hour, currency=self.currency)
