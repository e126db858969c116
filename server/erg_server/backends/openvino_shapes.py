"""Whether the shapes of a batch go through a model, found out before OpenVINO's CPU plugin meets them.

The plugin changes its nodes to the new shapes one after the other. Where one of them refuses, those before it have
changed already, and the compiled model refuses or mixes up what comes next: a caller whose mask is longer than its
tokens would break the model for everybody (measured with 2026.4 and MiniLM). OpenVINO's own shape inference on the
graph has no such memory. It takes 3 ms for MiniLM, so what passed is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from erg_server.backends.openvino_library import cause, ov
from erg_server.errors import InvalidArgumentError

Shape = tuple[int, ...]

REMEMBERED = 4096
LARGEST_CONSTANT = 4096
"""Elements. Larger ones are weights, whose values no shape depends on; the graph is kept without them."""


class ShapeCheck:
    """Checks the shapes of batches against a graph. Takes the graph over: its weights are removed."""

    def __init__(self, graph: ov.Model, ports: Sequence[int], *, batched: bool) -> None:
        """`ports` are the graph's inputs in the order of the batches; `batched` where their first axis is the rows."""
        self._graph = graph
        self._ports = tuple(ports)
        self._batched = batched
        self._passed: set[tuple[Shape, ...]] = set()
        _remove_weights(graph)

    def check(self, shapes: Sequence[Shape]) -> None:
        """Raises InvalidArgumentError, in OpenVINO's words, where batches of these shapes cannot be run."""
        if self._batched:
            rows = {shape[0] for shape in shapes if shape}
            if len(rows) > 1:
                raise InvalidArgumentError(f"the inputs have different numbers of rows: {sorted(rows)}")
        key = tuple(shape[1:] for shape in shapes) if self._batched else tuple(shapes)
        if key in self._passed:
            return
        # Rows stay open, so that a length is checked once and not once for each number of rows.
        free = [-1] if self._batched else []
        try:
            self._graph.reshape(
                {port: ov.PartialShape([*free, *rest]) for port, rest in zip(self._ports, key, strict=True)}
            )
        except RuntimeError as error:
            told = ", ".join(str(list(shape)) for shape in shapes)
            raise InvalidArgumentError(f"OpenVINO refuses inputs of shapes {told}: {cause(error)}") from error
        if len(self._passed) >= REMEMBERED:
            self._passed.clear()
        self._passed.add(key)


def _remove_weights(graph: ov.Model) -> None:
    """Put an input of the same type and shape in the place of every large constant."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Constant" and math.prod(node.output(0).shape) > LARGEST_CONSTANT:
            output = node.output(0)
            stand_in = ov.op.Parameter(output.element_type, output.partial_shape)
            output.replace(stand_in.output(0))
            graph.add_parameters([stand_in])
