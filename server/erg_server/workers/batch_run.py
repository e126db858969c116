"""What a RUN frame starts: a model over arrays that lie in a slot, its outputs written behind its inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from erg_server.backends.base import Array, LoadedModel
from erg_server.datatype import DataType
from erg_server.errors import InternalError, ResourceExhaustedError
from erg_server.repository.spec import ModelSpec
from erg_server.tensor import datatype_of, iter_bytes_elements, pack_bytes_elements
from erg_server.workers import frames
from erg_server.workers.frames import SlotTensor
from erg_server.workers.slab import aligned


class BatchRun:
    """One frame's meaning. It may be run again: a batch of the same shapes in the same slot has the same frame.

    Arrays are views of the slot, made once. Only BYTES, whose elements are objects, are made anew each time.
    """

    __slots__ = ("_end", "_inputs", "_made", "_model", "_outputs", "_packed", "_slot", "_spec", "_view")

    def __init__(
        self, slot: int, view: memoryview, tensors: Sequence[SlotTensor], model: LoadedModel, spec: ModelSpec
    ) -> None:
        self._slot = slot
        self._view = view
        self._model = model
        self._spec = spec
        self._inputs: list[Array | None] = [None] * len(spec.inputs)
        self._made = [tensor for tensor in tensors if tensor.datatype is DataType.BYTES]
        self._end = max((tensor.offset + tensor.nbytes for tensor in tensors), default=0)
        for tensor in tensors:
            if tensor.datatype is not DataType.BYTES:
                data = view[tensor.offset : tensor.offset + tensor.nbytes]
                self._inputs[tensor.index] = np.frombuffer(data, dtype=tensor.datatype.numpy).reshape(tensor.shape)
        # Where the last run's outputs went, and their part of the answer.
        self._outputs: list[Array] | None = None
        self._packed = b""

    def run(self) -> bytes:
        """Run the batch and return the frame that answers it.

        Raises:
            ErgError: the model refused it or failed, or its outputs are not what the configuration says, or too large.
        """
        started_ns = time.monotonic_ns()
        for tensor in self._made:
            self._inputs[tensor.index] = _objects(tensor, self._view)
        prepared_ns = time.monotonic_ns()
        outputs = self._model.run(self._inputs)
        ran_ns = time.monotonic_ns()
        for tensor in self._made:
            self._inputs[tensor.index] = None  # Its objects are this batch's.
        if not self._write_again(outputs):
            self._write(outputs)
        ended_ns = time.monotonic_ns()
        times_ns = (prepared_ns - started_ns, ran_ns - prepared_ns, ended_ns - ran_ns, ended_ns)
        return frames.pack_done(self._slot, times_ns, len(outputs), self._packed)

    def _write_again(self, outputs: Sequence[Array]) -> bool:
        """Put outputs where the last run's went; False if they are of another shape or type."""
        targets = self._outputs
        if targets is None or len(outputs) != len(targets):
            return False
        for output, target in zip(outputs, targets, strict=True):
            if output.shape != target.shape or output.dtype != target.dtype:
                return False
        for output, target in zip(outputs, targets, strict=True):
            target[...] = output
        return True

    def _write(self, outputs: Sequence[Array]) -> None:
        written: list[SlotTensor] = []
        targets: list[Array] = []
        end, view = self._end, self._view
        for index, (output, declared) in enumerate(zip(outputs, self._spec.outputs, strict=True)):
            offset = aligned(end)
            datatype = declared.datatype
            if datatype is DataType.BYTES:
                data: Any = pack_bytes_elements(output.ravel().tolist())
                nbytes = len(data)
            else:
                if output.dtype != datatype.numpy:
                    raise InternalError(
                        f"output '{declared.name}' is {datatype.value} by the configuration and "
                        f"{datatype_of(output.dtype).value} by the model"
                    )
                data, nbytes = None, output.nbytes
            end = offset + nbytes
            if end > len(view):
                raise ResourceExhaustedError(
                    f"output '{declared.name}' of {nbytes} bytes does not fit the slot of {len(view)} bytes "
                    "(--worker-slot-bytes)"
                )
            if data is not None:
                view[offset:end] = data
            else:
                target = np.frombuffer(view[offset:end], dtype=datatype.numpy).reshape(output.shape)
                target[...] = output
                targets.append(target)
            written.append(SlotTensor(index, datatype, output.shape, offset, nbytes))
        self._packed = frames.pack_tensors(written)
        self._outputs = targets if len(targets) == len(written) else None


def _objects(tensor: SlotTensor, view: memoryview) -> Array:
    array = np.empty(math.prod(tensor.shape), dtype=object)
    array[:] = list(iter_bytes_elements(view[tensor.offset : tensor.offset + tensor.nbytes]))
    return array.reshape(tensor.shape)
