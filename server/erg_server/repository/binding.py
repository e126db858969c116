"""Fills a protobuf message from a parsed document and collects every fault on the way, not only the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from erg_server.repository.notation import Entry, Many, Node, Table, Value, Word
from erg_server.repository.problem import Problem, did_you_mean

Notation = Literal["pbtxt", "toml", "json"]

_INTEGER_RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_MAX_FLOAT32 = 3.4028234663852886e38
_BOOLEANS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
# The names by which requests call the types, where adding TYPE_ does not make the configuration's.
_ALIASES = {"BYTES": "TYPE_STRING", "FLOAT": "TYPE_FP32", "DOUBLE": "TYPE_FP64", "HALF": "TYPE_FP16"}


class Binder:
    """Binds one document. `problems` and `lines` (of every key given, by its path) are its result."""

    def __init__(self, path: str, notation: Notation) -> None:
        self._path = path
        self._notation = notation
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}

    def bind(self, table: Table, message: Message, key: str = "") -> None:
        """Set the fields of `message` that `table` names."""
        # protobuf's stubs name its C descriptors beside the class that stands for both.
        descriptor = cast("Descriptor", message.DESCRIPTOR)
        seen: dict[str, str] = {}
        for entry in table.entries:
            field = self._field(descriptor, entry.key)
            here = f"{key}.{entry.key}" if key else entry.key
            if field is None:
                allowed = [each.name for each in descriptor.fields]
                self._add(entry.line, here, "unknown key", did_you_mean(entry.key, allowed))
                continue
            here = f"{key}.{field.name}" if key else field.name
            choice = field.containing_oneof.name if field.containing_oneof else field.name
            if not field.is_repeated and choice in seen:
                twice = seen[choice] == field.name
                self._add(entry.line, here, "given twice" if twice else f"cannot be given beside '{seen[choice]}'")
                continue
            seen[choice] = field.name
            self.lines.setdefault(here, entry.line)
            if _is_map(field):
                self._map(entry, field, message, here)
            elif field.is_repeated:
                self._repeated(entry.node, field, message, here)
            else:
                self._single(entry.node, field, message, here)

    def _field(self, descriptor: Descriptor, name: str) -> FieldDescriptor | None:
        field = descriptor.fields_by_name.get(name)
        if field is None and self._notation == "json":
            field = descriptor.fields_by_camelcase_name.get(name)
        return field

    def _single(self, node: Node, field: FieldDescriptor, message: Message, key: str) -> None:
        if field.message_type is None:
            value = self._scalar(node, field, key)
            if value is not None:
                setattr(message, field.name, value)
        elif isinstance(node, Table):
            child: Message = getattr(message, field.name)
            child.SetInParent()
            self.bind(node, child, key)
        else:
            self._wrong_type(node, key, "a block { … }")

    def _repeated(self, node: Node, field: FieldDescriptor, message: Message, key: str) -> None:
        target = getattr(message, field.name)
        for item in node.items if isinstance(node, Many) else (node,):
            here = f"{key}[{len(target)}]"
            self.lines.setdefault(here, item.line)
            if field.message_type is None:
                value = self._scalar(item, field, here)
                if value is not None:
                    target.append(value)
            elif isinstance(item, Table):
                self.bind(item, target.add(), here)
            else:
                self._wrong_type(item, here, "a block { … }")

    def _map(self, entry: Entry, field: FieldDescriptor, message: Message, key: str) -> None:
        """Read a map as the text format writes it, entries of `key` and `value`, or as a table of its own."""
        nodes = entry.node.items if isinstance(entry.node, Many) else (entry.node,)
        for node in nodes:
            if not isinstance(node, Table):
                self._wrong_type(node, key, "a table")
            elif self._notation == "pbtxt":
                self._map_pair(node, field, message, key)
            else:
                for each in node.entries:
                    self._map_entry(Value(each.key, each.line), each.node, field, message, key)

    def _map_pair(self, table: Table, field: FieldDescriptor, message: Message, key: str) -> None:
        parts: dict[str, Node] = {}
        for each in table.entries:
            if each.key not in ("key", "value"):
                self._add(each.line, f"{key}.{each.key}", "unknown key", did_you_mean(each.key, ["key", "value"]))
            elif each.key in parts:
                self._add(each.line, f"{key}.{each.key}", "given twice")
            parts[each.key] = each.node
        name = parts.get("key")
        if isinstance(name, Value):
            self._map_entry(name, parts.get("value"), field, message, key)
        elif name is None:
            self._add(table.line, key, "the entry has no 'key'")
        else:
            self._wrong_type(name, f"{key}.key", "a plain value")

    def _map_entry(self, name: Value, value: Node | None, field: FieldDescriptor, message: Message, key: str) -> None:
        assert field.message_type is not None
        key_field = field.message_type.fields_by_name["key"]
        value_field = field.message_type.fields_by_name["value"]
        target = getattr(message, field.name)
        if self._notation != "pbtxt" and key_field.cpp_type in _INTEGER_RANGES:
            # The keys of a TOML or JSON table are strings.
            name = Value(_integer_or_text(str(name.value)), name.line)
        bound = self._scalar(name, key_field, key)
        if bound is None:
            return
        here = f"{key}.{bound}"
        self.lines.setdefault(here, name.line)
        if bound in target:
            self._add(name.line, here, "given twice")
            return
        if value_field.message_type is None:
            scalar = "" if value is None else self._scalar(value, value_field, here)
            if scalar is not None:
                target[bound] = scalar
            return
        child = target[bound]
        if isinstance(value, Table):
            self.bind(value, child, here)
        elif isinstance(value, Value) and isinstance(value.value, str) and _holds_text(value_field.message_type):
            # `name = "value"` in TOML for { key: "name" value: { string_value: "value" } }.
            child.string_value = value.value
        elif value is not None:
            self._wrong_type(value, here, "a block { … }")

    def _scalar(self, node: Node, field: FieldDescriptor, key: str) -> str | int | float | bool | None:
        """The field's value, or None after noting why there is none."""
        if not isinstance(node, Value):
            self._wrong_type(node, key, "one value, not several" if isinstance(node, Many) else "a plain value")
            return None
        if field.enum_type is not None:
            return self._enum(node, field.enum_type, key)
        kind = field.cpp_type
        if kind in _INTEGER_RANGES:
            return self._integer(node, _INTEGER_RANGES[kind], key)
        if kind in _FLOATS:
            return self._float(node, kind, key)
        return self._boolean(node, key) if kind == FieldDescriptor.CPPTYPE_BOOL else self._string(node, key)

    def _string(self, node: Value, key: str) -> str | None:
        if isinstance(node.value, str) and not isinstance(node.value, Word):
            return node.value
        self._wrong_type(node, key, "a quoted string")
        return None

    def _boolean(self, node: Value, key: str) -> bool | None:
        value = node.value
        if isinstance(value, bool):
            return value
        # The text format has more ways to say it than the others.
        if self._notation == "pbtxt" and not (isinstance(value, str) and not isinstance(value, Word)):
            boolean = _BOOLEANS.get(str(value))
            if boolean is not None:
                return boolean
        self._wrong_type(node, key, "true or false")
        return None

    def _float(self, node: Value, kind: int, key: str) -> float | None:
        value = node.value
        if isinstance(value, str | bool):
            self._wrong_type(node, key, "a number")
            return None
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        overflows = kind == FieldDescriptor.CPPTYPE_FLOAT and abs(number) > _MAX_FLOAT32
        if overflows and math.isfinite(number):
            self._add(node.line, key, f"{value} does not fit a 32-bit float")
            return None
        return number

    def _integer(self, node: Value, bounds: tuple[int, int], key: str) -> int | None:
        value = node.value
        if self._notation == "json" and isinstance(value, str):
            # JSON writes 64-bit integers as strings.
            value = _integer_or_text(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong_type(node, key, "an integer")
            return None
        low, high = bounds
        if not low <= value <= high:
            self._add(node.line, key, f"{value} is out of range", f"allowed: {low} to {high}")
            return None
        return value

    def _enum(self, node: Value, enum: EnumDescriptor, key: str) -> int | None:
        names: Sequence[str] = [each.name for each in enum.values]
        if isinstance(node.value, str) and node.value in enum.values_by_name:
            return enum.values_by_name[node.value].number
        if type(node.value) is int and node.value in enum.values_by_number:
            return node.value
        text = str(node.value)
        alias = _ALIASES.get(text.upper())
        hint = f"did you mean '{alias}'?" if alias in names else did_you_mean(text, names)
        self._add(node.line, key, f"{node.describe()} is not a value of {enum.name}", hint)
        return None

    def _wrong_type(self, node: Node, key: str, expected: str) -> None:
        self._add(node.line, key, f"expected {expected}, got {node.describe()}")

    def _add(self, line: int, key: str, message: str, suggestion: str = "") -> None:
        self.problems.append(Problem(path=self._path, line=line, key=key, message=message, suggestion=suggestion))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _holds_text(message: Descriptor) -> bool:
    return [each.name for each in message.fields] == ["string_value"]


def _integer_or_text(text: str) -> int | str:
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 30 else text
