"""Runs MLPerf's LoadGen: it decides in a thread of its own when queries leave, our event loop sends them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from erg_loadtest.client import InferClient
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.fleet import Local, OnDone
from erg_loadtest.mlperf import SAMPLES_PER_MULTI_STREAM_QUERY, Mlperf, MlperfScenario, Verdict, parse_summary
from erg_loadtest.samples import Recorder, Samples
from erg_loadtest.thread_use import thread_busy_s
from erg_loadtest.work import Work

_MS = 1000
_NS_PER_MS = 1_000_000
_SCENARIO_NAMES = {
    MlperfScenario.SINGLE_STREAM: "SingleStream",
    MlperfScenario.MULTI_STREAM: "MultiStream",
    MlperfScenario.SERVER: "Server",
    MlperfScenario.OFFLINE: "Offline",
}
_MIN_EXPECTED_LATENCY_NS = 10_000


def load_library() -> Any:
    """The module `mlperf_loadgen`; raises PlanError naming what to install."""
    try:
        import mlperf_loadgen  # noqa: PLC0415 - an extra
    except ImportError:
        raise PlanError("--mlperf needs MLCommons' LoadGen: pip install 'erg[loadtest-mlperf]'") from None
    return mlperf_loadgen


class LoadGenRun:
    """One run; in place of `Local`, whose warm-up it uses.

    It needs a process of its own (`client_process`): LoadGen's thread cannot be stopped, only left behind.
    """

    def __init__(self, work: Work, plan: Mlperf, client: InferClient) -> None:
        self._library = load_library()
        self._plan = plan
        self._work = work
        self._local = Local(work, client)
        self._fastest_ns: int | None = None
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._in_flight = 0
        self._bound = min(work.max_in_flight, plan.in_flight or work.max_in_flight)
        self._recorder = Recorder()
        self._on_done: OnDone | None = None
        self._flights: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] | None = None
        self.loop_busy = 0.0
        """As `Local` has it; known once `measure` returned, like the verdict."""
        self.verdict: Verdict | None = None

    @property
    def wrong_answer(self) -> str | None:
        """As `Local` has it."""
        return self._local.wrong_answer

    async def warm_up(self, on_done: OnDone | None = None) -> None:
        """Send the warm-up; its fastest answer tells LoadGen how many queries to prepare."""
        samples = await self._local.warm_up(on_done)
        if samples is not None and samples.succeeded.any():
            self._fastest_ns = int((samples.done_ns - samples.sent_ns)[samples.succeeded].min())

    async def measure(self, on_done: OnDone | None = None) -> Samples:
        """Let LoadGen issue its queries and judge the run; due times are when it handed each query over."""
        self._on_done = on_done
        before_s, busy_before_s = time.perf_counter(), thread_busy_s()
        with TemporaryDirectory(prefix="erg-mlperf-") as folder:
            await self._test(Path(folder))
            verdict = _verdict(Path(folder, "mlperf_log_summary.txt"))
        self.loop_busy = (thread_busy_s() - busy_before_s) / max(time.perf_counter() - before_s, 1e-9)
        samples = self._recorder.samples()
        self.verdict = verdict.with_failures(len(samples) - int(samples.succeeded.sum()))
        return samples

    async def _test(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        ended = self._ended = loop.create_future()

        def issue(queries: Sequence[Any]) -> None:
            # In LoadGen's thread. The list is its own: what is needed of it is copied here.
            handed_ns = time.monotonic_ns()
            samples = [(query.id, query.index, handed_ns) for query in queries]
            loop.call_soon_threadsafe(self._accept, samples)

        def run() -> None:
            library = self._library
            system = library.ConstructSUT(issue, _nothing)
            data = library.ConstructQSL(len(self._work.payloads), len(self._work.payloads), _nothing, _nothing)
            library.StartTestWithLogSettings(
                # An audit file in the working directory would change the test; this one does not exist.
                system, data, self._settings(), self._log_settings(folder), str(folder / "audit.config")
            )  # fmt: skip
            library.DestroyQSL(data)
            library.DestroySUT(system)
            # Where the run was given up meanwhile, its loop is closed and nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_finish, ended)

        # A daemon: interrupted, it waits for answers that do not come.
        threading.Thread(target=run, name="loadgen", daemon=True).start()
        try:
            await ended
        finally:
            for flight in self._flights:
                flight.cancel()

    def _accept(self, samples: list[tuple[int, int, int]]) -> None:
        self._waiting.extend(samples)
        self._start_next()

    def _start_next(self) -> None:
        while self._waiting and self._in_flight < self._bound:
            query, index, due_ns = self._waiting.popleft()
            self._in_flight += 1
            flight = asyncio.create_task(self._flight(query, index, due_ns))
            self._flights.add(flight)
            flight.add_done_callback(self._flown)

    async def _flight(self, query: int, index: int, due_ns: int) -> None:
        sent_ns = time.monotonic_ns()
        status = await self._local.send(index)
        done_ns = time.monotonic_ns()
        self._recorder.add(due_ns=due_ns, sent_ns=sent_ns, done_ns=done_ns, status=status, payload=index)
        # Before the next one starts: LoadGen's clock for this query runs until it is told.
        self._library.QuerySamplesComplete([self._library.QuerySampleResponse(query, 0, 0)])
        if self._on_done is not None:
            self._on_done(len(self._recorder))

    def _flown(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._in_flight -= 1
        if flight.cancelled():
            return
        error = flight.exception()
        if error is None:
            self._start_next()
        elif self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def _settings(self) -> Any:
        plan, library = self._plan, self._library
        settings = library.TestSettings()
        settings.scenario = getattr(library.TestScenario, _SCENARIO_NAMES[plan.scenario])
        settings.mode = library.TestMode.PerformanceOnly
        settings.min_duration_ms = max(1, round(plan.min_duration_s * _MS))
        settings.min_query_count = plan.min_queries
        # Half of the fastest: too few prepared queries would end the test early, too many only take memory.
        expected_ns = max(_MIN_EXPECTED_LATENCY_NS, (self._fastest_ns or 2 * _NS_PER_MS) // 2)
        settings.single_stream_expected_latency_ns = expected_ns
        settings.multi_stream_expected_latency_ns = expected_ns
        settings.multi_stream_samples_per_query = SAMPLES_PER_MULTI_STREAM_QUERY
        if plan.rate_per_s is not None:
            settings.server_target_qps = plan.rate_per_s
            settings.offline_expected_qps = plan.rate_per_s
        if plan.latency_bound_ms is not None:
            settings.server_target_latency_ns = round(plan.latency_bound_ms * _NS_PER_MS)
        settings.qsl_rng_seed = plan.seed
        settings.sample_index_rng_seed = plan.seed + 1
        settings.schedule_rng_seed = plan.seed + 2
        return settings

    def _log_settings(self, folder: Path) -> Any:
        settings = self._library.LogSettings()
        settings.enable_trace = False
        settings.log_output.outdir = str(folder)
        settings.log_output.copy_summary_to_stdout = False
        return settings


def _verdict(summary: Path) -> Verdict:
    try:
        return parse_summary(summary.read_text(errors="replace"))
    except OSError as error:
        raise LoadTestError(f"LoadGen wrote no summary, so it refused its settings ({error})") from None


def _nothing(*_: object) -> None:
    return None


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
