"""Which layers are kept, with a measurer made up here: each layer has its own loss, and losses add up."""

from __future__ import annotations

import math

import pytest
from erg_converters.errors import PassError
from erg_converters.passes.sensitivity import Group, find_kept
from hypothesis import given
from hypothesis import strategies as st


class Losses:
    """Cosine is 1 less the losses of what is quantized; counts what it is asked."""

    def __init__(self, losses: dict[str, float], interrupt_after: int | None = None) -> None:
        self.losses = losses
        self.calls: list[tuple[frozenset[str], bool]] = []
        self.interrupt_after = interrupt_after

    def __call__(self, kept: frozenset[str], quick: bool) -> float:
        if len(self.calls) == self.interrupt_after:
            raise KeyboardInterrupt
        self.calls.append((kept, quick))
        return 1 - sum(loss for name, loss in self.losses.items() if name not in kept)


def groups(**macs: int) -> list[Group]:
    return [Group(names=(name,), macs=size) for name, size in macs.items()]


def silent(_done: int, _total: int) -> None:
    """Tell nobody."""


def test_nothing_is_kept_where_the_target_is_met_already() -> None:
    measure = Losses({"a": 0.001, "b": 0.002})
    found = find_kept(groups(a=1, b=1), measure, 0.99, {}, silent)
    assert not found.names
    assert found.share == 0
    assert found.cosine == pytest.approx(0.997)
    assert len(measure.calls) == 1


def test_the_layers_that_lose_most_for_their_cost_are_kept_and_no_more_than_needed() -> None:
    # c loses most, but costs so much that a and b go first.
    measure = Losses({"a": 0.02, "b": 0.02, "c": 0.03, "d": 0.001})
    found = find_kept(groups(a=10, b=10, c=1000, d=10), measure, 0.965, {}, silent)
    assert found.names == {"a", "b"}
    assert found.cosine == pytest.approx(0.969)
    assert found.share == pytest.approx(20 / 1030)


def test_only_the_ranking_is_measured_with_few_samples() -> None:
    measure = Losses({"a": 0.02, "b": 0.02, "c": 0.03})
    find_kept(groups(a=1, b=1, c=1), measure, 0.97, {}, silent)
    assert [quick for kept, quick in measure.calls if len(kept) == 2][:3] == [True] * 3
    assert sum(quick for _, quick in measure.calls) == 3


def test_an_interrupted_search_goes_on_where_it_was() -> None:
    losses = {name: 0.001 * (index + 1) for index, name in enumerate("abcdefgh")}
    sizes = groups(**dict.fromkeys(losses, 5))
    whole = Losses(losses)
    expected = find_kept(sizes, whole, 0.98, {}, silent)

    resume: dict[str, float] = {}
    first = Losses(losses, interrupt_after=5)
    with pytest.raises(KeyboardInterrupt):
        find_kept(sizes, first, 0.98, resume, silent)
    assert len(resume) == 5
    second = Losses(losses)
    assert find_kept(sizes, second, 0.98, resume, silent) == expected
    assert first.calls + second.calls == whole.calls


def test_layers_of_a_group_are_kept_together() -> None:
    together = [Group(names=("q", "k", "v"), macs=3), Group(names=("out",), macs=3)]
    found = find_kept(together, Losses({"q": 0.01, "k": 0.0, "v": 0.0, "out": 0.001}), 0.995, {}, silent)
    assert found.names == {"q", "k", "v"}


def test_a_target_that_only_the_source_meets_is_refused_with_the_figures() -> None:
    with pytest.raises(PassError, match=r"0\.999 is out of reach: all layers quantized give 0\.90000"):
        find_kept(groups(a=1, b=1), Losses({"a": 0.05, "b": 0.05}), 0.999, {}, silent)
    with pytest.raises(PassError, match="out of reach"):
        find_kept(groups(a=1), Losses({"a": 0.05}), 0.999, {}, silent)


@given(st.dictionaries(st.text("abcdef", min_size=1), st.floats(1e-6, 0.01), min_size=2, max_size=20), st.data())
def test_the_target_is_met_in_a_bounded_number_of_steps_that_end_at_the_total(
    losses: dict[str, float], data: st.DataObject
) -> None:
    target = 1 - sum(losses.values()) * data.draw(st.floats(0.3, 0.95))
    told: list[tuple[int, int]] = []
    measure = Losses(losses)
    sizes = groups(**{name: data.draw(st.integers(1, 100)) for name in losses})
    try:
        found = find_kept(sizes, measure, target, {}, lambda done, total: told.append((done, total)))
    except PassError:
        return
    assert measure(found.names, False) >= target
    assert len(measure.calls) - 1 <= 1 + len(losses) + math.ceil(math.log2(len(losses)))
    assert told[-1][0] == told[-1][1] == 1 + len(losses) + max(1, math.ceil(math.log2(len(losses))))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
