"""int8 with calibration: weights and activations with ranges found beforehand, written as QDQ pairs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnx

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import PassError
from erg_converters.passes.base import Pass, PassContext
from erg_converters.passes.calibration import Counted, calibration_feeds, padded
from erg_converters.passes.layers import OPERATORS, has_attention, layers_of, prepare, quantized
from erg_converters.passes.quiet import quiet, versions
from erg_converters.passes.sensitivity import choose_kept
from erg_converters.tables import doc

if TYPE_CHECKING:
    from erg_converters.sources.base import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSettings:
    """How static quantization is done. Keys of one tool mean nothing to the other."""

    tool: Literal["nncf", "onnxruntime"] = field(
        default="nncf",
        metadata=doc("nncf: best for transformers and OpenVINO; onnxruntime: QDQ U8 x S8, best for convolutions"),
    )
    preset: Literal["mixed", "performance"] = field(
        default="mixed",
        metadata=doc("nncf: asymmetric activations (mixed), or all symmetric (performance), as TensorRT wants them"),
    )
    model_type: Literal["auto", "transformer", "none"] = field(
        default="auto", metadata=doc("nncf: treat as a transformer; auto: where attention is found in the graph")
    )
    smooth_quant_alpha: float = field(
        default=0.85,
        metadata=doc("nncf: share of activations' outliers that goes into the weights; -1: off", low=-1, high=1),
    )
    fast_bias_correction: bool = field(
        default=True, metadata=doc("nncf: false is slower, said to be more accurate, and fails on some graphs")
    )
    method: Literal["minmax", "entropy", "percentile"] = field(
        default="minmax", metadata=doc("onnxruntime: how a range comes out of the calibration samples")
    )
    percentile: float = field(
        default=99.99,
        metadata=doc("onnxruntime, method percentile: share of values inside the range", low=50, high=100),
    )
    subset_size: int = field(default=0, metadata=doc("calibration samples to use; 0: all", low=0))
    keep_layers: tuple[str, ...] = field(
        default=(), metadata=doc("names or globs of layers that stay in floating point")
    )
    sensitivity_target: float = field(
        default=0.0,
        metadata=doc(
            "keep as few further layers as reach this mean cosine on calibration data; 0: off", low=0, high=0.999999
        ),
    )


class QuantizeStatic(Pass[StaticSettings]):
    """Post-training quantization to int8 QDQ by NNCF or ONNX Runtime.

    NNCF moves activations' outliers into the weights first (SmoothQuant, Xiao et al., arXiv:2211.10438) and corrects
    biases (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721).
    ONNX Runtime's way is uint8 activations and int8 weights per channel, the combination that its x86 kernels are fast
    at (its quantization guide); with entropy, ranges are chosen as in Migacz, "8-bit Inference with TensorRT" (2017).
    """

    name = "quantize_static"
    accepts = frozenset({Format.ONNX})
    gives = Format.ONNX_QUANTIZED
    Settings = StaticSettings
    needs_calibration = True
    cites = (
        "SmoothQuant, arXiv:2211.10438; bias correction, arXiv:1906.04721; "
        "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
    )

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Quantize; see `Pass.transform`.

        Raises:
            PassError: nothing to quantize, a name in keep_layers that is none, or a target out of reach.
            DataError: calibration samples that do not fit the model.
        """
        path = context.folder / "model.onnx"
        with quiet():
            model = prepare(artifact.path)
            if self.settings.tool == "onnxruntime":
                model = _preprocessed(model, context.folder)
            feeds = calibration_feeds(context, model, self.settings.subset_size)
            if self.settings.tool == "onnxruntime" and self.settings.method != "minmax":
                # Histograms want all samples of one shape.
                feeds = padded(feeds, {spec.name: spec.pad_value for spec in context.inputs})

            def quantize(kept: frozenset[str], samples: Sequence[Feed], file: Path) -> None:
                self._quantize(model, kept, Counted(samples, lambda _done, _total: None), file)

            kept = choose_kept(model, self.settings, feeds, quantize, context=context, figures=self.figures)
            self._quantize(model, kept, Counted(feeds, context.progress), path)
        layers = layers_of(model)
        done = quantized(layers, onnx.load(str(path)))
        if not done:
            raise PassError(f"{self.settings.tool} quantized none of {len(layers)} layers; try the other tool")
        self.figures["layers quantized"] = f"{len(done)} of {len(layers)}"
        self.figures["calibration samples"] = str(len(feeds))
        return path

    def tools(self) -> dict[str, str]:
        """The quantizer, and ONNX Runtime, which computes the ranges for both."""
        return versions("onnxruntime", "onnx", *(["nncf"] if self.settings.tool == "nncf" else []))

    def _quantize(self, model: onnx.ModelProto, kept: frozenset[str], feeds: Counted, path: Path) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        if self.settings.tool == "nncf":
            self._by_nncf(copy, kept, feeds, path)
        else:
            self._by_onnxruntime(copy, kept, feeds, path)

    def _by_nncf(self, model: onnx.ModelProto, kept: frozenset[str], feeds: Counted, path: Path) -> None:
        import nncf  # noqa: PLC0415

        stated = self.settings
        transformer = stated.model_type == "transformer" or (stated.model_type == "auto" and has_attention(model))
        # SmoothQuant goes over the samples once before the ranges are found.
        feeds.rounds = 2 if transformer and stated.smooth_quant_alpha >= 0 else 1
        try:
            result = nncf.quantize(
                model,
                nncf.Dataset(feeds),
                preset=nncf.QuantizationPreset(stated.preset),
                subset_size=len(feeds),
                fast_bias_correction=stated.fast_bias_correction,
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                ignored_scope=nncf.IgnoredScope(names=sorted(kept), validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=stated.smooth_quant_alpha)
                ),
            )
        except Exception as error:
            if stated.fast_bias_correction:
                raise
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PassError(f"NNCF fails without fast_bias_correction: {words}; set it to true") from error
        onnx.save(result, str(path))

    def _by_onnxruntime(self, model: onnx.ModelProto, kept: frozenset[str], feeds: Counted, path: Path) -> None:
        from onnxruntime.quantization import (  # noqa: PLC0415
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        methods = {
            "minmax": CalibrationMethod.MinMax,
            "entropy": CalibrationMethod.Entropy,
            "percentile": CalibrationMethod.Percentile,
        }
        quantize_static(
            model,
            path,
            feeds,
            quant_format=QuantFormat.QDQ,
            # Attention adds masks of -3e38: ranges of anything but the layers themselves are then worth nothing.
            op_types_to_quantize=[*sorted(OPERATORS), "Gather"] if has_attention(model) else None,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(kept),
            calibrate_method=methods[self.settings.method],
            extra_options={
                "CalibPercentile": self.settings.percentile,
                # MatMuls of two activations, as in attention, lose more than they gain.
                "MatMulConstBOnly": True,
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )


def _preprocessed(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Shapes inferred and batch normalisation folded, so that no QDQ pair comes between a convolution and its own."""
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=folder) as work:
        given, made = Path(work) / "given.onnx", Path(work) / "made.onnx"
        onnx.save(model, str(given))
        quant_pre_process(str(given), str(made), skip_symbolic_shape=True)
        result = onnx.load(str(made))
    used = {node.domain for node in result.graph.node}
    imports = [entry for entry in result.opset_import if entry.domain in used | {"", "ai.onnx"}]
    # ONNX Runtime lists every operator set that it knows; TensorRT's parser refuses some of them by name.
    del result.opset_import[:]
    result.opset_import.extend(imports)
    return result
