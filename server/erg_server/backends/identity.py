"""Answers with its inputs, by position: for tests and for measuring everything but a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from erg_server.backends.base import Array, ModelLoad
from erg_server.errors import InvalidArgumentError

DELAY_PARAMETER = "execution_delay_ms"
"""Stands in for a device that is busy for that long without using the CPU."""


class IdentityModel:
    """Output i is input i."""

    def __init__(self, outputs: int, delay_s: float) -> None:
        self._outputs = outputs
        self._delay_s = delay_s

    def run(self, inputs: Sequence[Array | None]) -> Sequence[Array]:
        """Return the first inputs, as many as there are outputs."""
        if self._delay_s:
            time.sleep(self._delay_s)
        outputs = [array for array in inputs[: self._outputs] if array is not None]
        if len(outputs) < self._outputs:
            raise InvalidArgumentError("an identity model needs every input that has an output at its position")
        return outputs

    def close(self) -> None:
        """Nothing to release."""


class IdentityBackend:
    """Loads nothing: the configuration is the model."""

    def load(self, model: ModelLoad) -> IdentityModel:
        """Check that inputs and outputs match by position; raises InvalidArgumentError where they do not."""
        spec = model.spec
        for number, output in enumerate(spec.outputs):
            if number >= len(spec.inputs) or spec.inputs[number].datatype is not output.datatype:
                raise InvalidArgumentError(
                    f"identity model '{model.name}': output '{output.name}' needs an input of its datatype there"
                )
        stated = spec.parameters.get(DELAY_PARAMETER, "0")
        try:
            delay_s = float(stated) / 1000
        except ValueError:
            delay_s = -1.0
        if not 0 <= delay_s <= threading.TIMEOUT_MAX:
            raise InvalidArgumentError(f"{DELAY_PARAMETER} is a number of milliseconds, not '{stated}'")
        return IdentityModel(len(spec.outputs), delay_s)
