"""Dynamic quantization of the tiny encoder, and its refusal of convolutions."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from erg_converters.artifact import Format
from erg_converters.errors import PassError
from erg_converters.passes.quantize_dynamic import DynamicSettings, QuantizeDynamic

from tests.converters import builders
from tests.converters.passes import quantizing


def test_the_encoder_shrinks_and_answers_as_before_in_its_backends_at_shapes_it_never_saw(
    tiny_bert_onnx: Path, tmp_path: Path
) -> None:
    made = QuantizeDynamic(DynamicSettings())
    result = quantizing.run(made, tiny_bert_onnx, tmp_path)
    assert result.format is Format.ONNX_QUANTIZED
    weights = [tensor.data_type for tensor in onnx.load(str(result.path)).graph.initializer if len(tensor.dims) == 2]
    assert weights.count(onnx.TensorProto.INT8) >= 12
    assert result.bytes < tiny_bert_onnx.stat().st_size
    assert made.figures["layers quantized"] == "12 of 12"
    for feed in (builders.tokens(1, 5, 9), builders.tokens(3, 21, 9)):
        expected = quantizing.by_onnxruntime(tiny_bert_onnx, feed)
        for backend in made.backends:
            assert quantizing.cosine(quantizing.RUNNERS[backend](result.path, feed), expected) > 0.98, backend


def test_weights_are_signed_with_one_scale_a_channel(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    result = quantizing.run(QuantizeDynamic(DynamicSettings()), tiny_bert_onnx, tmp_path)
    tensors = {tensor.name: tensor for tensor in onnx.load(str(result.path)).graph.initializer}
    scales = [tensor for name, tensor in tensors.items() if name.endswith("_scale") and len(tensor.dims) == 1]
    assert sorted({tuple(tensor.dims) for tensor in scales}) == [(32,), (64,)]


def test_convolutions_are_refused(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="dynamic never for convolutions, and the model has 2"):
        quantizing.run(QuantizeDynamic(DynamicSettings()), tiny_cnn_onnx, tmp_path)
    with pytest.raises(PassError, match="op_types has Conv: dynamic never for convolutions"):
        quantizing.run(QuantizeDynamic(DynamicSettings(op_types=("MatMul", "Conv"))), tiny_cnn_onnx, tmp_path)


def test_what_is_not_convolution_is_quantized_where_only_that_is_asked_for(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    result = quantizing.run(QuantizeDynamic(DynamicSettings(op_types=("MatMul",))), tiny_cnn_onnx, tmp_path)
    operators = quantizing.operators(result.path)
    assert operators.count("Conv") == 2
    assert "MatMulInteger" in operators


def test_a_kept_gemm_stays_float_and_a_model_with_nothing_else_is_refused(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    last = quantizing.layer_names(tiny_cnn_onnx)[-1]
    settings = DynamicSettings(op_types=("MatMul",), keep_layers=(last,))
    with pytest.raises(PassError, match="none of 3 layers is a MatMul"):
        quantizing.run(QuantizeDynamic(settings), tiny_cnn_onnx, tmp_path)


def test_an_operator_that_nobody_quantizes_is_named(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="op_types has 'Softmax'"):
        quantizing.run(QuantizeDynamic(DynamicSettings(op_types=("Softmax",))), tiny_bert_onnx, tmp_path)


def test_kept_layers_stay_float(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    kept = quantizing.layer_names(tiny_bert_onnx)[3]
    made = QuantizeDynamic(DynamicSettings(keep_layers=(kept,)))
    result = quantizing.run(made, tiny_bert_onnx, tmp_path)
    nodes = {node.name: node.op_type for node in onnx.load(str(result.path)).graph.node}
    assert nodes[kept] == "MatMul"
    assert made.figures["layers quantized"] == "11 of 12"


def test_a_layer_that_is_none_is_refused_with_names_like_it(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    name = quantizing.layer_names(tiny_bert_onnx)[0]
    with pytest.raises(PassError, match=rf"no node is called '{name}x'; there are 12 layers.*{name}"):
        quantizing.run(QuantizeDynamic(DynamicSettings(keep_layers=(name + "x",))), tiny_bert_onnx, tmp_path)


def test_keeping_everything_is_refused(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="no layer to quantize"):
        quantizing.run(QuantizeDynamic(DynamicSettings(keep_layers=("*",))), tiny_bert_onnx, tmp_path)


def test_a_target_needs_calibration_data(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"add a \[calibration\] table"):
        quantizing.run(QuantizeDynamic(DynamicSettings(sensitivity_target=0.999)), tiny_bert_onnx, tmp_path)


def test_a_target_keeps_layers_until_it_is_met_and_a_second_run_measures_nothing_again(
    tiny_bert_onnx: Path, tmp_path: Path
) -> None:
    calibration = quantizing.sentences()
    plain: dict[str, float] = {}
    loose = QuantizeDynamic(DynamicSettings(sensitivity_target=0.5))
    quantizing.run(loose, tiny_bert_onnx, tmp_path / "loose", calibration=calibration, resume=plain)
    assert loose.figures["kept for accuracy"] == "none"
    whole = plain["cosine, all quantized"]
    target = 1 - (1 - whole) / 2

    found: dict[str, float] = {}
    first = QuantizeDynamic(DynamicSettings(sensitivity_target=target))
    result = quantizing.run(first, tiny_bert_onnx, tmp_path / "first", calibration=calibration, resume=found)
    assert float(first.figures["cosine on calibration data"]) >= target - 1e-5
    kept = first.figures["kept for accuracy"].split(", ")
    nodes = {node.name: node.op_type for node in onnx.load(str(result.path)).graph.node}
    assert [nodes[name] for name in kept] == ["MatMul"] * len(kept)
    assert 0 < len(kept) < 12
    assert not (tmp_path / "first" / "work" / "tried.onnx").exists()

    class Sealed(dict[str, float]):
        def __setitem__(self, key: str, value: float) -> None:
            raise AssertionError(f"measured again: {key}")

    second = QuantizeDynamic(DynamicSettings(sensitivity_target=target))
    quantizing.run(second, tiny_bert_onnx, tmp_path / "second", calibration=calibration, resume=Sealed(found))
    assert second.figures == first.figures
