"""What a PromQL expression reads: its metrics, the labels that it asks for, and the labels that it groups by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser as promql

VARIABLES = {
    "$__rate_interval": "5m",
    "$__range": "1h",
    "$namespace": ".*",
    "$job": ".*",
    "$pod": ".*",
    "$model": ".*",
}
"""What Grafana puts for its variables where everything is chosen."""


@dataclass(frozen=True, slots=True)
class Selector:
    """One metric as an expression selects it. `values` are those that a label is compared with for equality."""

    name: str
    values: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Labels that are kept or dropped, and the metrics of which."""

    labels: tuple[str, ...]
    names: tuple[str, ...]


def filled(expr: str, variables: dict[str, str] = VARIABLES) -> str:
    """A dashboard's expression as Grafana would send it."""
    for name, value in variables.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def selectors(expr: str) -> list[Selector]:
    """Every metric that an expression selects."""
    return [_selector(node) for node in _nodes(promql.parse(expr)) if isinstance(node, promql.VectorSelector)]


def groupings(expr: str) -> list[Grouping]:
    """Every `by`, `without`, `on`, `ignoring` and `group_left` with labels."""
    found = []
    for node in _nodes(promql.parse(expr)):
        labels: list[str] = []
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            labels = node.modifier.labels
        elif isinstance(node, promql.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            labels = node.modifier.matching.labels + (node.modifier.group_labels or [])
        if labels:
            names = [_selector(each).name for each in _nodes(node) if isinstance(each, promql.VectorSelector)]
            found.append(Grouping(tuple(labels), tuple(names)))
    return found


def _selector(node: promql.VectorSelector) -> Selector:
    values: dict[str, tuple[str, ...]] = {}
    for matcher in node.matchers.matchers:
        stated: tuple[str, ...]
        if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
            stated = (matcher.value,) if matcher.value else ()
        else:
            # An alternative of plain words; any other pattern names no value.
            plain = re.fullmatch(r"[\w|]+", matcher.value)
            stated = tuple(matcher.value.split("|")) if plain else ()
        values[matcher.name] = values.get(matcher.name, ()) + stated
    assert node.name
    return Selector(node.name, values)


def _nodes(expr: promql.Expr) -> Iterator[promql.Expr]:
    """The expression and everything in it."""
    yield expr
    if isinstance(expr, promql.BinaryExpr):
        inner = [expr.lhs, expr.rhs]
    elif isinstance(expr, promql.Call):
        inner = list(expr.args)
    elif isinstance(expr, promql.MatrixSelector):
        inner = [expr.vector_selector]
    elif isinstance(expr, promql.AggregateExpr | promql.ParenExpr | promql.SubqueryExpr | promql.UnaryExpr):
        inner = [expr.expr]
    else:
        inner = []
    for each in inner:
        yield from _nodes(each)
