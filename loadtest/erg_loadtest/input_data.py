"""What to send, from files: npz, perf_analyzer's JSON, jsonl of text, or a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from erg_loadtest.answers import golden_answer
from erg_loadtest.array_files import json_samples, npz_samples
from erg_loadtest.errors import PlanError
from erg_loadtest.image_data import ImageOptions, image_samples
from erg_loadtest.payloads import Payload, Sample, build_payload
from erg_loadtest.tensors import Array, Signature, matches
from erg_loadtest.text_data import TextOptions, text_samples

_MAX_FILE_BYTES = 1 << 30
_MAX_PREPARED_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScenario:
    """Requests made of a file or a folder."""

    path: Path
    batch_size: int = 1
    text: TextOptions = field(default_factory=TextOptions)
    images: ImageOptions = field(default_factory=ImageOptions)

    def payloads(self, signature: Signature) -> list[Payload]:
        """The prepared requests, each of `batch_size` consecutive samples.

        A sample is one row, without the batch axis: an entry of the JSON's "data", an index of the arrays' first axis,
        a line of text, an image. Raises PlanError that says which of them does not fit, and why.
        """
        path, batch_size = self.path, self.batch_size
        if batch_size < 1 or batch_size > max(1, signature.max_batch_size):
            raise PlanError(
                f"batch size {batch_size}: model '{signature.model}' takes {max(1, signature.max_batch_size)}"
            )
        samples = self._samples(signature)
        if len(samples) < batch_size:
            raise PlanError(f"{path}: holds {len(samples)} samples, fewer than one batch of {batch_size}")
        for sample in samples:
            _check(sample, signature)
        groups = [samples[at : at + batch_size] for at in range(0, len(samples) - batch_size + 1, batch_size)]
        payloads = []
        prepared_bytes = 0
        for group in groups:
            payloads.append(_payload(path, group, signature))
            prepared_bytes += len(payloads[-1].body)
            if prepared_bytes > _MAX_PREPARED_BYTES:
                raise PlanError(f"{path}: makes requests of more than {_MAX_PREPARED_BYTES >> 30} GiB: give less of it")
        return payloads

    def _samples(self, signature: Signature) -> Sequence[Sample]:
        path = self.path
        if path.is_dir():
            return image_samples(path, signature, self.images)
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise PlanError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        match path.suffix:
            case ".npz":
                return npz_samples(path, signature)
            case ".jsonl":
                return text_samples(path, signature, self.text, batch_size=self.batch_size)
            case ".json":
                return json_samples(path, signature)
        raise PlanError(
            f"{path}: data is an .npz, perf_analyzer's .json, a .jsonl of texts or a folder of images, by its name"
        )


def _payload(path: Path, group: Sequence[Sample], signature: Signature) -> Payload:
    inputs = _joined(path, [sample.inputs for sample in group], signature)
    if all(sample.expected is None for sample in group):
        return build_payload(signature, inputs, rows=len(group))
    expected = _joined(path, [sample.expected or {} for sample in group], signature)
    return build_payload(signature, inputs, rows=len(group), expected=golden_answer(signature, expected))


def _joined(path: Path, rows: Sequence[Mapping[str, Array]], signature: Signature) -> Mapping[str, Array]:
    if signature.max_batch_size == 0:
        return rows[0]
    names = rows[0].keys()
    if any(row.keys() != names or any(row[name].shape != rows[0][name].shape for name in names) for row in rows):
        raise PlanError(f"{path}: samples of one batch differ in their tensors or shapes; use batch size 1")
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _check(sample: Sample, signature: Signature) -> None:
    missing = [spec.name for spec in signature.inputs if not spec.optional and spec.name not in sample.inputs]
    if missing:
        raise PlanError(f"{sample.place} lacks {', '.join(missing)}")
    for name, values in sample.inputs.items():
        declared = signature.row_shape(signature.input(name))
        if not matches(values.shape, declared):
            raise PlanError(
                f"{sample.place}.{name} has shape {list(values.shape)}; "
                f"the model takes {list(declared)}, batch axis left out"
            )
