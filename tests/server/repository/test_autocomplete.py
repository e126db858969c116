from pathlib import Path

import onnx
import pytest
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.autocomplete import DEFAULT_MAX_BATCH_SIZE, complete
from erg_server.repository.config import parse_config
from erg_server.repository.problem import ConfigError
from onnx import TensorProto, helper

from tests.server.repository.builders import relu


def completed(folder: Path, text: str, model: onnx.ModelProto | None) -> pb.ModelConfig:
    if model is not None:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
    return complete(parse_config(text, "config.pbtxt", "pbtxt"), "m", folder).config


def faults(folder: Path, text: str, model: onnx.ModelProto) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        completed(folder, text, model)
    return [str(problem) for problem in caught.value.problems]


def test_a_model_of_open_first_axes_needs_no_configuration(tmp_path: Path) -> None:
    config = completed(tmp_path, "", relu(("batch", "length"), TensorProto.INT64, (None, 5)))
    assert (config.name, config.backend, config.platform) == ("m", "onnxruntime", "onnxruntime_onnx")
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == DEFAULT_MAX_BATCH_SIZE
    assert config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", pb.TYPE_INT64, [-1])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("y", pb.TYPE_INT64, [5])]


def test_one_value_a_row_is_reshaped_for_callers(tmp_path: Path) -> None:
    config = completed(tmp_path, "", relu(("batch",), output_shape=("batch",)))
    assert list(config.input[0].dims) == [1]
    assert config.input[0].HasField("reshape")
    assert not config.input[0].reshape.shape


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("max_batch_size: 0", relu()),
        ("", relu((2, 3), output_shape=(2, 3))),
        ("", relu(("batch", 3), output_shape=(2, 3))),
        ('input { name: "x" dims: [ -1, 3 ] }', relu()),
        ("", relu((), output_shape=())),
    ],
)
def test_a_model_that_cannot_or_shall_not_batch_keeps_every_axis(tmp_path: Path, text: str, model) -> None:
    config = completed(tmp_path, text, model)
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert len(config.input[0].dims) == len(model.graph.input[0].type.tensor_type.shape.dim)


def test_dims_without_the_batch_axis_say_that_the_model_batches(tmp_path: Path) -> None:
    assert completed(tmp_path, 'input { name: "x" dims: 3 }', relu()).max_batch_size == DEFAULT_MAX_BATCH_SIZE


def test_a_given_batch_size_and_scheduler_stay(tmp_path: Path) -> None:
    config = completed(tmp_path, "max_batch_size: 16", relu())
    assert config.max_batch_size == 16
    assert config.WhichOneof("scheduling_choice") is None


def test_what_is_given_in_part_is_completed(tmp_path: Path) -> None:
    config = completed(tmp_path, 'max_batch_size: 2 input { name: "x" } platform: "onnxruntime_onnx"', relu())
    assert (config.backend, config.input[0].data_type, list(config.input[0].dims)) == ("onnxruntime", pb.TYPE_FP32, [3])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('max_batch_size: 8\ninput { name: "z" }', "config.pbtxt:2: input[0].name"),
        ('input { name: "x" data_type: TYPE_INT32 }', "use TYPE_FP32"),
        ('max_batch_size: 8 input { name: "x"\ndims: 4 }', "config.pbtxt:2: input[0].dims: [4] does not fit"),
        ('max_batch_size: 8 input { name: "x" dims: [ -1, 3 ] }', "after the batch axis is [3]"),
        ('input { name: "x" dims: 3 reshape { shape: [ 1, 4 ] } }', "input[0].reshape"),
        ('input { name: "x" optional: true }', "cannot leave it out"),
        ('output { name: "Y" }', "did you mean 'y'?"),
    ],
)
def test_what_contradicts_the_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    assert told in "\n".join(faults(tmp_path, text, relu()))


def test_a_fixed_first_axis_refuses_batching(tmp_path: Path) -> None:
    [x, y] = faults(tmp_path, "max_batch_size: 4", relu((1, 3), output_shape=(1, 3)))
    assert "'x' of its file fixes its first axis to 1; set max_batch_size to 0" in x
    assert "'y'" in y


def test_a_mask_that_the_server_makes_may_be_optional(tmp_path: Path) -> None:
    text = 'input { name: "x" optional: true } erg { padding { input { name: "x" axis: 1 mask: true } } }'
    assert completed(tmp_path, text, relu(("b", "n"), output_shape=("b", "n"))).input[0].optional


def test_inputs_with_defaults_are_not_asked_of_callers(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1]),
            helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 1])],
        [helper.make_tensor("bias", TensorProto.FLOAT, [1], [1.0])],
    )
    config = completed(tmp_path, "", helper.make_model(graph))
    assert [tensor.name for tensor in config.input] == ["x"]
    assert config.max_batch_size == DEFAULT_MAX_BATCH_SIZE


def test_outputs_that_cannot_travel_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    model = relu()
    sequence = helper.make_tensor_sequence_value_info("probabilities", TensorProto.FLOAT, None)
    model.graph.output.append(sequence)
    assert [tensor.name for tensor in completed(tmp_path, "", model).output] == ["y"]
    assert "is a sequence" in faults(tmp_path, 'output { name: "probabilities" }', model)[0]


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InvalidArgumentError, match="not an ONNX model"):
        completed(tmp_path, "", None)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ErgError, match="does not exist"):
        completed(tmp_path, 'backend: "onnxruntime"', None)


def test_a_folder_of_the_files_name_holds_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "model.onnx" / "model.onnx").write_bytes(relu().SerializeToString())
    assert completed(tmp_path, "", None).input[0].name == "x"
