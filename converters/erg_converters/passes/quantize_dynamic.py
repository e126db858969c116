"""int8 without calibration: weights per channel now, activations per tensor as each call brings them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import PassError
from erg_converters.passes.base import Pass, PassContext
from erg_converters.passes.calibration import calibration_feeds
from erg_converters.passes.layers import GEMM_SUFFIX, layers_of, prepare, quantized
from erg_converters.passes.quiet import quiet, versions
from erg_converters.passes.sensitivity import choose_kept
from erg_converters.tables import doc

_PLAIN = ("MatMul", "Gather")
"""What ONNX Runtime's dynamic quantization turns into operators of the standard, so that other backends have them."""
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSettings:
    """How dynamic quantization is done."""

    op_types: tuple[str, ...] = field(
        default=(),
        metadata=doc(
            "operators to quantize, of MatMul (with Gemm) and Gather; empty: both, and no convolutions allowed"
        ),
    )
    reduce_range: bool = field(
        default=False, metadata=doc("weights of 7 bits, for CPUs without VNNI, whose int8 sums saturate")
    )
    keep_layers: tuple[str, ...] = field(
        default=(), metadata=doc("names or globs of layers that stay in floating point")
    )
    sensitivity_target: float = field(
        default=0.0,
        metadata=doc(
            "keep as few further layers as reach this mean cosine on calibration data; 0: off", low=0, high=0.999999
        ),
    )


class QuantizeDynamic(Pass[DynamicSettings]):
    """ONNX Runtime's dynamic quantization with signed weights per channel (int8 weights, uint8 activations).

    Weights are stored in int8 with one scale per output channel; the range of each activation is found at run time
    (DynamicQuantizeLinear, MatMulInteger). For models of MatMuls: at convolutions it is slower than fp32 (0.2 to 0.7
    of its speed on the CPU where it was measured), because their activations are large and read once.
    """

    name = "quantize_dynamic"
    accepts = frozenset({Format.ONNX})
    gives = Format.ONNX_QUANTIZED
    Settings = DynamicSettings
    cites = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#dynamic-quantization"

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Quantize; see `Pass.transform`.

        Raises:
            PassError: the model has convolutions, an operator is not among those known, or there is nothing to do.
        """
        model = prepare(artifact.path)
        self._check_operators(model)
        path = context.folder / "model.onnx"
        with quiet():
            feeds = calibration_feeds(context, model, 0) if self.settings.sensitivity_target else []
            kept = choose_kept(
                model,
                self.settings,
                feeds,
                lambda names, _feeds, tried: self._quantize(model, names, tried),
                context=context,
                figures=self.figures,
            )
            self._quantize(model, kept, path)
        layers = layers_of(model)
        done = quantized(layers, onnx.load(str(path)))
        if not done:
            raise PassError(f"none of {len(layers)} layers is a MatMul with a constant weight: use quantize_static")
        self.figures["layers quantized"] = f"{len(done)} of {len(layers)}"
        context.progress(1, 1)
        return path

    def tools(self) -> dict[str, str]:
        """ONNX Runtime, whose quantizer this is."""
        return versions("onnxruntime", "onnx")

    def _check_operators(self, model: onnx.ModelProto) -> None:
        stated = self.settings.op_types
        if refused := sorted(_CONVOLUTIONS & set(stated)):
            raise PassError(f"op_types has {refused[0]}: dynamic never for convolutions; use quantize_static")
        if unknown := [name for name in stated if name not in _PLAIN]:
            raise PassError(f"op_types has '{unknown[0]}'; dynamic quantization here is of {' and '.join(_PLAIN)}")
        found = sum(node.op_type in _CONVOLUTIONS for node in model.graph.node)
        if found and not stated:
            raise PassError(
                f"dynamic never for convolutions, and the model has {found}: it would be slower than fp32; use "
                'quantize_static, or state op_types = ["MatMul"] to quantize only what is not convolution'
            )

    def _quantize(self, model: onnx.ModelProto, kept: frozenset[str], path: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantize_dynamic(
            copy,
            path,
            op_types_to_quantize=list(self.settings.op_types or _PLAIN),
            per_channel=True,
            reduce_range=self.settings.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(kept | {name + GEMM_SUFFIX for name in kept}),
            # What a tensor is whose type shape inference does not find, as in graphs with operators it does not know.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
