"""Reads ONNX files without trusting them: tensor data outside a file may lie only in its own version's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.repository.layout import contained_path, open_plain

_EMBEDDED = 1


def read_onnx(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file, its external data unread.

    Raises:
        InvalidArgumentError: it is no ONNX file.
        NotFoundError: nothing is there.
    """
    with open_plain(path) as file:
        data = file.read()
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise InvalidArgumentError(f"{path} is not an ONNX model") from None
    if not model.HasField("graph"):
        raise InvalidArgumentError(f"{path} is not an ONNX model: it has no graph")
    return model


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Check every reference that the model at `path` makes to another file.

    Raises:
        InvalidArgumentError: one leads out of the model's folder, through a link, to a file that has other names, or
            past the file's end.
    """
    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            _check_tensor(tensor, path)
    for node in _nodes_of(model):
        if node.op_type == "EPContext":
            _check_context(node, path)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: initializers, sparse ones, attributes, subgraphs, functions and training graphs."""
    for graph in _graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes_of(model):
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse_tensors = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for sparse in [*sparse_tensors, *attribute.sparse_tensors]:
        yield from (sparse.values, sparse.indices)


def _graphs_of(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    waiting: list[onnx.GraphProto] = [model.graph]
    for training in model.training_info:
        waiting += [training.initialization, training.algorithm]
    for function in model.functions:
        waiting += _subgraphs(list(function.node), list(function.attribute_proto))
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += _subgraphs(list(graph.node), [])


def _nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs_of(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _subgraphs(nodes: list[onnx.NodeProto], attributes: list[onnx.AttributeProto]) -> list[onnx.GraphProto]:
    found: list[onnx.GraphProto] = []
    for attribute in [*attributes, *(each for node in nodes for each in node.attribute)]:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found += attribute.graphs
    return found


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    name = tensor.name or "(unnamed)"
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    values = dict(entries)
    if len(values) != len(entries):
        raise InvalidArgumentError(f"{path}: tensor '{name}' gives a property of its external data twice")
    size = _contained_file(values.get("location", ""), path, f"tensor '{name}'")
    try:
        offset, length = (int(values.get(key) or 0) for key in ("offset", "length"))
    except ValueError:
        raise InvalidArgumentError(f"{path}: tensor '{name}' has an offset or length that is no number") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise InvalidArgumentError(
            f"{path}: tensor '{name}' wants bytes {offset} to {offset + length} of a file that has {size}"
        )


def _check_context(node: onnx.NodeProto, path: Path) -> None:
    """A compiled engine that an execution provider loads from a file beside the model."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    embedded = attributes["embed_mode"].i if "embed_mode" in attributes else _EMBEDDED
    if embedded != _EMBEDDED:
        location = attributes["ep_cache_context"].s if "ep_cache_context" in attributes else b""
        _contained_file(location.decode("utf-8", "replace"), path, f"node '{node.name}'")


def _contained_file(location: str, path: Path, owner: str) -> int:
    """The size of a file in the model's folder; raises InvalidArgumentError where it is not plainly that."""
    try:
        # Opened, not only looked at: what is checked is then a plain file, whatever the path's last part was.
        with open_plain(contained_path(path.parent, location)) as file:
            status = os.fstat(file.fileno())
    except ErgError as error:
        raise InvalidArgumentError(f"{path}: external data of {owner}: {error.message}") from None
    if status.st_nlink != 1:
        raise InvalidArgumentError(
            f"{path}: external data of {owner}: '{location}' is one of {status.st_nlink} names of its file, "
            "which may belong to somebody else; copy it instead of linking it"
        )
    return status.st_size
