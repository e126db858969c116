"""The two protocols a backend implements. It runs in a worker process, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from erg_server.devices.device import Device
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec

# Said to be a type: a wheel is built without NumPy, where mypy would take it for a variable and compile nothing.
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoad:
    """What a backend gets to load a version: its configuration, its file, and the device it runs on."""

    name: str
    version: int
    config: ModelConfig
    spec: ModelSpec
    path: Path
    device: Device


class LoadedModel(Protocol):
    """A model in memory."""

    def run(self, inputs: Sequence[Array | None]) -> Sequence[Array]:
        """Run one batch.

        Args:
            inputs: one array for each input of the spec, in its order, None for an optional one left out. They are
                views of shared memory, valid during this call only. BYTES are object arrays of `bytes`, BF16 is uint16.

        Returns:
            One array for each output of the spec, in its order, of the spec's datatype. They may be inputs as they
            are, which the worker copies while the call's memory is valid, but nothing that the next run reuses.

        Raises:
            ErgError: the batch cannot be run; its message reaches the callers.
        """
        ...

    def close(self) -> None:
        """Release what the model holds."""
        ...


class Backend(Protocol):
    """Loads models of one kind of file."""

    def load(self, model: ModelLoad) -> LoadedModel:
        """Load a version; raises ErgError with the cause if it cannot."""
        ...
