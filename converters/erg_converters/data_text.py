"""Texts, one JSON object a line, tokenized by the model's own tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from erg_converters.data_readers import Raw, chosen
from erg_converters.errors import DataError
from erg_converters.settings import DataSettings
from erg_converters.sources.base import InputSpec

_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def read_jsonl(settings: DataSettings, inputs: Sequence[InputSpec], path: Path, tokenizer: Path) -> Iterator[Raw]:
    """The chosen lines as input_ids, attention_mask and token_type_ids, those of them that the model has.

    Raises:
        DataError: a line is no JSON object with the field, or has no token; the message has its number.
    """
    unknown = [spec.name for spec in inputs if spec.name not in _FIELDS]
    if unknown:
        raise DataError(f"{path}: a tokenizer gives {', '.join(_FIELDS)}; the model has input '{unknown[0]}', too")
    encoder = _tokenizer(tokenizer, settings.max_length)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no text in UTF-8: {error}") from error
    stated = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for index in chosen(len(stated), settings):
        number, line = stated[index]
        name = f"{path.name} line {number}"
        text, label = _parse(line, settings, name)
        encoded = encoder.encode(text)
        if not encoded.ids:
            raise DataError(f"{name}: the tokenizer makes no token of {text!r}")
        feed = {spec.name: np.array([getattr(encoded, _FIELDS[spec.name])], dtype=spec.dtype) for spec in inputs}
        yield Raw(name=name, feed=feed, label=label)


def _parse(line: str, settings: DataSettings, name: str) -> tuple[str, int | None]:
    try:
        item: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if not isinstance(item, dict) or not isinstance(item.get(settings.field), str):
        held = ", ".join(map(str, item)) if isinstance(item, dict) else type(item).__name__
        raise DataError(f"{name}: there is no text '{settings.field}' (field = ...); the line has {held or 'nothing'}")
    text: str = item[settings.field]
    if not text.strip():
        raise DataError(f"{name}: '{settings.field}' is empty")
    if not settings.label_field:
        return text, None
    label = item.get(settings.label_field)
    if type(label) is not int:
        raise DataError(f"{name}: label '{settings.label_field}' is a whole number, not {label!r}")
    return text, label


def _tokenizer(path: Path, max_length: int) -> Tokenizer:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"tokenizer: there is no {file}; name the folder that has tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise DataError(f"{file} is no tokenizer that the tokenizers library reads: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer
