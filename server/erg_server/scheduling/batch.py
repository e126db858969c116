"""A batch's tensors: requests' rows laid one after the other into a slab, padded where a rule says so, and cut back."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from erg_server.datatype import DataType
from erg_server.errors import InternalError
from erg_server.repository.spec import ModelSpec, PaddedInput, PaddingRule, TensorSpec
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.tensor import Buffer, Tensor
from erg_server.workers.process import BatchInput, BatchOutput


class ConcatenatedInput:
    """Rows of equal shape: their bytes, one request after the other."""

    __slots__ = ("_parts", "datatype", "index", "nbytes", "shape")

    def __init__(self, index: int, datatype: DataType, shape: tuple[int, ...], parts: Sequence[Buffer]) -> None:
        self.index = index
        self.datatype = datatype
        self.shape = shape
        self._parts = parts
        self.nbytes = sum(map(len, parts))

    def write(self, view: memoryview) -> None:
        """Copy the rows into `view`, which has `nbytes` bytes."""
        at = 0
        for part in self._parts:
            end = at + len(part)
            view[at:end] = part
            at = end


class PaddedRowsInput:
    """Rows of different length along one axis: each at its place, `value` where a row is shorter than the longest."""

    __slots__ = ("_axis", "_rows", "_value", "datatype", "index", "nbytes", "shape")

    def __init__(
        self, index: int, datatype: DataType, shape: tuple[int, ...], rows: Sequence[Tensor], rule: PaddedInput
    ) -> None:
        self.index = index
        self.datatype = datatype
        self.shape = shape
        self._rows = rows
        self._axis = rule.axis
        self._value = rule.value
        self.nbytes = math.prod(shape) * datatype.itemsize

    def write(self, view: memoryview) -> None:
        """Fill `view`, which has `nbytes` bytes."""
        target = np.frombuffer(view, dtype=self.datatype.numpy).reshape(self.shape)
        target.fill(self._value)
        at = 0
        for tensor in self._rows:
            source = tensor.numpy()
            where = [slice(None)] * source.ndim
            where[0] = slice(at, at + source.shape[0])
            where[self._axis] = slice(0, source.shape[self._axis])
            target[tuple(where)] = source
            at += source.shape[0]


class BatchLayout:
    """How one model's requests become a batch and its outputs become answers. Built once for a version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._batched = spec.max_batch_size > 0
        self._index = {tensor.name: index for index, tensor in enumerate(spec.inputs)}
        self._rules = {} if spec.padding is None else {rule.name: rule for rule in spec.padding.inputs}
        self._rule: PaddingRule | None = spec.padding
        self._cuts = {} if spec.padding is None else {output.name: output.axis for output in spec.padding.outputs}
        # Where every shape is fixed and every input required, all requests may share a batch.
        self._uniform = self._batched and all(
            not tensor.optional and tensor.datatype is not DataType.BYTES and min(tensor.dims, default=0) >= 0
            for tensor in spec.inputs
        )

    def describe(self, inputs: Sequence[Tensor]) -> tuple[Hashable, int]:
        """What a request with these inputs may share a batch with, and its length along the padded axis."""
        if self._uniform:
            return None, 0
        if not self._batched:
            return tuple((tensor.name, tensor.shape) for tensor in inputs), 0
        length = 0
        parts: list[Hashable] = []
        for tensor in sorted(inputs, key=lambda item: self._index[item.name]):
            rule = self._rules.get(tensor.name)
            if rule is None:
                parts.append((tensor.name, tensor.shape[1:]))
                continue
            length = max(length, tensor.shape[rule.axis])
            if not rule.mask:
                rest = tuple(size for axis, size in enumerate(tensor.shape) if axis not in (0, rule.axis))
                parts.append((tensor.name, rest))
        if self._rule is not None and length:
            step = max(1, self._rule.bucket_step)
            parts.append(-(-length // step))
        return tuple(parts), length

    def complete(self, inputs: list[Tensor], rows: int) -> list[Tensor]:
        """The inputs, with a mask of ones for each mask input that the caller left out."""
        missing = [rule for rule in self._rules.values() if rule.mask and all(t.name != rule.name for t in inputs)]
        if not missing:
            return inputs
        lengths = [tensor.shape[self._rules[tensor.name].axis] for tensor in inputs if tensor.name in self._rules]
        completed = list(inputs)
        for rule in missing:
            spec = self._spec.inputs[self._index[rule.name]]
            ones = np.ones((rows, max(lengths)), dtype=spec.datatype.numpy)
            completed.append(Tensor.from_numpy(rule.name, ones, spec.datatype))
        return completed

    def assemble(self, entries: Sequence[QueuedRequest]) -> tuple[list[BatchInput], int, int]:
        """The batch's inputs in the model's order, and how many of its elements are padding and how many are real."""
        inputs: list[BatchInput] = []
        padded = real = 0
        first = entries[0].request.inputs
        total_rows = sum(entry.rows for entry in entries)
        longest = max(entry.length for entry in entries)
        for tensor in first:
            index = self._index[tensor.name]
            spec = self._spec.inputs[index]
            tensors = [tensor] if len(entries) == 1 else [_find(entry.request.inputs, tensor.name) for entry in entries]
            rule = self._rules.get(tensor.name)
            if rule is not None and any(item.shape[rule.axis] != longest for item in tensors):
                shape = list(tensor.shape)
                shape[0], shape[rule.axis] = total_rows, longest
                inputs.append(PaddedRowsInput(index, tensor.datatype, tuple(shape), tensors, rule))
                size, filled = math.prod(shape), sum(math.prod(item.shape) for item in tensors)
                padded, real = padded + size - filled, real + filled
            else:
                shape_ = (total_rows, *tensor.shape[1:]) if self._batched else tensor.shape
                model_shape = _model_shape(spec, shape_, self._batched)
                inputs.append(ConcatenatedInput(index, tensor.datatype, model_shape, [item.data for item in tensors]))
                real += math.prod(shape_)
        return inputs, padded, real

    def split(self, entries: Sequence[QueuedRequest], outputs: Sequence[BatchOutput]) -> list[list[Tensor]]:
        """Each request's outputs, copied out of the slab, in the order the request asked for.

        Raises:
            InternalError: the model answered with another number of rows than it was given.
        """
        if not self._batched:
            named = {}
            for output in outputs:
                spec = self._spec.outputs[output.index]
                shape = output.shape if spec.reshape is None else spec.dims
                named[spec.name] = Tensor(spec.name, output.datatype, shape, bytes(output.data))
            return [_wanted(entries[0], named)]
        total_rows = sum(entry.rows for entry in entries)
        cutters = [self._cutter(output, total_rows) for output in outputs]
        answers: list[list[Tensor]] = []
        at = 0
        for entry in entries:
            asked = entry.request.outputs
            if asked:
                names = {output.name for output in asked}
                answers.append(_wanted(entry, {name: cut(at, entry) for name, cut in cutters if name in names}))
            else:
                answers.append([cut(at, entry) for _, cut in cutters])
            at += entry.rows
        return answers

    def _cutter(self, output: BatchOutput, total_rows: int) -> tuple[str, Callable[[int, QueuedRequest], Tensor]]:
        spec = self._spec.outputs[output.index]
        if not output.shape or output.shape[0] != total_rows:
            raise InternalError(
                f"model '{self._spec.name}' gave output '{spec.name}' shape {list(output.shape)} for a batch of "
                f"{total_rows} rows: its first axis must be the batch"
            )
        rest = output.shape[1:] if spec.reshape is None else spec.dims
        if output.datatype is DataType.BYTES:
            return spec.name, _bytes_cutter(spec.name, output, rest)
        data, datatype, name = output.data, output.datatype, spec.name
        row_bytes = len(data) // total_rows if total_rows else 0
        axis = self._cuts.get(name)
        if axis is None:

            def cut(at: int, entry: QueuedRequest) -> Tensor:
                start = at * row_bytes
                return Tensor(name, datatype, (entry.rows, *rest), bytes(data[start : start + entry.rows * row_bytes]))

            return name, cut

        def cut_padding(at: int, entry: QueuedRequest) -> Tensor:
            start = at * row_bytes
            rows = np.frombuffer(data[start : start + entry.rows * row_bytes], dtype=datatype.numpy)
            shaped = rows.reshape(entry.rows, *rest)
            where = [slice(None)] * shaped.ndim
            where[axis] = slice(0, entry.length)
            kept = shaped[tuple(where)]
            return Tensor(name, datatype, kept.shape, kept.tobytes())

        return name, cut_padding


def _bytes_cutter(name: str, output: BatchOutput, rest: tuple[int, ...]) -> Callable[[int, QueuedRequest], Tensor]:
    """Cut BYTES rows, whose sizes vary: one walk over the lengths finds where each row ends."""
    per_row = math.prod(rest)
    data = output.data
    ends = [0]
    at = 0
    for _ in range(output.shape[0]):
        for _ in range(per_row):
            at += 4 + struct.unpack_from("<I", data, at)[0]
        ends.append(at)

    def cut(row: int, entry: QueuedRequest) -> Tensor:
        piece = bytes(data[ends[row] : ends[row + entry.rows]])
        return Tensor(name, DataType.BYTES, (entry.rows, *rest), piece)

    return cut


def _model_shape(spec: TensorSpec, shape: tuple[int, ...], batched: bool) -> tuple[int, ...]:
    """The shape the model sees, where the configuration reshapes the input."""
    if spec.reshape is None:
        return shape
    sent = math.prod(shape[1:] if batched else shape)
    fixed = math.prod(size for size in spec.reshape if size >= 0)
    inner = tuple(size if size >= 0 else sent // max(1, fixed) for size in spec.reshape)
    return (shape[0], *inner) if batched else inner


def _find(inputs: Sequence[Tensor], name: str) -> Tensor:
    for tensor in inputs:
        if tensor.name == name:
            return tensor
    raise InternalError(f"a batch mixes requests with and without input '{name}'")


def _wanted(entry: QueuedRequest, named: dict[str, Tensor]) -> list[Tensor]:
    asked = entry.request.outputs
    return [named[output.name] for output in asked] if asked else list(named.values())
