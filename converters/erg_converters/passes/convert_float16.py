"""fp16 weights and operators, inputs and outputs as they were: half the file, and half the memory traffic on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import PassError
from erg_converters.passes.base import Pass, PassContext
from erg_converters.passes.layers import layers_of, named, prepare
from erg_converters.passes.quiet import quiet, versions
from erg_converters.tables import doc

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Float16Settings:
    """What is converted."""

    keep_layers: tuple[str, ...] = field(default=(), metadata=doc("names or globs of nodes that stay in fp32"))
    keep_operators: tuple[str, ...] = field(
        default=(), metadata=doc("operators that stay in fp32, besides those that have no fp16 form")
    )


class ConvertFloat16(Pass[Float16Settings]):
    """Conversion to half precision by ONNX Runtime's converter, casts at the inputs and outputs.

    Weights below the smallest fp16 number become that, as masks' fill values become the largest. A layer's weight that
    has no fp16 form is refused: the model would not be the same. Mixed precision as in Micikevicius et al.,
    arXiv:1710.03740: what needs the range (normalisation, softmax) is for `keep_operators`.
    """

    name = "convert_float16"
    accepts = frozenset({Format.ONNX})
    gives = Format.ONNX_QUANTIZED
    Settings = Float16Settings
    cites = "https://onnxruntime.ai/docs/performance/model-optimizations/float16.html; arXiv:1710.03740"

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Convert; see `Pass.transform`.

        Raises:
            PassError: a layer's weight is beyond fp16, or a name in keep_layers is none.
        """
        from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415
        from onnxruntime.transformers import float16  # noqa: PLC0415

        model = prepare(artifact.path)
        kept = named(model, self.settings.keep_layers)
        _check_range(model, kept)
        path = context.folder / "model.onnx"
        with quiet():
            result = float16.convert_float_to_float16(
                model,
                keep_io_types=True,
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *self.settings.keep_operators],
                node_block_list=sorted(kept),
            )
        # The casts of the inputs are put behind what reads them.
        ONNXModel(result).topological_sort()
        onnx.save(result, str(path))
        halves = sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in result.graph.initializer)
        if not halves:
            raise PassError("no weight became fp16: everything is kept; leave something out of keep_layers")
        self.figures["weights in fp16"] = f"{halves} of {len(result.graph.initializer)}"
        context.progress(1, 1)
        return path

    def tools(self) -> dict[str, str]:
        """ONNX Runtime, whose converter this is."""
        return versions("onnxruntime", "onnx")


def _check_range(model: onnx.ModelProto, kept: frozenset[str]) -> None:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = {layer.name for layer in layers_of(model)} - kept
    for node in model.graph.node:
        if node.name not in layers:
            continue
        largest = float(np.abs(onnx.numpy_helper.to_array(weights[node.input[1]])).max(initial=0.0))
        if largest > _LARGEST:
            raise PassError(
                f"layer '{node.name}' has a weight of {largest:.3g}, beyond fp16's {_LARGEST:.0f}: add the layer to "
                "keep_layers, or use bf16 (precision of the candidate)"
            )
