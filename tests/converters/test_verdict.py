"""Verdicts, front and choice, from figures by hand."""

from __future__ import annotations

from typing import Literal

import pytest
from erg_converters.front import Point, cost_ratios, front, points
from erg_converters.report import SOURCE_CANDIDATE, CandidateRecord
from erg_converters.settings import ChooseSettings, GateSettings
from erg_converters.verdict import decide
from erg_server.repository.manifest import Accuracy, Measurement

Status = Literal["passed", "refused", "failed"]
GATE = GateSettings(min_speedup=1.05)


def record(name: str, drop: float = 0.0, *, far: float | None = None, status: Status = "passed") -> CandidateRecord:
    accuracy = Accuracy(
        metric="cosine", value=1 - drop, low=0, high=1, samples=9, variant=name, drop=drop, drop_low=0,
        drop_high=drop if far is None else far,
    )  # fmt: skip
    return CandidateRecord(
        name=name, backend="openvino", precision="f32", status=status,
        reason="" if status == "passed" else "cosine 0.5 is below 0.9",
        accuracy=None if name == SOURCE_CANDIDATE else accuracy,
    )  # fmt: skip


def figures(**ratios: tuple[float, float]) -> list[Measurement]:
    """Of batch 1 and batch 8."""
    return [
        Measurement(
            device="cpu", backend="b", batch_size=batch, latency_ms_p50=1, throughput_per_s=1, variant=name,
            cpu_ratio=ratio, cpu_ms_per_row=1 / ratio,
        )
        for name, both in {SOURCE_CANDIDATE: (1.0, 1.0), **ratios}.items()
        for batch, ratio in zip((1, 8), both, strict=True)
    ]  # fmt: skip


def test_each_shape_has_its_own_verdict_with_the_figure():
    decision = decide([record("source"), record("a")], figures(a=(0.68, 3.1)), GATE, ChooseSettings())
    assert [(each.batch_size, each.verdict) for each in decision.verdicts] == [(1, "not worth it"), (8, "worth it")]
    assert decision.verdicts[0].reason == "0.68 times the source's speed at batch 1: it costs more"
    assert decision.verdicts[1].reason == "3.10 times cheaper than the source at batch 8"


def test_a_gain_below_the_least_that_counts_is_not_worth_it():
    decision = decide([record("source"), record("a")], figures(a=(1.04, 1.04)), GATE, ChooseSettings())
    assert {each.verdict for each in decision.verdicts} == {"not worth it"}
    assert "1.05 is the least that counts" in decision.verdicts[0].reason
    assert decision.chosen == SOURCE_CANDIDATE
    assert "none passes and pays" in decision.reason


def test_a_refused_candidate_is_refused_at_every_shape_and_never_chosen():
    decision = decide([record("source"), record("a", status="refused")], figures(), GATE, ChooseSettings())
    assert [each.verdict for each in decision.verdicts] == ["refused", "refused"]
    assert decision.verdicts[0].reason == "cosine 0.5 is below 0.9"
    assert decision.chosen == SOURCE_CANDIDATE


def test_the_cheapest_within_the_drop_wins_by_the_far_end_of_its_interval():
    records = [record("source"), record("fast", 0.004, far=0.02), record("slow", 0.001, far=0.004)]
    costs = figures(fast=(4.0, 4.0), slow=(2.0, 2.0))
    assert decide(records, costs, GATE, ChooseSettings(max_drop=0.005)).chosen == "slow"
    decision = decide(records, costs, GATE, ChooseSettings(max_drop=0.02))
    assert (decision.chosen, decision.front) == ("fast", ("fast", "slow", "source"))
    assert decision.reason == "cheapest within a drop of 0.02: 4.00 times cheaper than the source, drop 0.00400"


def test_the_most_accurate_within_the_cost_wins():
    records = [record("source"), record("fast", 0.004), record("slow", 0.001)]
    costs = figures(fast=(4.0, 4.0), slow=(2.0, 2.0))
    within = ChooseSettings(rule="most_accurate", max_cost_ratio=0.6)
    assert decide(records, costs, GATE, within).chosen == "slow"
    cheaper = ChooseSettings(rule="most_accurate", max_cost_ratio=0.3)
    assert decide(records, costs, GATE, cheaper).chosen == "fast"
    assert decide(records, costs, GATE, ChooseSettings(rule="most_accurate")).chosen == SOURCE_CANDIDATE


def test_costs_are_geometric_means_that_do_not_depend_on_the_unit():
    costs = cost_ratios(figures(a=(0.5, 2.0), b=(4.0, 1.0)))
    assert costs == pytest.approx({"source": 1.0, "a": 1.0, "b": 0.5})


def test_only_what_no_other_beats_in_both_is_on_the_front():
    candidates = points({"a": 0.3, "b": 0.1, "c": 0.2, "untimed": 0}, {"a": 0.2, "b": 0.5, "c": 0.7})
    assert front(candidates) == ("a", "b")
    assert front([Point(name="x", drop=0.1, cost=1), Point(name="y", drop=0.1, cost=1)]) == ("x",)
