"""The points of a sweep: every model under every configuration under every load. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from erg_loadtest.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a sweep. `config` are changes to the model's configuration, by dotted key."""

    model: str
    config: tuple[tuple[str, str], ...] = ()
    concurrency: int | None = None
    request_rate: float | None = None

    @property
    def load(self) -> str:
        """The load in a few words, "" for the default one."""
        if self.request_rate is not None:
            return f"{self.request_rate:g}/s"
        return "" if self.concurrency is None else f"{self.concurrency} in flight"

    @property
    def variant(self) -> str:
        """The model under its configuration."""
        return ", ".join([self.model, *(f"{key.rpartition('.')[2]}={value}" for key, value in self.config)])

    @property
    def label(self) -> str:
        """What tells the point from the others."""
        return f"{self.variant}, {self.load}" if self.load else self.variant

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def points(
    models: Sequence[str],
    *,
    concurrencies: Sequence[int] = (),
    rates: Sequence[float] = (),
    configs: Mapping[str, Sequence[str]] | None = None,
) -> list[Point]:
    """Every combination, a model's and a configuration's after one another, for changing them takes a load."""
    if concurrencies and rates:
        raise PlanError("--concurrency makes closed loops and --request-rate open ones: sweep over one of them")
    combinations = itertools.product(*([(key, value) for value in values] for key, values in (configs or {}).items()))
    loads: Sequence[tuple[int | None, float | None]] = [
        *((count, None) for count in concurrencies),
        *((None, rate) for rate in rates),
    ]
    return [
        Point(model=model, config=config, concurrency=concurrency, request_rate=rate)
        for model, config in itertools.product(dict.fromkeys(models), list(combinations))
        for concurrency, rate in loads or [(None, None)]
    ]


def parse_numbers(text: str, flag: str) -> list[float]:
    """`1,2,4`, each above zero."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < value < float("inf") for value in found):
        raise PlanError(f"{flag} '{text}': write numbers above zero with commas, for instance 1,2,4,8")
    return found


def parse_counts(text: str, flag: str) -> list[int]:
    """`1,2,4`, whole numbers above zero."""
    found = parse_numbers(text, flag)
    if any(value != int(value) for value in found):
        raise PlanError(f"{flag} '{text}': write whole numbers")
    return [int(value) for value in found]


def parse_configs(texts: Sequence[str]) -> dict[str, list[str]]:
    """`KEY=v1,v2` of each; a value that holds a comma is written as JSON in brackets or braces of its own."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        if not key or not values or key in found:
            raise PlanError(f"--config '{text}': write KEY=VALUE,VALUE, each key once, for instance max_batch_size=1,8")
        found[key] = [values] if values[0] in "[{" else values.split(",")
    return found


def with_changes(config: Mapping[str, Any], changes: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A configuration with its dotted keys set; numbers are places in lists. Raises PlanError."""
    result: dict[str, Any] = json.loads(json.dumps(config))
    for key, text in changes:
        _set(result, key, key.split("."), _literal(text))
    return result


def _set(node: Any, key: str, path: Sequence[str], value: object) -> None:
    head, rest = path[0], path[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) > len(node):
            raise PlanError(f"--config {key}: '{head}' is no place in a list of {len(node)}")
        if int(head) == len(node):
            node.append({})
        place: Any = int(head)
    elif isinstance(node, dict):
        place = head
    else:
        raise PlanError(f"--config {key}: there is nothing below '{head}'")
    if not rest:
        node[place] = value
        return
    if isinstance(node, dict) and place not in node:
        node[place] = [] if rest[0].isdigit() else {}
    _set(node[place], key, rest, value)


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
