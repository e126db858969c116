"""Half precision with inputs and outputs as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from erg_converters.artifact import Format
from erg_converters.errors import PassError
from erg_converters.passes.convert_float16 import ConvertFloat16, Float16Settings

from tests.converters import builders
from tests.converters.passes import quantizing


def test_the_models_halve_and_answer_as_before_in_their_backends(
    tiny_bert_onnx: Path, tiny_cnn_onnx: Path, tmp_path: Path
) -> None:
    for path, feed in ((tiny_bert_onnx, builders.tokens(3, 21, 9)), (tiny_cnn_onnx, builders.images(3, 9))):
        made = ConvertFloat16(Float16Settings())
        result = quantizing.run(made, path, tmp_path / path.parent.name)
        assert result.format is Format.ONNX_QUANTIZED
        matrices = [tensor for tensor in onnx.load(str(result.path)).graph.initializer if len(tensor.dims) > 1]
        assert onnx.TensorProto.FLOAT not in {tensor.data_type for tensor in matrices}
        expected = quantizing.by_onnxruntime(path, feed)
        for backend in made.backends:
            assert quantizing.cosine(quantizing.RUNNERS[backend](result.path, feed), expected) > 0.9999, backend


def test_kept_layers_keep_their_weights(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    kept = quantizing.layer_names(tiny_bert_onnx)[0]
    result = quantizing.run(ConvertFloat16(Float16Settings(keep_layers=(kept,))), tiny_bert_onnx, tmp_path)
    model = onnx.load(str(result.path))
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert weights[next(node for node in model.graph.node if node.name == kept).input[1]] == onnx.TensorProto.FLOAT


def test_a_weight_beyond_half_precision_is_refused_unless_its_layer_is_kept(
    tiny_cnn_onnx: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(tiny_cnn_onnx))
    name = quantizing.layer_names(tiny_cnn_onnx)[1]
    node = next(node for node in model.graph.node if node.name == name)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.float32(1e5)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    path = tmp_path / "large.onnx"
    onnx.save(model, str(path))
    with pytest.raises(PassError, match=f"layer '{name}' has a weight of 1e\\+05, beyond fp16's 65504"):
        quantizing.run(ConvertFloat16(Float16Settings()), path, tmp_path)
    quantizing.run(ConvertFloat16(Float16Settings(keep_layers=(name,))), path, tmp_path)


def test_keeping_everything_is_refused(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="no weight became fp16"):
        quantizing.run(ConvertFloat16(Float16Settings(keep_layers=("*",))), tiny_cnn_onnx, tmp_path)
