"""Weight-only quantization of the tiny encoder by both tools."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from erg_converters.artifact import Format
from erg_converters.errors import PassError
from erg_converters.passes.quantize_weights import QuantizeWeights, WeightSettings

from tests.converters import builders
from tests.converters.passes import quantizing


@pytest.mark.parametrize(("bits", "least"), [(8, 0.99), (4, 0.8)])
@pytest.mark.parametrize("tool", ["onnxruntime", "nncf"])
def test_the_encoder_shrinks_and_answers_as_before_in_its_backends(
    tool: str, bits: int, least: float, tiny_bert_onnx: Path, tmp_path: Path
) -> None:
    made = QuantizeWeights(WeightSettings(tool=tool, bits=bits))  # type: ignore[arg-type]  # parameters
    result = quantizing.run(made, tiny_bert_onnx, tmp_path)
    assert made.figures["layers quantized"] == "12 of 12"
    assert result.bytes < tiny_bert_onnx.stat().st_size
    for feed in (builders.tokens(1, 5, 9), builders.tokens(3, 21, 9)):
        expected = quantizing.by_onnxruntime(tiny_bert_onnx, feed)
        for backend in made.backends:
            assert quantizing.cosine(quantizing.RUNNERS[backend](result.path, feed), expected) > least, backend


def test_what_comes_out_and_who_runs_it_depends_on_the_tool(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    own = QuantizeWeights(WeightSettings(bits=4))
    assert own.backends == {"onnxruntime"}
    result = quantizing.run(own, tiny_bert_onnx, tmp_path / "own")
    assert result.format is Format.ONNX_ORT
    assert "MatMulNBits" in quantizing.operators(result.path)

    plain = QuantizeWeights(WeightSettings(bits=4, tool="nncf"))
    assert plain.backends == {"onnxruntime", "openvino"}
    result = quantizing.run(plain, tiny_bert_onnx, tmp_path / "plain")
    assert result.format is Format.ONNX_QUANTIZED
    model = onnx.load(str(result.path))
    assert {node.domain for node in model.graph.node} == {""}
    assert onnx.TensorProto.INT4 in {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("tool", ["onnxruntime", "nncf"])
def test_kept_layers_stay_float(tool: str, tiny_bert_onnx: Path, tmp_path: Path) -> None:
    kept = quantizing.layer_names(tiny_bert_onnx)[5]
    made = QuantizeWeights(WeightSettings(tool=tool, keep_layers=(kept,)))  # type: ignore[arg-type]  # a parameter
    result = quantizing.run(made, tiny_bert_onnx, tmp_path)
    model = onnx.load(str(result.path))
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.name == kept)
    assert (node.op_type, weights[node.input[1]]) == ("MatMul", onnx.TensorProto.FLOAT)
    assert made.figures["layers quantized"] == "11 of 12"


def test_a_model_without_a_matmul_is_refused_by_a_tool_for_matmuls(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"none of 3 layers was quantized: .* weight of a MatMul"):
        quantizing.run(QuantizeWeights(WeightSettings()), tiny_cnn_onnx, tmp_path)
