"""Checks an ONNX file from a stranger before anything runs it: containment, sizes, functions, operators, soundness."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from erg_server.errors import ErgError
from erg_server.repository.onnx_safety import check_external_data, read_onnx, tensors_of

from erg_converters.errors import SourceError

MAX_CONSTANT_ELEMENTS = 1 << 28
"""A graph may build constants of this many elements by itself: a few bytes of file must not ask for all the memory."""
MAX_NODES = 1_000_000
"""Nodes with every function written out; functions that call functions twice each grow without bound."""

_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_MAKERS = frozenset({"ConstantOfShape", "Expand", "Tile"})
_SHAPED = frozenset({"RandomNormal", "RandomUniform"})

_Key = tuple[str, str]
"""Of a function: its domain and its name."""


def read_checked(path: Path) -> onnx.ModelProto:
    """Read an ONNX model whole, its external data included, and check it.

    Raises:
        SourceError: it is none; its external data leaves the folder; a declared size is not that of the data, or beyond
            bounds; functions call each other in a circle; an operator is not ONNX's own (it is named); or its checker
            refuses the graph, as it does one with a cycle.
    """
    try:
        return _checked(path)
    except SourceError:
        raise
    except ErgError as error:
        raise SourceError(error.message) from error
    except Exception as error:
        # A damaged file has, say, names that are no text, which protobuf hands on as bytes.
        raise SourceError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _checked(path: Path) -> onnx.ModelProto:
    model = read_onnx(path)
    check_external_data(model, path)
    _check_text(model)
    _check_sizes(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise SourceError(f"{path}: its external data cannot be read: {error}") from error
    _check_functions(model, path)
    _check_operators(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        cycle = "; there is a cycle, or the nodes are out of order" if "topolog" in first else ""
        raise SourceError(f"{path}: ONNX's checker refuses it: {first}{cycle}") from error
    _check_inferred(model, path)
    return model


def _check_text(model: onnx.ModelProto) -> None:
    """Raise TypeError where a name is no text in UTF-8; everything after this reads names as text."""
    names: list[object] = [value.name for value in (*model.graph.input, *model.graph.output)]
    names += [tensor.name for tensor in model.graph.initializer]
    for node in _nodes(model):
        names += (node.name, node.op_type, node.domain, *node.input, *node.output)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} is no text")


def _check_sizes(model: onnx.ModelProto, path: Path) -> None:
    external_bytes, files = 0, set()
    for tensor in tensors_of(model):
        where = f"{path}: tensor '{tensor.name or '(unnamed)'}'"
        if any(size < 0 for size in tensor.dims):
            raise SourceError(f"{where} has a negative size: {list(tensor.dims)}")
        declared = _declared_bytes(tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            values = {entry.key: entry.value for entry in tensor.external_data}
            file = path.parent / values["location"]
            held = int(values.get("length") or 0) or file.stat().st_size - int(values.get("offset") or 0)
            external_bytes += held
            files.add(file)
        elif tensor.HasField("raw_data"):
            held = len(tensor.raw_data)
        else:
            _check_elements(tensor, where)
            continue
        if declared is not None and declared != held:
            raise SourceError(f"{where} declares {list(tensor.dims)}, {declared} bytes, and has {held}")
    if external_bytes > 2 * sum(file.stat().st_size for file in files):
        raise SourceError(f"{path}: its tensors read the same external data over and over, {external_bytes} bytes")
    for node, dims in _built(model):
        if math.prod(dims) > MAX_CONSTANT_ELEMENTS:
            raise SourceError(f"{path}: {node} builds a tensor of {dims}; at most {MAX_CONSTANT_ELEMENTS} elements")


def _declared_bytes(tensor: onnx.TensorProto) -> int | None:
    """None for strings, and for a type that the checker is going to refuse."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return None
    elements = math.prod(tensor.dims)
    if tensor.data_type not in onnx.TensorProto.DataType.values() or tensor.data_type == onnx.TensorProto.UNDEFINED:
        return None
    packed = re.fullmatch(r"(?:U?INT|FLOAT)([24])(?:E2M1)?", onnx.TensorProto.DataType.Name(tensor.data_type))
    if packed:
        return (elements * int(packed[1]) + 7) // 8
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _check_elements(tensor: onnx.TensorProto, where: str) -> None:
    """Of data in typed fields, where an entry is a value, half of a complex one, or up to four that are packed."""
    entries = max(
        len(tensor.float_data), len(tensor.int32_data), len(tensor.int64_data), len(tensor.double_data),
        len(tensor.uint64_data), len(tensor.string_data),
    )  # fmt: skip
    if math.prod(tensor.dims) > 4 * entries:
        raise SourceError(f"{where} declares {list(tensor.dims)} and has {entries} values")


def _built(model: onnx.ModelProto) -> Iterator[tuple[str, list[int]]]:
    """What the graph makes of constant shapes: the node, in words, and the shape."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for sparse in model.graph.sparse_initializer:
        yield f"sparse weight '{sparse.values.name}'", list(sparse.dims)
    for node in _nodes(model):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and node.output:
                    constants[node.output[0]] = attribute.t
                if attribute.name == "sparse_value":
                    yield f"Constant '{node.name}'", list(attribute.sparse_tensor.dims)
        elif node.op_type in _SHAPED:
            yield (
                f"{node.op_type} '{node.name}'",
                [size for attribute in node.attribute if attribute.name == "shape" for size in attribute.ints],
            )
        elif node.op_type in _MAKERS and node.input:
            shape = constants.get(node.input[-1])
            small = shape is not None and math.prod(shape.dims) <= 64 and shape.data_type == onnx.TensorProto.INT64
            if shape is not None and small and shape.data_location != onnx.TensorProto.EXTERNAL:
                yield f"{node.op_type} '{node.name}'", [int(size) for size in onnx.numpy_helper.to_array(shape).flat]


def _check_inferred(model: onnx.ModelProto, path: Path) -> None:
    """Bound the tensors whose sizes follow from the file alone, however it computes them: Range, products of shapes."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    graph = light.graph
    # Weights tell their shapes without their values; only small ones are values that shapes are computed from.
    large = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > 64]
    known = {value.name for value in graph.input}
    for tensor in large:
        if tensor.name not in known:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        graph.initializer.remove(tensor)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        # Shapes that contradict each other: the runtime, whose own inference this is not, has the last word.
        return
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        dims = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in value.type.tensor_type.shape.dim]
        if math.prod(dims) > MAX_CONSTANT_ELEMENTS:
            raise SourceError(
                f"{path}: tensor '{value.name}' would have {dims}; at most {MAX_CONSTANT_ELEMENTS} elements a sample"
            )


def _check_functions(model: onnx.ModelProto, path: Path) -> None:
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[_Key, int] = {}
    entered: set[_Key] = set()

    def size_of(key: _Key) -> int:
        if key in sizes:
            return sizes[key]
        if key in entered:
            raise SourceError(f"{path}: function {key[0]}.{key[1]} calls itself, directly or through others")
        entered.add(key)
        sizes[key] = _written_out(_below(functions[key].node), functions, size_of)
        return sizes[key]

    if len(functions) > 10_000:
        raise SourceError(f"{path}: it has {len(functions)} functions; at most 10000")
    try:
        total = _written_out(_below(model.graph.node), functions, size_of)
    except RecursionError:
        raise SourceError(f"{path}: its functions call each other hundreds deep") from None
    if total > MAX_NODES:
        raise SourceError(f"{path}: with its functions written out it has {total:.3g} nodes; at most {MAX_NODES}")


def _written_out(
    nodes: Iterable[onnx.NodeProto],
    functions: Mapping[_Key, onnx.FunctionProto],
    size_of: Callable[[_Key], int],
) -> int:
    keys = ((node.domain, node.op_type) for node in nodes)
    return sum(size_of(key) if key in functions else 1 for key in keys)


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if (node.domain, node.op_type) in own:
            continue
        name = f"{node.domain or 'ai.onnx'}.{node.op_type} (node '{node.name}')"
        if node.domain == "com.microsoft":
            raise SourceError(
                f"{path}: operator {name} is ONNX Runtime's own; start from the model as it was before it was "
                "optimised or quantized"
            )
        if node.domain not in _STANDARD or not onnx.defs.has(
            node.op_type, domain="" if node.domain == "ai.onnx" else node.domain
        ):
            raise SourceError(f"{path}: operator {name} is unknown: only ONNX's own operators are converted")


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _below(model.graph.node)
    for function in model.functions:
        yield from _below(function.node)


def _below(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _below(graph.node)
