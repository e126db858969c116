"""What a load test cannot see of a model and a user must bring: its performance, and how long training it took."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from erg_loadtest.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """`performance` is the model's quality by `metric`, more being better; None where nobody said."""

    performance: float | None = None
    metric: str = ""
    training_s: float | None = None
    origin: str = ""
    """Who said so: a flag, or a manifest."""

    def __post_init__(self) -> None:
        for name, value in (("--performance", self.performance), ("--training-time", self.training_s)):
            if value is not None and not 0 < value < math.inf:
                raise PlanError(f"{name} must be positive and finite, not {value:g}")

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def quality_of(
    model: str, performances: Sequence[str] = (), training_times: Sequence[str] = (), manifests: Sequence[Path] = ()
) -> Quality:
    """What flags and manifests say of `model`: `0.93` is every model's, `NAME=0.93` one's; a flag goes first."""
    performance, training_s = _of(model, performances, "--performance"), _of(model, training_times, "--training-time")
    if performance is not None:
        return Quality(performance=performance, training_s=training_s, metric="performance", origin="--performance")
    for path in manifests:
        found = _from_manifest(path, model)
        if found is not None:
            return Quality(performance=found[1], metric=found[0], training_s=training_s, origin=f"manifest {path.name}")
    return Quality(training_s=training_s)


def _of(model: str, texts: Sequence[str], flag: str) -> float | None:
    general: float | None = None
    for text in texts:
        name, separator, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            raise PlanError(f"{flag} '{text}': write a number, or MODEL=NUMBER") from None
        if not separator:
            general = number
        elif name == model:
            return number
    return general


def _from_manifest(path: Path, model: str) -> tuple[str, float] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["model"] != model:
            return None
        entries = [(str(entry["metric"]), float(entry["value"])) for entry in document.get("accuracy", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"--manifest {path}: not a model's manifest: {error!r}") from None
    return entries[0] if entries else None
