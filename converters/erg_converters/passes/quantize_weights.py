"""Weights in 8 or 4 bits, computation in floating point: smaller, and faster where memory is what a model waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import PassError
from erg_converters.passes.base import ALL_BACKENDS, Pass, PassContext
from erg_converters.passes.layers import at_opset, layers_of, named, prepare, quantized
from erg_converters.passes.promises import opset_of
from erg_converters.passes.quiet import quiet, versions
from erg_converters.tables import doc

_INT4_OPSET = 21
"""The first version of the standard whose DequantizeLinear takes int4 and blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSettings:
    """How weights are stored."""

    bits: Literal[8, 4] = field(default=8, metadata=doc("bits of a weight"))
    tool: Literal["onnxruntime", "nncf"] = field(
        default="onnxruntime",
        metadata=doc(
            "onnxruntime: MatMulNBits, for ONNX Runtime only; nncf: standard operators, embeddings too, for OpenVINO"
        ),
    )
    block_size: int = field(
        default=32, metadata=doc("weights that share a scale; with nncf for 4 bits only, 8 have one a channel", low=16)
    )
    accuracy_level: Literal[0, 1, 4] = field(
        default=4,
        metadata=doc("onnxruntime: what MatMulNBits computes in: 4 int8 activations, 1 fp32, 0 the kernel's choice"),
    )
    keep_layers: tuple[str, ...] = field(
        default=(), metadata=doc("names or globs of layers that stay in floating point")
    )


class QuantizeWeights(Pass[WeightSettings]):
    """Weight-only quantization, round to nearest, symmetric.

    Blocks of weights share one scale, as in GPTQ's and AWQ's grouping (Frantar et al., arXiv:2210.17323; Lin et al.,
    arXiv:2306.00978), without their search. ONNX Runtime's form is MatMulNBits of com.microsoft, NNCF's is
    DequantizeLinear before the operator; for 4 bits that takes opset 21, to which the model is brought.
    """

    name = "quantize_weights"
    accepts = frozenset({Format.ONNX})
    gives = Format.ONNX_ORT
    Settings = WeightSettings
    cites = (
        "https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits; "
        "groups as in GPTQ, arXiv:2210.17323, and AWQ, arXiv:2306.00978"
    )

    def __init__(self, settings: WeightSettings) -> None:
        super().__init__(settings)
        plain = settings.tool == "nncf"
        self.gives = Format.ONNX_QUANTIZED if plain else Format.ONNX_ORT
        # OpenVINO reads MatMulNBits too, and was seen to compute it wrongly (cosine 0.77) where ONNX Runtime did not.
        self.backends = ALL_BACKENDS if plain else frozenset({"onnxruntime"})

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Quantize; see `Pass.transform`.

        Raises:
            PassError: nothing to quantize, or a name in keep_layers that is none.
        """
        model = prepare(artifact.path)
        layers = layers_of(model)
        kept = named(model, self.settings.keep_layers)
        path = context.folder / "model.onnx"
        with quiet():
            by_tool = self._by_nncf if self.settings.tool == "nncf" else self._by_onnxruntime
            result = by_tool(model, kept)
        done = quantized(layers, result)
        if not done:
            raise PassError(
                f"none of {len(layers)} layers was quantized: {self.settings.tool} needs a constant weight"
                + (" of a MatMul" if self.settings.tool == "onnxruntime" else "")
            )
        onnx.save(result, str(path))
        self.figures["layers quantized"] = f"{len(done)} of {len(layers)}"
        context.progress(1, 1)
        return path

    def tools(self) -> dict[str, str]:
        """The quantizer."""
        return versions("onnx", self.settings.tool)

    def _by_onnxruntime(self, model: onnx.ModelProto, kept: frozenset[str]) -> onnx.ModelProto:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415

        quantizer = MatMulNBitsQuantizer(
            model,
            bits=self.settings.bits,
            block_size=self.settings.block_size,
            is_symmetric=True,
            accuracy_level=self.settings.accuracy_level,
            nodes_to_exclude=sorted(kept),
        )
        quantizer.process()
        result: onnx.ModelProto = quantizer.model.model
        return result

    def _by_nncf(self, model: onnx.ModelProto, kept: frozenset[str]) -> onnx.ModelProto:
        import nncf  # noqa: PLC0415

        scope = nncf.IgnoredScope(names=sorted(kept), validate=False)
        if self.settings.bits == 8:
            channels: onnx.ModelProto = nncf.compress_weights(
                model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=scope
            )
            return channels
        if opset_of(model) < _INT4_OPSET:
            # Below it NNCF writes MatMulNBits, and leaves its operator set out of the file.
            model = at_opset(model, _INT4_OPSET)
        blocks: onnx.ModelProto = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=self.settings.block_size,
            ignored_scope=scope,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=16
            ),
        )
        return blocks
