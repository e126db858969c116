"""Within what time a model's requests are to be answered, whoever says so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from erg_server.errors import InvalidArgumentError
from erg_server.planning.traffic import ModelTraffic
from erg_server.repository.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What `--objective-ms` states, in nanoseconds: by model, and for models that have none (0 for nothing)."""

    by_name: Mapping[str, int] = field(default_factory=dict)
    otherwise_ns: int = 0

    def applied(self, spec: ModelSpec, traffic: ModelTraffic | None) -> ModelSpec:
        """The model with the objective that counts: the command line's, the load file's, its configuration's own."""
        stated = 0 if traffic is None else traffic.objective_ns
        objective_ns = self.by_name.get(spec.name) or stated or spec.objective_ns or self.otherwise_ns
        return dataclasses.replace(spec, objective_ns=objective_ns)


def parse_objectives(stated: Sequence[str]) -> Objectives:
    """Read `--objective-ms`: 50 for every model without an objective, NAME=50 for one, whatever else says.

    Raises:
        InvalidArgumentError: it is no time above 0, or it is given twice.
    """
    by_name: dict[str, int] = {}
    for text in stated:
        name, _, number = text.rpartition("=")
        try:
            milliseconds = float(number)
        except ValueError:
            milliseconds = math.nan
        if not 0 < milliseconds <= 1e9:
            raise InvalidArgumentError(f"--objective-ms {text}: write milliseconds above 0, as 50 or NAME=50")
        if name in by_name:
            raise InvalidArgumentError(
                f"--objective-ms {text}: it is given twice {f'for {name}' if name else ''}".rstrip()
            )
        by_name[name] = max(1, round(milliseconds * 1e6))
    return Objectives(otherwise_ns=by_name.pop("", 0), by_name=by_name)
