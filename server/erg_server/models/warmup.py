"""What a version must do before it may serve: run its warm-up samples and reproduce its golden answers."""

from __future__ import annotations

import asyncio
import logging
import math

import numpy as np
import numpy.typing as npt

from erg_server.clock import MonotonicClock
from erg_server.datatype import DataType
from erg_server.errors import ErgError, FailedPreconditionError, InvalidArgumentError
from erg_server.models.served_model import ServedModel
from erg_server.repository.layout import contained_path, read_text
from erg_server.repository.repository import ModelDefinition
from erg_server.repository.spec import ModelSpec, TensorSpec, WarmupInput, WarmupSpec
from erg_server.request import InferenceRequest
from erg_server.tensor import Tensor, pack_bytes_elements

log = logging.getLogger(__name__)

UNSTATED_SIZE = 8
"""What a dynamic axis becomes in the sample that is run where the configuration states none."""


async def run_warmup(served: ServedModel, definition: ModelDefinition) -> None:
    """Run the configured warm-up samples; without any, one request of zeros, whose failure is only logged.

    Raises:
        FailedPreconditionError: a configured sample failed.
    """
    workers = max(1, served.live_workers)
    if not served.spec.warmup:
        try:
            await _run(
                served, [zeros(served.spec, tensor) for tensor in served.spec.inputs if not tensor.optional], workers
            )
        except ErgError as error:
            log.info("model %s has no warm-up sample and fails on zeros: %s", served.name, error.message)
        return
    for sample in served.spec.warmup:
        try:
            inputs = await asyncio.to_thread(_sample_inputs, served.spec, sample, definition)
            for _ in range(max(1, sample.count)):
                await _run(served, inputs, workers)
        except (ErgError, OSError) as error:
            raise FailedPreconditionError(
                f"model '{served.name}': warm-up sample '{sample.name}' failed: {error}"
            ) from error


async def check_golden(served: ServedModel, definition: ModelDefinition, version: int) -> None:
    """Compare the version's answers to the golden sample in its manifest, if it has one.

    Raises:
        FailedPreconditionError: an output differs by more than the manifest's tolerance.
    """
    golden = await asyncio.to_thread(definition.golden, version)
    if golden is None:
        return
    request = InferenceRequest(
        model_name=served.name, inputs=list(golden.inputs), arrival_ns=MonotonicClock.now_ns(), warmup=True
    )
    answer = await served.infer(request)
    outputs = {tensor.name: tensor for tensor in answer.outputs}
    for expected in golden.outputs:
        got = outputs.get(expected.name)
        if got is None or (got.datatype, got.shape) != (expected.datatype, expected.shape):
            raise FailedPreconditionError(
                f"model '{served.name}' version {version}: golden output '{expected.name}' should be "
                f"{_told(expected)}, got {'none' if got is None else _told(got)}"
            )
        if got.datatype is DataType.BYTES:
            if bytes(got.data) != bytes(expected.data):
                raise FailedPreconditionError(
                    f"model '{served.name}' version {version} does not reproduce its golden sample: the strings of "
                    f"output '{expected.name}' differ"
                )
            continue
        wanted = _values(expected)
        difference = np.abs(_values(got) - wanted)
        bound = golden.absolute_tolerance + golden.relative_tolerance * np.abs(wanted)
        if not np.all(difference <= bound):
            raise FailedPreconditionError(
                f"model '{served.name}' version {version} does not reproduce its golden sample: output "
                f"'{expected.name}' differs by up to {difference.max():.3g}, allowed {golden.absolute_tolerance:.3g} "
                f"+ {golden.relative_tolerance:.3g} of the value"
            )


def _told(tensor: Tensor) -> str:
    return f"{tensor.datatype.value} {list(tensor.shape)}"


def _values(tensor: Tensor) -> npt.NDArray[np.float64]:
    values = tensor.numpy()
    if tensor.datatype is DataType.BF16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def labels_of(definition: ModelDefinition) -> dict[str, tuple[str, ...]]:
    """Class labels of the outputs that name a label file, one a line; raises ErgError where it cannot be read."""
    labels: dict[str, tuple[str, ...]] = {}
    for output in definition.spec.outputs:
        if output.label_filename:
            path = contained_path(definition.path, output.label_filename)
            labels[output.name] = tuple(read_text(path).splitlines())
    return labels


async def _run(served: ServedModel, inputs: list[Tensor], times: int) -> None:
    """Run the sample once for each worker at the same time, which spreads over them while they are free."""
    now_ns = MonotonicClock.now_ns()
    await asyncio.gather(
        *(
            served.infer(InferenceRequest(model_name=served.name, inputs=list(inputs), arrival_ns=now_ns, warmup=True))
            for _ in range(times)
        )
    )


def _shape(spec: ModelSpec, dims: tuple[int, ...], batch_size: int, length: int = UNSTATED_SIZE) -> tuple[int, ...]:
    sizes = tuple(size if size >= 0 else length for size in dims)
    return (max(1, batch_size), *sizes) if spec.max_batch_size else sizes


def zeros(spec: ModelSpec, tensor: TensorSpec, rows: int = 1, length: int | None = None) -> Tensor:
    """An input of zeros; open axes are of `length`, or of a short one where none is given."""
    shape = _shape(spec, tensor.dims, rows, UNSTATED_SIZE if length is None else length)
    return _filled(tensor.name, tensor.datatype, shape)


def _filled(name: str, datatype: DataType, shape: tuple[int, ...], *, random: bool = False) -> Tensor:
    count = math.prod(shape)
    if datatype is DataType.BYTES:
        return Tensor(name, datatype, shape, pack_bytes_elements([b""] * count))
    if not random:
        return Tensor(name, datatype, shape, bytes(count * datatype.itemsize))
    # Seeded: a warm-up that passes once passes always.
    values = np.random.default_rng(0).integers(0, 2, size=shape)
    return Tensor.from_numpy(name, values.astype(datatype.numpy), datatype)


def _sample_inputs(spec: ModelSpec, sample: WarmupSpec, definition: ModelDefinition) -> list[Tensor]:
    return [_sample_input(spec, sample, name, stated, definition) for name, stated in sample.inputs.items()]


def _sample_input(
    spec: ModelSpec, sample: WarmupSpec, name: str, stated: WarmupInput, definition: ModelDefinition
) -> Tensor:
    shape = _shape(spec, stated.dims, sample.batch_size)
    if not stated.data_file:
        return _filled(name, stated.datatype, shape, random=stated.random)
    data = contained_path(definition.path, f"warmup/{stated.data_file}").read_bytes()
    if spec.max_batch_size:
        data *= shape[0]  # the file holds one row
    needed = math.prod(shape) * stated.datatype.itemsize
    if needed != len(data) and stated.datatype is not DataType.BYTES:
        raise InvalidArgumentError(
            f"{stated.data_file} fills input '{name}' with {len(data)} bytes where {stated.datatype.value} "
            f"{list(shape)} needs {needed}"
        )
    return Tensor(name, stated.datatype, shape, data)
