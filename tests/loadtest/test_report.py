import io
from dataclasses import replace

import numpy as np
import pytest
from erg_loadtest.arrivals import ClosedLoop, ConstantRate
from erg_loadtest.plots import save_latency_plot
from erg_loadtest.record import RunRecord, Software
from erg_loadtest.report import format_us, render, warnings
from erg_loadtest.result import CpuUse, LoadResult
from erg_loadtest.samples import Samples
from rich.console import Console

from tests.loadtest.narrow import known

MS = 1_000_000


def result(*, arrivals=None, sent_late_ms=0, status=None, cpu="not asked for", client_cpu_s=0.0, count=100):
    due_ns = np.arange(count, dtype=np.int64) * 10 * MS
    sent_ns = due_ns + sent_late_ms * MS
    samples = Samples(
        due_ns=due_ns,
        sent_ns=sent_ns,
        done_ns=sent_ns + 5 * MS,
        status=np.zeros(count, dtype=np.int64) if status is None else np.array(status),
        payload=np.arange(count, dtype=np.int64) % 2,
    )
    made = LoadResult.from_samples(
        samples,
        rows=[1, 3],
        model="m",
        version="",
        url="127.0.0.1:1",
        arrivals=arrivals or ClosedLoop(concurrency=1),
        connections=1,
        processes=1,
        server="no statistics",
        cpu=cpu,
        client_cpu_s=client_cpu_s,
    )
    record = RunRecord(
        samples=samples, rows=(1, 3), readings=(), readings_missing="not asked for", software=Software(),
        started_unix_s=0.0,
    )  # fmt: skip
    return replace(made, record=record)


def text(shown):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render(shown))
    return console.export_text()


def test_inferences_count_the_rows_of_each_request_that_was_sent():
    shown = result(status=[0, 8] * 50)
    assert (shown.succeeded, shown.inferences, shown.failed) == (50, 50, 50)
    assert result().inferences == 200


def test_throughput_is_over_the_whole_window():
    shown = result()
    assert shown.wall_s == 0.995
    assert shown.inferences_per_s == 200 / 0.995


def test_cpu_time_is_shown_apart_and_per_inference():
    shown = result(cpu=CpuUse(front_s=0.1, by_worker_s={"0": 0.1, "1": 0.2}, source="measured: test"))
    assert (shown.front_cpu_us_per_inference, shown.workers_cpu_us_per_inference) == pytest.approx((500.0, 1500.0))
    assert "2.00 ms an inference: front 500 µs, workers 1.50 ms (measured: test)" in text(shown)
    assert "0 10%, 1 20%" in text(shown)


def test_what_was_not_measured_is_unknown_and_says_why():
    report = text(result())
    assert "unknown: no statistics" in report
    assert "unknown: not asked for" in report


def test_failures_are_in_the_report():
    assert "50 of 100 requests failed: RESOURCE_EXHAUSTED 50" in text(result(status=[0, 8] * 50))


def test_a_run_without_an_answer_still_reports():
    shown = result(status=[14] * 100)
    assert shown.latency is None
    assert "UNAVAILABLE" in text(shown)
    assert shown.cpu_us_per_inference is None


def test_a_late_client_is_pointed_out_and_its_lateness_is_in_the_latency():
    shown = result(arrivals=ConstantRate(rate_per_s=100.0), sent_late_ms=20)
    assert known(shown.latency).mean_us == 25_000
    assert known(shown.service).mean_us == 5_000
    assert any("late" in warning for warning in warnings(shown))


def test_a_client_without_cpu_to_spare_is_pointed_out():
    assert any("limit of CPU" in warning for warning in warnings(result(client_cpu_s=0.95)))
    assert not any("limit of CPU" in warning for warning in warnings(result(client_cpu_s=0.5)))


def test_durations_read_in_their_unit():
    assert [format_us(value) for value in (12.3, 1234, 2_500_000)] == ["12 µs", "1.23 ms", "2.50 s"]


def test_a_plot_is_a_png(tmp_path):
    path = tmp_path / "latency.png"
    save_latency_plot(path, {"m": result(), "empty": result(status=[14] * 100)})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_too_short_for_the_kernel_s_cpu_counter_is_pointed_out():
    short = result(cpu=CpuUse(front_s=0.05, by_worker_s={"0": 0.2}, source="measured: test"))
    long = result(cpu=CpuUse(front_s=1.0, by_worker_s={"0": 9.0}, source="measured: test"))
    assert any("steps of 10 ms" in warning for warning in warnings(short))
    assert not any("steps of 10 ms" in warning for warning in warnings(long))
