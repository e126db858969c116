"""Static quantization of the tiny models by both tools."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from erg_converters.artifact import Format
from erg_converters.errors import DataError, PassError
from erg_converters.passes.quantize_static import QuantizeStatic, StaticSettings

from tests.converters import builders
from tests.converters.passes import quantizing


def zero_points(path: Path) -> set[int]:
    """Data types of the zero points of what is quantized at run time."""
    model = onnx.load(str(path))
    tensors = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {tensors[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def test_nncf_quantizes_the_encoder_and_tells_how_far_it_is(
    tiny_bert_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int]] = []
    made = QuantizeStatic(StaticSettings(tool="nncf"))
    result = quantizing.run(
        made,
        tiny_bert_onnx,
        tmp_path,
        calibration=quantizing.sentences(),
        progress=lambda done, total: told.append((done, total)),
    )
    assert result.format is Format.ONNX_QUANTIZED
    assert made.figures == {"layers quantized": "12 of 12", "calibration samples": "8"}
    assert told[-1] == (16, 16)
    assert capsys.readouterr() == ("", "")
    for feed in (builders.tokens(1, 5, 9), builders.tokens(3, 21, 9)):
        expected = quantizing.by_onnxruntime(tiny_bert_onnx, feed)
        for backend in made.backends:
            assert quantizing.cosine(quantizing.RUNNERS[backend](result.path, feed), expected) > 0.98, backend


def test_nncf_keeps_layers_and_with_its_symmetric_preset_has_no_zero_point_but_zero(
    tiny_bert_onnx: Path, tmp_path: Path
) -> None:
    kept = quantizing.layer_names(tiny_bert_onnx)[-1]
    made = QuantizeStatic(StaticSettings(preset="performance", keep_layers=(kept,), subset_size=4))
    result = quantizing.run(made, tiny_bert_onnx, tmp_path, calibration=quantizing.sentences())
    model = onnx.load(str(result.path))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert not dequantized & set(next(node for node in model.graph.node if node.name == kept).input)
    assert not any(weights[node.input[2]].any() for node in model.graph.node if node.op_type == "QuantizeLinear")
    assert made.figures == {"layers quantized": "11 of 12", "calibration samples": "4"}


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_onnxruntime_quantizes_convolutions_u8_by_s8_per_channel(
    method: str, tiny_cnn_onnx: Path, tmp_path: Path
) -> None:
    made = QuantizeStatic(StaticSettings(tool="onnxruntime", method=method))  # type: ignore[arg-type]  # a parameter
    result = quantizing.run(
        made, tiny_cnn_onnx, tmp_path, calibration=quantizing.pictures(), inputs=quantizing.IMAGE_INPUTS
    )
    assert zero_points(result.path) == {onnx.TensorProto.UINT8}
    tensors = {tensor.name: tensor for tensor in onnx.load(str(result.path)).graph.initializer}
    kernels = [tensor for tensor in tensors.values() if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in kernels} == {onnx.TensorProto.INT8}
    assert {tuple(tensors[f"{tensor.name.removesuffix('_quantized')}_scale"].dims) for tensor in kernels} == {
        (8,),
        (16,),
    }
    assert {entry.domain for entry in onnx.load(str(result.path)).opset_import} == {""}
    feed = builders.images(3, 9)
    expected = quantizing.by_onnxruntime(tiny_cnn_onnx, feed)
    for backend in made.backends:
        assert quantizing.cosine(quantizing.RUNNERS[backend](result.path, feed), expected) > 0.98, backend


def test_nncf_quantizes_convolutions(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    made = QuantizeStatic(StaticSettings(tool="nncf"))
    result = quantizing.run(
        made, tiny_cnn_onnx, tmp_path, calibration=quantizing.pictures(), inputs=quantizing.IMAGE_INPUTS
    )
    feed = builders.images(3, 9)
    expected = quantizing.by_onnxruntime(tiny_cnn_onnx, feed)
    assert quantizing.cosine(quantizing.by_openvino(result.path, feed), expected) > 0.98


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_onnxruntime_takes_samples_of_several_lengths_and_leaves_masks_alone(
    method: str, tiny_bert_onnx: Path, tmp_path: Path
) -> None:
    made = QuantizeStatic(StaticSettings(tool="onnxruntime", method=method))  # type: ignore[arg-type]  # a parameter
    result = quantizing.run(made, tiny_bert_onnx, tmp_path, calibration=quantizing.sentences())
    feed = builders.tokens(3, 9, 9)
    expected = quantizing.by_onnxruntime(tiny_bert_onnx, feed)
    assert quantizing.cosine(quantizing.by_onnxruntime(result.path, feed), expected) > 0.95


def test_a_model_of_an_older_opset_is_brought_to_one_with_scales_per_channel(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(random.normal(size=(4, 3, 3, 3)).astype(np.float32), "kernel")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Constant", [], ["kernel"], value=weight),
            onnx.helper.make_node("Conv", ["image", "kernel"], ["features"]),
        ],
        "old",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", 4, 14, 14])],
    )
    path = tmp_path / "old.onnx"
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))
    for tool in ("onnxruntime", "nncf"):
        made = QuantizeStatic(StaticSettings(tool=tool))
        result = quantizing.run(
            made, path, tmp_path / tool, calibration=quantizing.pictures(), inputs=quantizing.IMAGE_INPUTS
        )
        feed = builders.images(2, 9)
        expected = quantizing.by_onnxruntime(path, feed)
        assert quantizing.cosine(quantizing.by_onnxruntime(result.path, feed), expected) > 0.99, tool
        assert made.figures["layers quantized"] == "1 of 1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda feed: {"picture": feed["image"]}, "sample 1 lacks input 'image'; it has picture"),
        (lambda feed: {"image": feed["image"].astype(np.float64)}, r"takes float32 \[-1, 3, 16, 16\], not float64"),
        (lambda feed: {"image": feed["image"][:, :1]}, r"not float32 \[1, 1, 16, 16\]"),
        (lambda feed: {"image": feed["image"][0]}, r"not float32 \[3, 16, 16\]"),
        (lambda feed: {"image": feed["image"] * np.float32("nan")}, "sample 1: input 'image' has a value that is not"),
    ],
)
def test_a_sample_that_does_not_fit_the_model_is_named(
    change: object, words: str, tiny_cnn_onnx: Path, tmp_path: Path
) -> None:
    assert callable(change)
    samples = [builders.images(1), change(builders.images(1))]
    for tool in ("onnxruntime", "nncf"):
        made = QuantizeStatic(StaticSettings(tool=tool))
        with pytest.raises(DataError, match=words):
            quantizing.run(made, tiny_cnn_onnx, tmp_path, calibration=quantizing.dataset(samples))


def test_no_samples_and_no_calibration_table_are_refused(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    made = QuantizeStatic(StaticSettings())
    with pytest.raises(DataError, match="no samples to calibrate with"):
        quantizing.run(made, tiny_cnn_onnx, tmp_path, calibration=quantizing.dataset([]))
    with pytest.raises(PassError, match=r"add a \[calibration\] table"):
        quantizing.run(made, tiny_cnn_onnx, tmp_path)


def test_a_target_keeps_layers_of_a_convolutional_network(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    found: dict[str, float] = {}
    calibration = quantizing.pictures()
    probe = QuantizeStatic(StaticSettings(tool="onnxruntime", sensitivity_target=0.5))
    quantizing.run(probe, tiny_cnn_onnx, tmp_path / "probe", calibration=calibration, resume=found)
    target = 1 - (1 - found["cosine, all quantized"]) * 0.9
    made = QuantizeStatic(StaticSettings(tool="onnxruntime", sensitivity_target=target))
    result = quantizing.run(made, tiny_cnn_onnx, tmp_path, calibration=calibration)
    kept = set(made.figures["kept for accuracy"].split(", "))
    model = onnx.load(str(result.path))
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert 0 < len(kept) < 3
    assert {node.name for node in model.graph.node if node.name in kept and node.input[1] in dequantized} == set()


def test_logging_is_as_it_was_afterwards(tiny_cnn_onnx: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = QuantizeStatic(StaticSettings(tool="onnxruntime"))
    quantizing.run(made, tiny_cnn_onnx, tmp_path, calibration=quantizing.pictures(), inputs=quantizing.IMAGE_INPUTS)
    assert not caplog.records
    logging.getLogger("erg").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
