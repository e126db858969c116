"""Texts as a model's inputs: tokenized as the model was trained, or as they are where it takes strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Sample
from erg_loadtest.tensors import Array, InputSpec, Signature, numpy_dtype

_DEFAULT_MAX_LENGTH = 512
_PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """How lines of a .jsonl become tensors."""

    tokenizer: Path | None = None
    """A `tokenizer.json`, or the folder that has it; None for models that take strings."""
    field: str = "text"
    max_length: int | None = None
    """Tokens kept of a text; the tokenizer's own limit, or 512, when None."""

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise PlanError(f"--max-length must be at least 1, not {self.max_length}")


def text_samples(path: Path, signature: Signature, options: TextOptions, *, batch_size: int = 1) -> list[Sample]:
    """One sample a line. Texts that will share a batch are padded to the longest of them, as a tokenizer's batch is."""
    texts = read_texts(path, options.field)
    strings = [spec for spec in signature.inputs if spec.datatype == "BYTES" and not spec.optional]
    if len(strings) == 1 and options.tokenizer is None:
        return [
            Sample(place=place, inputs={strings[0].name: _string(signature, strings[0], text)}) for place, text in texts
        ]
    if options.tokenizer is None:
        raise PlanError(
            f"model '{signature.model}' takes {', '.join(spec.name for spec in signature.inputs)}, not one string: "
            "give --tokenizer, the folder of its tokenizer.json"
        )
    roles = {spec.name: _role(signature, spec) for spec in signature.inputs}
    encoder = _Encoder(options.tokenizer, options.max_length, _fixed_length(signature))
    samples: list[Sample] = []
    for at in range(0, len(texts), batch_size):
        group = texts[at : at + batch_size]
        rows = encoder.rows([text for _, text in group])
        for (place, _), row in zip(group, rows, strict=True):
            inputs = {
                spec.name: _ranked(signature, spec, np.array(row[roles[spec.name]], dtype=numpy_dtype(spec.datatype)))
                for spec in signature.inputs
            }
            samples.append(Sample(place=place, inputs=inputs))
    return samples


def read_texts(path: Path, field: str) -> list[tuple[str, str]]:
    """The texts of a .jsonl with their places: of objects the field, of strings the whole; empty lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None
    texts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{place}: not a line of JSON ({error})") from None
        text = value.get(field) if isinstance(value, dict) else value
        if not isinstance(text, str):
            found = f"it has {', '.join(map(str, value))[:80]}" if isinstance(value, dict) else "give one a line"
            raise PlanError(f"{place}: no text in '{field}': {found}; say which by --text-field")
        # JSON may write half of a surrogate pair, which no protocol of UTF-8 carries.
        texts.append((place, text.encode("utf-8", "replace").decode()))
    if not texts:
        raise PlanError(f"{path}: holds no text")
    return texts


class _Encoder:
    """A tokenizer with the model's length."""

    def __init__(self, path: Path, max_length: int | None, fixed_length: int | None) -> None:
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415 - an extra
        except ImportError:
            raise PlanError("--tokenizer needs a library: pip install 'erg[loadtest]'") from None
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise PlanError(f"{file}: not a tokenizer.json ({error})") from None
        own = self._tokenizer.truncation or {}
        limit = max_length or own.get("max_length") or _DEFAULT_MAX_LENGTH
        self._fixed_length = fixed_length
        self._tokenizer.enable_truncation(limit if fixed_length is None else min(limit, fixed_length))
        padding = self._tokenizer.padding or {}
        found = (self._tokenizer.token_to_id(token) for token in _PAD_TOKENS)
        self._pad_id = padding.get("pad_id", next((number for number in found if number is not None), 0))
        self._tokenizer.no_padding()

    def rows(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """The texts' tokens, padded to one length."""
        encodings = self._tokenizer.encode_batch(list(texts))
        length = self._fixed_length or max(1, *(len(encoding.ids) for encoding in encodings), 1)
        return [
            {
                "ids": _padded(encoding.ids, length, self._pad_id),
                "mask": _padded(encoding.attention_mask, length, 0),
                "types": _padded(encoding.type_ids, length, 0),
                "positions": list(range(length)),
            }
            for encoding in encodings
        ]


def _padded(values: Sequence[int], length: int, filler: int) -> list[int]:
    return [*values, *([filler] * (length - len(values)))]


_ROLES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("mask", lambda name: "mask" in name),
    ("types", lambda name: "type" in name or "segment" in name),
    ("positions", lambda name: "position" in name),
    ("ids", lambda name: "ids" in name or "token" in name),
)
"""Tokenizer outputs by a model's input names: input_ids, attention_mask, token_type_ids, position_ids and their kin."""


def _role(signature: Signature, spec: InputSpec) -> str:
    name = spec.name.lower()
    if spec.datatype in {"INT32", "INT64", "UINT32", "UINT64"} or "mask" in name:
        for role, matched in _ROLES:
            if matched(name):
                return role
    raise PlanError(
        f"input '{spec.name}' ({spec.datatype}) of model '{signature.model}' is none that a tokenizer gives: "
        "input_ids, attention_mask, token_type_ids or position_ids"
    )


def _fixed_length(signature: Signature) -> int | None:
    lengths = {spec.shape[-1] for spec in signature.inputs if spec.shape} - {-1}
    if len(lengths) > 1:
        raise PlanError(f"model '{signature.model}' has inputs of {sorted(lengths)} tokens: they must agree")
    return lengths.pop() if lengths else None


def _string(signature: Signature, spec: InputSpec, text: str) -> Array:
    values = np.empty((), dtype=object)
    values[()] = text
    return values.reshape((1,) * len(signature.row_shape(spec)))


def _ranked(signature: Signature, spec: InputSpec, row: Array) -> Array:
    # Where no batch axis is known, one axis more than tokens have is one all the same.
    return row.reshape((1,) * (len(signature.row_shape(spec)) - row.ndim) + row.shape)
