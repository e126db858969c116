"""The layers of an ONNX graph whose weights can be quantized, and the graph made ready for the tools that do it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from erg_server.repository.onnx_safety import read_onnx

from erg_converters.errors import PassError
from erg_converters.passes.promises import CANONICAL_OPSET, opset_of

OPERATORS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
GEMM_SUFFIX = "_MatMul"
"""What ONNX Runtime's dynamic quantizer adds to the name of a Gemm, which it first takes apart into MatMul and Add."""
_PER_CHANNEL_OPSET = 13
"""From here on QuantizeLinear has an axis, so that a weight may have one scale for each of its channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator with a constant weight. `macs_per_output` is multiplications for each element that it gives."""

    name: str
    operator: str
    reads: str
    gives: str
    macs_per_output: int


def prepare(path: Path) -> onnx.ModelProto:
    """Read a model for quantization: every node named, once; constants among the weights; per-channel scales possible.

    Raises:
        ErgError: it is no sound ONNX file.
        PassError: its opset has no per-channel scales and ONNX's converter does not bring it to one that has.
    """
    model = read_onnx(path)
    if opset_of(model) < _PER_CHANNEL_OPSET:
        model = at_opset(model, CANONICAL_OPSET)
    _constants_to_weights(model.graph)
    _forget_weight_types(model.graph)
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"
        taken.add(node.name)
    return model


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a newer version of the standard operators; raises PassError where ONNX has no way there."""
    try:
        return onnx.version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PassError(
            f"the model is at opset {opset_of(model)} and ONNX's converter does not bring it to {opset}: {words}; "
            f"export it at opset {opset}"
        ) from error


def layers_of(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """The layers in the graph's order."""
    shapes = {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    return tuple(
        Layer(
            name=node.name,
            operator=node.op_type,
            reads=node.input[0],
            gives=node.output[0],
            macs_per_output=_macs_per_output(node, shapes[node.input[1]]),
        )
        for node in model.graph.node
        if node.op_type in OPERATORS and node.input[1] in shapes
    )


def named(model: onnx.ModelProto, patterns: Sequence[str]) -> frozenset[str]:
    """The nodes that `patterns` (names, or globs such as `*attention*`) name.

    Raises:
        PassError: a pattern names none.
    """
    names = [node.name for node in model.graph.node]
    found: set[str] = set()
    for pattern in patterns:
        hits = fnmatch.filter(names, pattern) or [name for name in names if name == pattern]
        if not hits:
            layers = [layer.name for layer in layers_of(model)]
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5) or layers[:3]
            raise PassError(
                f"keep_layers: no node is called '{pattern}'; there are {len(layers)} layers"
                + (f", among the names are {', '.join(close)}" if close else "")
            )
        found.update(hits)
    return frozenset(found)


def has_attention(model: onnx.ModelProto) -> bool:
    """Whether a MatMul takes what a Softmax gives: attention, as plain operators have it."""
    softmaxes = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    return any(node.op_type == "MatMul" and softmaxes & set(node.input) for node in model.graph.node)


def quantized(layers: Iterable[Layer], result: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the layers that `result` computes in less: replaced, or with a weight that is dequantized."""
    nodes = {node.name: node for node in result.graph.node}
    dequantized = {node.output[0] for node in result.graph.node if node.op_type == "DequantizeLinear"}

    def less(name: str) -> bool:
        node = nodes.get(name) or nodes.get(name + GEMM_SUFFIX)
        return node is None or (len(node.input) > 1 and node.input[1] in dequantized)

    return tuple(layer.name for layer in layers if less(layer.name))


def _macs_per_output(node: onnx.NodeProto, weight: Sequence[int]) -> int:
    """Elements of the weight that go into one element of the output."""
    size = 1
    for dim in weight:
        size *= dim
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    channels = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if transposed else 1}.get(node.op_type, -1)
    return max(1, size // max(1, weight[channels] if weight else 1))


def _constants_to_weights(graph: onnx.GraphProto) -> None:
    """The tools look for weights among the initializers; older exporters leave them in Constant nodes."""
    kept = []
    for node in graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or value is None:
            kept.append(node)
            continue
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
    if len(kept) < len(graph.node):
        # Copied first: the list below gives up the nodes that it holds.
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)


def _forget_weight_types(graph: onnx.GraphProto) -> None:
    """Exporters state a weight's type among the intermediate values too, where a tool that changes it forgets it."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.value_info if v.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(kept)
