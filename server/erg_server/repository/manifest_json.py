"""Frozen dataclasses to JSON and back, checked: every key known, every value of its field's type."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor, count_bytes_elements

_T = TypeVar("_T")


class ManifestFormatError(ValueError):
    """The JSON is not the dataclass's; the message names the key."""


def encode(value: Any) -> str:
    """The dataclass as indented JSON, keys in the order of its fields."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode(text: str, kind: type[_T], format_version: int) -> _T:
    """Read a dataclass of `kind`; raises ManifestFormatError for anything that it does not declare."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ManifestFormatError(f"not valid JSON: {error}") from None
    found = document.get("format_version") if isinstance(document, dict) else None
    if found != format_version:
        raise ManifestFormatError(f"format_version is {found!r}; this Erg reads {format_version}")
    result: _T = _read(document, kind, "")
    return result


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, Tensor):
        data = base64.b64encode(value.data).decode("ascii")
        return {"name": value.name, "datatype": value.datatype.value, "shape": list(value.shape), "data": data}
    if dataclasses.is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def _read(value: Any, kind: Any, key: str) -> Any:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _read(value, next(each for each in arguments if each is not type(None)), key)
    if origin is typing.Literal:
        if value not in arguments:
            raise ManifestFormatError(f"{key} is {value!r}; allowed: {', '.join(map(str, arguments))}")
        return value
    if origin is not None:
        return _read_collection(value, origin, arguments, key)
    if kind is Tensor:
        return _read_tensor(value, key)
    return _read_dataclass(value, kind, key) if dataclasses.is_dataclass(kind) else _read_scalar(value, kind, key)


def _read_collection(value: Any, origin: Any, arguments: tuple[Any, ...], key: str) -> Any:
    """A tuple of one type, or a mapping from names: no other generic is in use."""
    if origin is tuple:
        if not isinstance(value, list):
            raise ManifestFormatError(f"{key} should be a list")
        return tuple(_read(each, arguments[0], f"{key}[{index}]") for index, each in enumerate(value))
    if not isinstance(value, dict):
        raise ManifestFormatError(f"{key} should be an object")
    return types.MappingProxyType({name: _read(each, arguments[1], f"{key}.{name}") for name, each in value.items()})


def _read_scalar(value: Any, kind: type, key: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise ManifestFormatError(f"{key} should be {kind.__name__}, got {value!r:.100}")
    return value


def _read_dataclass(value: Any, kind: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise ManifestFormatError(f"{key or 'the manifest'} should be an object")
    fields = {each.name: each for each in dataclasses.fields(kind)}
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            raise ManifestFormatError(f"unknown key '{prefix}{name}'; allowed: {', '.join(fields)}")
    for name, each in fields.items():
        required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ManifestFormatError(f"'{prefix}{name}' is missing")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _read(each, hints[name], f"{prefix}{name}") for name, each in value.items()})


def _read_tensor(value: Any, key: str) -> Tensor:
    if not isinstance(value, dict) or set(value) != {"name", "datatype", "shape", "data"}:
        raise ManifestFormatError(f"{key} should be a tensor: name, datatype, shape, data")
    name = _read(value["name"], str, f"{key}.name")
    shape = _read(value["shape"], tuple[int, ...], f"{key}.shape")
    try:
        datatype = DataType.parse(_read(value["datatype"], str, f"{key}.datatype"))
        data = base64.b64decode(_read(value["data"], str, f"{key}.data"), validate=True)
        count = count_bytes_elements(data) if datatype is DataType.BYTES else len(data) / datatype.itemsize
    except (InvalidArgumentError, binascii.Error) as error:
        raise ManifestFormatError(f"{key}: {error}") from None
    if any(size < 0 for size in shape) or math.prod(shape) != count:
        raise ManifestFormatError(f"{key} has data for {count:g} elements, its shape {list(shape)} another number")
    return Tensor(name, datatype, shape, data)
