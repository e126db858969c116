"""Whether each variant pays, shape by shape, and which is to be served. Pure: figures in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from erg_server.repository.manifest import Measurement, Verdict

from erg_converters.decision import Decision
from erg_converters.front import cost_ratios, front, points
from erg_converters.report import SOURCE_CANDIDATE, CandidateRecord
from erg_converters.settings import ChooseSettings, GateSettings

_Word = Literal["worth it", "not worth it", "refused"]


def decide(
    records: Sequence[CandidateRecord],
    measurements: Sequence[Measurement],
    gate: GateSettings,
    choose: ChooseSettings,
) -> Decision:
    """Verdicts on every candidate for every measured shape, the front, and the choice.

    The source is always one of those to choose from; it stays where nothing that passed is cheaper by
    `gate.min_speedup`.
    """
    costs = cost_ratios(measurements)
    passed = [each for each in records if each.status == "passed"]
    drops = {each.name: _drop(each) for each in passed}
    on_front = front(points(drops, costs))
    chosen, reason = _choose(passed, costs, gate, choose)
    return Decision(
        chosen=chosen, reason=reason, verdicts=tuple(_verdicts(records, measurements, gate)), front=on_front
    )


def _verdicts(
    records: Sequence[CandidateRecord], measurements: Sequence[Measurement], gate: GateSettings
) -> list[Verdict]:
    shapes = [(each.batch_size, each.length) for each in measurements if each.variant == SOURCE_CANDIDATE]
    figures = {(each.variant, each.batch_size, each.length): each for each in measurements}
    found: list[Verdict] = []
    for record in records:
        if record.name == SOURCE_CANDIDATE:
            continue
        for batch, length in shapes:
            verdict, reason = _verdict(record, figures.get((record.name, batch, length)), gate)
            found.append(
                Verdict(
                    variant=record.name, device="cpu", batch_size=batch, length=length, verdict=verdict, reason=reason
                )
            )
    return found


def _verdict(record: CandidateRecord, figure: Measurement | None, gate: GateSettings) -> tuple[_Word, str]:
    if record.status != "passed":
        return "refused", record.reason
    if figure is None or not figure.cpu_ratio:
        return "not worth it", "its cost was not measured"
    shape = f"at batch {figure.batch_size}" + (f", length {figure.length}" if figure.length is not None else "")
    ratio = figure.cpu_ratio
    if ratio >= gate.min_speedup:
        return "worth it", f"{ratio:.2f} times cheaper than the source {shape}"
    if ratio >= 1:
        return "not worth it", f"{ratio:.2f} times cheaper {shape}; {gate.min_speedup:g} is the least that counts"
    return "not worth it", f"{ratio:.2f} times the source's speed {shape}: it costs more"


def _choose(
    passed: Sequence[CandidateRecord], costs: Mapping[str, float], gate: GateSettings, choose: ChooseSettings
) -> tuple[str, str]:
    paying = [
        each
        for each in passed
        if each.name != SOURCE_CANDIDATE and each.name in costs and costs[each.name] * gate.min_speedup <= 1
    ]
    if choose.rule == "most_accurate":
        fitting = [each for each in paying if costs[each.name] <= choose.max_cost_ratio]
        rule = f"most accurate within {choose.max_cost_ratio:g} of the source's cost"
        if choose.max_cost_ratio >= 1:
            return SOURCE_CANDIDATE, f"{rule}: nothing is more accurate than the source, which may be chosen"
    else:
        fitting = [each for each in paying if _far_drop(each) <= choose.max_drop]
        rule = f"cheapest within a drop of {choose.max_drop:g}"
    if not fitting:
        return SOURCE_CANDIDATE, f"{rule}: none passes and pays, so the source stays"
    accurate = choose.rule == "most_accurate"
    order = {
        each.name: (_drop(each), costs[each.name]) if accurate else (costs[each.name], _drop(each)) for each in fitting
    }
    best = min(fitting, key=lambda each: order[each.name])
    lost = f", drop {best.accuracy.drop:.5f}" if best.accuracy and best.accuracy.drop is not None else ""
    return best.name, f"{rule}: {1 / costs[best.name]:.2f} times cheaper than the source{lost}"


def _drop(record: CandidateRecord) -> float:
    accuracy = record.accuracy
    return 0.0 if accuracy is None or accuracy.drop is None else accuracy.drop


def _far_drop(record: CandidateRecord) -> float:
    accuracy = record.accuracy
    return 0.0 if accuracy is None or accuracy.drop_high is None else accuracy.drop_high
