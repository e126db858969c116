"""Integers shared out so that nothing is created and nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence


def split_exactly(amount: int, weights: Sequence[int]) -> list[int]:
    """Parts of `amount`, as near to the proportions of `weights` as integers come, that sum to it exactly.

    The largest-remainder method: what rounding down leaves goes, one each, to the parts that lost most by it, the
    first of equals.

    Raises:
        ValueError: something is to be split and no weight is above 0.
    """
    total = sum(weights)
    if total <= 0:
        if amount:
            raise ValueError(f"{amount} cannot be split over weights that sum to {total}")
        return [0] * len(weights)
    parts = [amount * weight // total for weight in weights]
    left = amount - sum(parts)
    if left:
        lost = sorted(range(len(weights)), key=lambda at: -(amount * weights[at] % total))
        for at in lost[:left]:
            parts[at] += 1
    return parts
