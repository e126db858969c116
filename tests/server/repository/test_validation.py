import pytest
from erg_server.repository.config import parse_config
from erg_server.repository.validation import validate

BASE = """backend: "identity"
max_batch_size: 8
input { name: "ids" data_type: TYPE_INT64 dims: [ -1, 2 ] }
input { name: "text" data_type: TYPE_STRING dims: [ -1 ] }
output { name: "out" data_type: TYPE_FP32 dims: [ -1 ] }
"""


def found(text: str, backends=None) -> list[str]:
    document = parse_config(text, "c", "pbtxt")
    document.config.name = document.config.name or "m"
    return [f"{each.severity} {each}" for each in validate(document, "m", backends)]


def test_a_sound_configuration_has_no_problems() -> None:
    text = """
    dynamic_batching { preferred_batch_size: 8 max_queue_delay_microseconds: 5
      priority_levels: 2 default_priority_level: 1
      priority_queue_policy { key: 2 value { max_queue_size: 3 } } }
    erg { padding { input { name: "ids" axis: 1 } output { name: "out" axis: 1 } }
          pinned: true weight: 2.5 }
    instance_group { kind: KIND_CPU count: 2 }
    version_policy { all { } }
    model_warmup { name: "w" batch_size: 8
      inputs { key: "ids" value { data_type: TYPE_INT64 dims: [ 4, 2 ] zero_data: true } }
      inputs { key: "text" value { data_type: TYPE_STRING dims: 4 random_data: true } } }
    """
    assert found(BASE + text, {"identity"}) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name: "other"', "error c:6: name: the model's folder is called 'm'"),
        ('platform: "pytorch_libtorch"', "c:6: platform: unknown platform"),
        ('platform: "tensorrt_plan"', "is run by backend 'tensorrt'"),
        ("sequence_batching { }", "c:6: sequence_batching: Erg does not serve sequences"),
        ("ensemble_scheduling { }", "c:6: ensemble_scheduling: Erg does not serve ensembles"),
        ('batch_input { source_input: "ids" }', "erg.padding"),
        ("model_repository_agents { agents { name: 'checksum' } }", "runs no repository agents"),
        ("response_cache { enable: true }", "warning c:6: response_cache.enable: has no effect"),
        ('input { name: "ids" data_type: TYPE_FP32 dims: 1 }', "c:6: input[2].name: there is another input 'ids'"),
        ("input { data_type: TYPE_FP32 dims: 1 }", "input[2]: has no name"),
        ('input { name: "a" dims: 1 }', "has no data type"),
        ('input { name: "a" data_type: TYPE_FP32 dims: [ 1, 0 ] }', "input[2].dims[1]: 0 is no length"),
        ('input { name: "a" data_type: TYPE_FP32 }', "input[2].dims: has no dims"),
        ('input { name: "a" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 3 ] } }', "as many elements"),
        ('input { name: "a" data_type: TYPE_FP32 dims: [ -1, 4 ] reshape { shape: [ 4, -1 ] } }', "as many elements"),
        ('input { name: "a" data_type: TYPE_FP32 dims: 4 reshape { shape: [ -4 ] } }', "neither positive nor -1"),
        ('input { name: "a" data_type: TYPE_FP32 dims: 4 allow_ragged_batch: true }', "erg.padding"),
        ('input { name: "a" data_type: TYPE_FP32 dims: 4 is_shape_tensor: true }', "only TensorRT"),
        ('input { name: "a" data_type: TYPE_FP32 dims: 4 format: FORMAT_NCHW }', "image format"),
        ('output { name: "a" data_type: TYPE_FP32 dims: 1 label_filename: "../x" }', "output[1].label_filename"),
        ("dynamic_batching {\npreferred_batch_size: [ 4, 9 ] }", "c:7: dynamic_batching.preferred_batch_size[1]: 9"),
        ("dynamic_batching { priority_levels: 2 }", "0 is not one of the levels 1 to 2"),
        ("dynamic_batching { default_priority_level: 2 }", "set priority_levels"),
        ("dynamic_batching { priority_queue_policy { key: 1 value { } } }", "priority_queue_policy.1"),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 preserve_ordering: true }",
            "give up one of them",
        ),
        ("instance_group { kind: KIND_CPU gpus: 0 }", "instance_group[0].gpus"),
        ("instance_group { count: -1 }", "-1 is negative"),
        ("instance_group { kind: KIND_GPU gpus: -1 }", "not negative"),
        ("instance_group { kind: KIND_CPU } instance_group { kind: KIND_GPU }", "instance_group[1].kind"),
        ("instance_group { passive: true }", "warning c:6: instance_group[0].passive: has no effect"),
        ("erg { weight: 0 }", "c:6: erg.weight: 0 is no share"),
        ("erg { weight: -2 }", "erg.weight: -2 is no share"),
        ("erg { weight: inf }", "erg.weight: inf is no share"),
        ("erg { weight: nan }", "erg.weight: nan is no share"),
        ("version_policy { specific { } }", "names no version"),
        ("version_policy { specific { versions: 0 } }", "0 is no version"),
        ('default_model_filename: "/etc/passwd"', "default_model_filename"),
        ('model_operations { op_library_filename: "../x.so" }', "op_library_filename[0]"),
        ("model_warmup { batch_size: 9 }", "9 is more than max_batch_size, 8"),
        ("model_warmup { }", "input 'ids' is missing"),
        ('model_warmup { inputs { key: "idz" value { } } }', "did you mean 'ids'?"),
        ('model_warmup { inputs { key: "ids" value { data_type: TYPE_FP32 } } }', "use TYPE_INT64"),
        ('model_warmup { inputs { key: "ids" value { data_type: TYPE_INT64 dims: -1 } } }', "no open axis"),
        ('model_warmup { inputs { key: "ids" value { data_type: TYPE_INT64 dims: 1 } } }', "has no contents"),
        ('model_warmup { inputs { key: "ids" value { input_data_file: "../x" } } }', "input_data_file"),
    ],
)
def test_impossible_settings_are_told_with_line_and_key(text: str, told: str) -> None:
    problems = found(BASE + text)
    assert any(told in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ('input { name: "idz" axis: 1 }', "did you mean 'ids'?"),
        ('input { name: "ids" }', "input[0].axis: 0 is not an axis"),
        ('input { name: "ids" axis: 3 }', "allowed: 1 to 2"),
        ('input { name: "ids" axis: 2 }', "has the fixed length 2"),
        ('input { name: "ids" axis: 1 value: 0.5 }', "0.5 is no value of INT64"),
        ('input { name: "ids" axis: 1 value: inf }', "inf is no value of INT64"),
        ('input { name: "text" axis: 1 }', "BYTES"),
        ('input { name: "ids" axis: 1 mask: true }', "no input but masks"),
        ('input { name: "ids" axis: 1 mask: true value: 1 }', "a mask is 0"),
        ('input { name: "ids" axis: 1 } input { name: "ids" axis: 1 }', "another rule"),
        ('input { name: "ids" axis: 1 } output { name: "oud" axis: 1 }', "did you mean 'out'?"),
        ('input { name: "ids" axis: 1 } output { name: "out" axis: 2 }', "output[0].axis"),
    ],
)
def test_a_padding_rule_must_fit_the_tensors(rule: str, told: str) -> None:
    problems = found(BASE + "dynamic_batching { } erg { padding { " + rule + " } }")
    assert any(told in problem for problem in problems), problems


def test_padding_needs_batches_that_the_server_joins() -> None:
    assert "only batches that the server joins" in found(BASE + 'erg { padding { input { name: "ids" axis: 1 } } }')[0]


def test_reshape_may_move_elements_between_open_axes_only() -> None:
    text = 'input { name: "a" data_type: TYPE_FP32 dims: [ 2, -1, 6 ] reshape { shape: [ 1, 2, -1, 3, 2 ] } }'
    assert found(BASE + text) == []


def test_an_unknown_backend_is_told_with_those_installed() -> None:
    assert found(BASE, {"identity", "onnxruntime"}) == []
    assert "allowed: onnxruntime" in found(BASE, {"onnxruntime"})[0]
    assert "no backend is named" in found(BASE.replace('backend: "identity"', ""))[0]


def test_a_delay_without_batches_is_a_warning() -> None:
    text = BASE.replace("max_batch_size: 8", "") + "dynamic_batching { max_queue_delay_microseconds: 5 }"
    [problem] = found(text)
    assert problem.startswith("warning c:6: dynamic_batching.max_queue_delay_microseconds")
