"""Two reports side by side, and reports read back."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from erg_converters.compare import compared_rows, compared_table
from erg_converters.errors import ConversionError
from erg_converters.report import CandidateRecord, GateRecord, Report, StepRecord, dump_report, load_report
from erg_server.repository.manifest import Accuracy, Measurement
from rich.console import Console


def report(ratio: float, drop: float, *names: str) -> Report:
    return Report(
        model="m",
        device="cpu",
        evaluation_sha256="e",
        chosen="int8",
        steps=(StepRecord(name="export_onnx", status="cached", seconds=2.0, figures={"size": "1 MB"}),),
        candidates=tuple(
            CandidateRecord(
                name=name,
                backend="openvino",
                precision="f32",
                status="passed",
                bytes=2_000_000,
                gate=GateRecord(passed=True, cosine_mean=0.998),
                accuracy=Accuracy(metric="top1", value=0.9, low=0.8, high=1.0, samples=9, variant=name, drop=drop),
            )
            for name in names
        ),
        measurements=tuple(
            Measurement(
                device="cpu", backend="openvino", batch_size=size, latency_ms_p50=1.0, throughput_per_s=1.0,
                variant="int8", cpu_ratio=each,
            )
            for size, each in ((1, ratio / 2), (8, ratio * 2))
        ),
    )  # fmt: skip


def test_speed_ups_are_geometric_means_over_the_shapes() -> None:
    (row,) = compared_rows(report(2.0, 0.01, "int8"), report(3.0, 0.02, "int8"))
    assert row.one is not None
    assert row.other is not None
    assert row.one.speedup == pytest.approx(2.0)
    assert row.other.speedup == pytest.approx(3.0)
    assert (row.one.drop, row.other.drop) == (0.01, 0.02)


def test_a_candidate_of_one_report_has_no_other_side() -> None:
    rows = compared_rows(report(2.0, 0.0, "int8", "bf16"), report(2.0, 0.0, "int8", "fp16"))
    assert [(row.name, row.one is None, row.other is None) for row in rows] == [
        ("int8", False, False),
        ("bf16", False, True),
        ("fp16", True, False),
    ]


def told(one: Report, other: Report) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(compared_table(one, other))
    return console.export_text()


def test_the_table_says_before_and_after() -> None:
    text = told(report(2.0, 0.01, "int8"), report(3.0, 0.01, "int8"))
    assert "2.00 → 3.00" in text
    assert "+0.0100" in text


def test_different_evaluation_data_are_told() -> None:
    one = report(2.0, 0.01, "int8")
    assert "different data" in told(one, dataclasses.replace(one, evaluation_sha256="f"))


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    one = report(2.0, 0.01, "int8")
    (tmp_path / "report.json").write_text(dump_report(one))
    assert load_report(tmp_path) == one
    assert load_report(tmp_path / "report.json") == one


@pytest.mark.parametrize("text", ["{", '{"format_version": 2}', '{"format_version": 1, "model": "m", "speed": 1}'])
def test_another_report_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ConversionError, match=r"report\.json"):
        load_report(tmp_path)
