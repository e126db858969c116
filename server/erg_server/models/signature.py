"""Whether a request's tensors are what a model takes. Pure, and built once a version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from erg_server.errors import InvalidArgumentError
from erg_server.repository.spec import ModelSpec, TensorSpec
from erg_server.request import InferenceRequest
from erg_server.tensor import Tensor


class Signature:
    """A model's inputs and outputs by name."""

    def __init__(self, spec: ModelSpec) -> None:
        self._name = spec.name
        self._max_batch_size = spec.max_batch_size
        self._inputs = {tensor.name: tensor for tensor in spec.inputs}
        self._dims = {tensor.name: tensor.dims for tensor in spec.inputs}
        rules = spec.padding.inputs if spec.padding is not None else ()
        self._padded = {rule.name: rule.axis for rule in rules}
        made = {rule.name for rule in rules if rule.mask}
        self._required = [tensor.name for tensor in spec.inputs if not tensor.optional and tensor.name not in made]
        self._outputs = {tensor.name for tensor in spec.outputs}

    def check(self, request: InferenceRequest) -> int:
        """The request's rows: its first axis for a batching model, 1 for others.

        Raises:
            InvalidArgumentError: an input is unknown, missing, sent twice, or of another datatype or shape; or an
                output is unknown or asked for twice. The message names it, what came and what was expected.
        """
        inputs = request.inputs
        seen: set[str] = set()
        for tensor in inputs:
            spec = self._inputs.get(tensor.name)
            if spec is None:
                raise self._error(f"no input '{tensor.name}'; it has {_names(self._inputs)}")
            if tensor.name in seen:
                raise self._error(f"input '{tensor.name}' came twice")
            seen.add(tensor.name)
            if tensor.datatype is not spec.datatype:
                raise self._error(
                    f"input '{tensor.name}' takes {spec.datatype.value}, and {tensor.datatype.value} came"
                )
            self._check_shape(tensor, spec)
        if len(seen) < len(self._inputs):
            missing = [name for name in self._required if name not in seen]
            if missing:
                raise self._error(f"input '{missing[0]}' is missing; {_names(seen) or 'no input'} came")
        if self._padded:
            self._check_lengths(inputs)
        if request.outputs:
            self._check_outputs([output.name for output in request.outputs])
        return self._rows(inputs)

    def _check_shape(self, tensor: Tensor, spec: TensorSpec) -> None:
        shape = tensor.shape[1:] if self._max_batch_size else tensor.shape
        dims = spec.dims
        if shape == dims:
            return
        fits = len(shape) == len(dims) and (len(tensor.shape) > 0 or not self._max_batch_size)
        if not fits or any(want not in (-1, size) for size, want in zip(shape, dims, strict=True)):
            expected = ["batch", *dims] if self._max_batch_size else list(dims)
            raise self._error(
                f"input '{tensor.name}' takes shape [{', '.join(map(str, expected))}], and {list(tensor.shape)} came"
            )

    def _rows(self, inputs: Sequence[Tensor]) -> int:
        if not self._max_batch_size:
            return 1
        rows = inputs[0].shape[0] if inputs else 0
        for tensor in inputs:
            if tensor.shape[0] != rows:
                raise self._error(
                    f"input '{tensor.name}' has {tensor.shape[0]} rows where '{inputs[0].name}' has {rows}"
                )
        if not 1 <= rows <= self._max_batch_size:
            raise self._error(
                f"input '{inputs[0].name if inputs else ''}' has {rows} rows; a request may have 1 to "
                f"{self._max_batch_size} (max_batch_size)"
            )
        return rows

    def _check_lengths(self, inputs: Sequence[Tensor]) -> None:
        lengths = {
            tensor.name: tensor.shape[self._padded[tensor.name]] for tensor in inputs if tensor.name in self._padded
        }
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
            raise self._error(f"inputs that are padded together must have one length in a request; came {told}")

    def _check_outputs(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._outputs:
                raise self._error(f"no output '{name}'; it has {_names(self._outputs)}")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._error(f"output '{twice}' is asked for twice")

    def _error(self, message: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"model '{self._name}': {message}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
