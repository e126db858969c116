"""What the base class of the passes checks, whatever the pass does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from erg_converters.artifact import Artifact, Format
from erg_converters.errors import PassError, PromiseError
from erg_converters.passes.base import Pass, PassContext


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoSettings:
    """Nothing to set."""

    strength: int = 3


class Edit(Pass[NoSettings]):
    """Loads the model, lets `edit` change it, saves it."""

    name = "edit"
    accepts = frozenset({Format.ONNX})
    gives = Format.ONNX
    Settings = NoSettings
    cites = "nothing"

    def __init__(self, edit: Callable[[onnx.ModelProto], None]) -> None:
        super().__init__(NoSettings())
        self.edit = edit

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        model = onnx.load(str(artifact.path))
        self.edit(model)
        path = context.folder / "edited.onnx"
        path.write_bytes(model.SerializeToString())
        return path


class Quantizing(Edit):
    """The same, said to give a quantized file, and with calibration data needed."""

    gives = Format.ONNX_QUANTIZED
    needs_calibration = True


def context(folder: Path) -> PassContext:
    return PassContext(source=cast("Any", None), inputs=(), folder=folder / "work")


def nothing(_model: onnx.ModelProto) -> None:
    """Change nothing."""


def test_a_result_that_keeps_every_promise_is_an_artifact(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    given = Artifact.of(Format.ONNX, tiny_cnn_onnx)
    result = Edit(nothing).run(given, context(tmp_path))
    assert result.format is Format.ONNX
    assert result.path.parent == tmp_path / "work"
    assert result.bytes == result.path.stat().st_size


def test_a_format_that_the_pass_does_not_take_is_refused(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    given = Artifact.of(Format.ONNX_ORT, tiny_cnn_onnx)
    with pytest.raises(PassError, match="edit takes onnx, not onnx-ort"):
        Edit(nothing).run(given, context(tmp_path))


def test_a_pass_that_needs_calibration_data_says_so(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"add a \[calibration\] table"):
        Quantizing(nothing).run(Artifact.of(Format.ONNX, tiny_cnn_onnx), context(tmp_path))


def test_a_librarys_exception_becomes_a_pass_error_with_its_words(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    def fail(_model: onnx.ModelProto) -> None:
        raise KeyError("weights of layer 3")

    with pytest.raises(PassError, match="edit failed: KeyError: 'weights of layer 3'"):
        Edit(fail).run(Artifact.of(Format.ONNX, tiny_cnn_onnx), context(tmp_path))


def test_settings_are_told_as_text() -> None:
    assert Edit(nothing).settings_text() == {"strength": "3"}


def rename_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "image":
                node.input[index] = "picture"
    model.graph.input[0].name = "picture"


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "logits":
                node.output[index] = "scores"
    model.graph.output[0].name = "scores"


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def change_output_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def drop_output_axis(model: onnx.ModelProto) -> None:
    del model.graph.output[0].type.tensor_type.shape.dim[1]


def add_nan(model: onnx.ModelProto) -> None:
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def move_outside(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="weights.bin")


def halve(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float16), "half"))


def add_foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)
    model.graph.node.append(onnx.helper.make_node("Gelu", ["logits"], ["more"], domain="com.microsoft"))


def quantize_one(model: onnx.ModelProto) -> None:
    scale = onnx.numpy_helper.from_array(np.ones((), np.float32), "scale")
    model.graph.initializer.append(scale)
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["logits", "scale"], ["more"]))


def use_newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


def make_cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (rename_input, "the inputs became .*picture"),
        (rename_output, "the outputs became scores"),
        (fix_batch, "the inputs became"),
        (change_output_type, "output 'logits' became FP64; it has to stay FP32"),
        (drop_output_axis, "output 'logits' became 1-dimensional"),
        (add_nan, "not finite"),
        (move_outside, "checker refuses|lies in another file"),
        (halve, "weight 'half' is half precision"),
        (add_foreign_operator, r"operator com\.microsoft\.Gelu .* has no place in onnx"),
        (quantize_one, "operator QuantizeLinear .* is quantized"),
        (use_newer_opset, "at opset 19; the canonical form is at 18"),
        (make_cycle, "checker refuses"),
    ],
)
def test_a_broken_promise_is_named(
    edit: Callable[[onnx.ModelProto], None], words: str, tiny_cnn_onnx: Path, tmp_path: Path
) -> None:
    with pytest.raises(PromiseError, match=words):
        Edit(edit).run(Artifact.of(Format.ONNX, tiny_cnn_onnx), context(tmp_path))


def test_a_single_infinity_is_a_masks_fill_value(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    def add_fill(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((), -np.inf, np.float32), "fill"))

    assert Edit(add_fill).run(Artifact.of(Format.ONNX, tiny_cnn_onnx), context(tmp_path)).bytes > 0
