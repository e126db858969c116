from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from erg_server.datatype import DataType
from erg_server.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from erg_server.repository.manifest import Artifact, Manifest, ManifestError, Selection
from erg_server.repository.problem import ConfigError
from erg_server.repository.publication import publish
from erg_server.repository.repository import ModelDefinition, ModelRepository
from erg_server.repository.selection import ServingPlan

from tests.server.repository.builders import external_tensor, relu

BOTH = frozenset({"onnxruntime", "openvino"})
SOURCE = Artifact(name="source", file="model.onnx", backend="onnxruntime")
FAST = Artifact(
    name="fast",
    file="fast/model.onnx",
    backend="openvino",
    precision="bf16",
    parameters={"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"},
    batch_limit=2,
)
MANIFEST = Manifest(
    model="m",
    artifacts=(SOURCE, FAST),
    selected=(
        Selection(device="cpu", artifact="fast", reason="1.9 x cheaper"),
        Selection(device="cpu", artifact="source"),
    ),
)


def add_version(
    root: Path, manifest: Manifest | None, config: str | None = None, model: bytes = b""
) -> ModelDefinition:
    """Publish a version with a file for every artifact, and open its model."""
    build = root.parent / f"build{len(list(root.parent.iterdir()))}"
    for file in {artifact.file for artifact in manifest.artifacts} if manifest else {"model.onnx"}:
        (build / file).parent.mkdir(parents=True, exist_ok=True)
        (build / file).write_bytes(relu().SerializeToString())
    publish(root, "m", build, manifest or Manifest(model="m"), config, replace_config=True)
    return ModelRepository([root]).open("m")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def served_as(plan: ServingPlan) -> tuple[str, str, str]:
    return plan.artifact.name if plan.artifact else "", plan.config.backend, plan.config.default_model_filename


def test_the_first_selected_artifact_is_served_as_it_was_measured(root: Path) -> None:
    definition = add_version(root, MANIFEST)
    plan = definition.plan(1, "cpu", BOTH)
    assert served_as(plan) == ("fast", "openvino", "fast/model.onnx")
    assert plan.path == root / "m" / "1" / "fast" / "model.onnx"
    assert dict(plan.spec.parameters) == {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    assert plan.spec.backend == "openvino"
    assert plan.reason == "1.9 x cheaper"


def test_the_batcher_is_capped_and_the_protocol_is_not(root: Path) -> None:
    plan = add_version(root, MANIFEST).plan(1, "cpu", BOTH)
    assert (plan.spec.batch_limit, plan.spec.max_batch_size, plan.config.max_batch_size) == (2, 4, 4)


def test_the_configuration_names_what_runs_and_metadata_does_not_change(root: Path) -> None:
    plan = add_version(root, MANIFEST).plan(1, "cpu", BOTH)
    assert (plan.config.backend, plan.config.platform) == ("openvino", "")
    assert plan.spec.platform == "onnxruntime_onnx"


def test_an_artifact_whose_backend_is_not_installed_is_passed_over(root: Path) -> None:
    plan = add_version(root, MANIFEST).plan(1, "cpu", {"onnxruntime"})
    assert served_as(plan) == ("source", "onnxruntime", "model.onnx")
    assert "not 'fast', since backend 'openvino' is not installed" in plan.reason


def test_nothing_installed_is_told_with_what_to_install(root: Path) -> None:
    definition = add_version(root, MANIFEST)
    with pytest.raises(FailedPreconditionError, match=r"'openvino' is not installed.*; install backend 'openvino'"):
        definition.plan(1, "cpu", {"tensorrt"})


def test_a_device_that_nothing_was_selected_for_gets_what_the_configuration_says(root: Path) -> None:
    plan = add_version(root, MANIFEST).plan(1, "gpu", BOTH)
    assert served_as(plan) == ("", "onnxruntime", "model.onnx")
    assert plan.reason == "its manifest selects nothing for gpu"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('backend: "onnxruntime"', ("source", "onnxruntime", "model.onnx")),
        ('platform: "onnxruntime_onnx"', ("source", "onnxruntime", "model.onnx")),
        ('backend: "openvino"', ("fast", "openvino", "fast/model.onnx")),
        ('default_model_filename: "model.onnx"', ("source", "onnxruntime", "model.onnx")),
        ('backend: "openvino" default_model_filename: "model.onnx"', ("", "openvino", "model.onnx")),
    ],
)
def test_what_the_configuration_states_wins(root: Path, config: str, expected: tuple[str, str, str]) -> None:
    definition = add_version(root, MANIFEST, config=config)
    ModelRepository([root]).verify(definition, 1)
    assert served_as(definition.plan(1, "cpu", BOTH)) == expected


def test_a_parameter_that_the_configuration_states_wins_and_the_others_stay(root: Path) -> None:
    config = 'parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "f32" } }'
    plan = add_version(root, MANIFEST, config=config).plan(1, "cpu", BOTH)
    assert plan.artifact == FAST
    assert dict(plan.spec.parameters) == {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}


def test_a_configuration_stated_in_a_load_request_wins_too(root: Path) -> None:
    add_version(root, MANIFEST)
    definition = ModelRepository([root]).open("m", '{"backend": "onnxruntime"}')
    assert served_as(definition.plan(1, "cpu", BOTH))[1] == "onnxruntime"


def test_a_version_needs_no_file_of_the_usual_name(root: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, artifacts=(FAST,), selected=MANIFEST.selected[:1])
    definition = add_version(root, manifest)
    ModelRepository([root]).verify(definition, 1)
    assert definition.spec.inputs[0].datatype is DataType.FP32
    assert served_as(definition.plan(1, "cpu", BOTH)) == ("fast", "openvino", "fast/model.onnx")
    stated = add_version(root, manifest, config='backend: "openvino"')
    assert served_as(stated.plan(2, "cpu", BOTH)) == ("fast", "openvino", "fast/model.onnx")
    with pytest.raises(NotFoundError, match=r"model\.onnx"):
        add_version(root, manifest, config='backend: "onnxruntime"')


def test_every_version_has_its_own(root: Path) -> None:
    config = "version_policy { all { } }"
    add_version(root, None, config=config)
    definition = add_version(root, dataclasses.replace(MANIFEST, artifacts=(FAST,), selected=MANIFEST.selected[:1]))
    assert definition.versions == (1, 2)
    assert served_as(definition.plan(1, "cpu", BOTH)) == ("", "onnxruntime", "model.onnx")
    assert served_as(definition.plan(2, "cpu", BOTH)) == ("fast", "openvino", "fast/model.onnx")
    for version in definition.versions:
        ModelRepository([root]).verify(definition, version)


@pytest.mark.parametrize(
    ("artifact", "told"),
    [
        (dataclasses.replace(SOURCE, file="missing.onnx"), "artifact 'source'.*'missing.onnx' is not in"),
        (dataclasses.replace(SOURCE, file="../2/model.onnx"), "artifact 'source'.*is not a path inside"),
        (dataclasses.replace(SOURCE, file="/etc/passwd"), "artifact 'source'.*is not a path inside"),
        (dataclasses.replace(SOURCE, file="fast"), "artifact 'source'.*'fast' is a folder"),
        (dataclasses.replace(SOURCE, name="fast"), "artifact 'fast' of the manifest is there twice"),
        (dataclasses.replace(SOURCE, batch_limit=0), "batch_limit 0; a batch has at least one row"),
        (dataclasses.replace(SOURCE, precision="int4"), "precision 'int4'; allowed: f32, bf16, f16"),
        (dataclasses.replace(SOURCE, name="other"), "selects 'source'; its artifacts are 'other', 'fast'"),
    ],
)
def test_artifacts_that_make_no_sense_are_refused(root: Path, artifact: Artifact, told: str) -> None:
    build = root.parent / "build"
    (build / "fast").mkdir(parents=True)
    for file in ("model.onnx", "fast/model.onnx"):
        (build / file).write_bytes(relu().SerializeToString())
    publish(root, "m", build, dataclasses.replace(MANIFEST, artifacts=(artifact, FAST)))
    definition = ModelRepository([root]).open("m")
    with pytest.raises(ManifestError, match=told):
        ModelRepository([root]).verify(definition, 1)
    with pytest.raises(ManifestError, match=told):
        definition.plan(1, "cpu", BOTH)


def test_every_artifacts_file_is_checked_before_anything_reads_it(root: Path) -> None:
    """Also those that no device here would serve."""
    idle = Artifact(name="idle", file="idle.onnx", backend="tensorrt")
    definition = add_version(root, dataclasses.replace(MANIFEST, artifacts=(SOURCE, FAST, idle)))
    ModelRepository([root]).verify(definition, 1)
    unsafe = relu()
    unsafe.graph.initializer.append(external_tensor("/etc/passwd"))
    for number, file in enumerate(("fast/model.onnx", "idle.onnx"), start=2):
        build = root.parent / f"unsafe{number}"
        for each in ("model.onnx", "fast/model.onnx", "idle.onnx"):
            (build / each).parent.mkdir(parents=True, exist_ok=True)
            (build / each).write_bytes((unsafe if each == file else relu()).SerializeToString())
        publish(root, "m", build, dataclasses.replace(MANIFEST, artifacts=(SOURCE, FAST, idle)))
        with pytest.raises(InvalidArgumentError, match="external data"):
            ModelRepository([root]).verify(ModelRepository([root]).open("m"), number)


def test_every_artifact_has_the_models_signature(root: Path) -> None:
    build = root.parent / "build"
    (build / "fast").mkdir(parents=True)
    (build / "model.onnx").write_bytes(relu().SerializeToString())
    (build / "fast" / "model.onnx").write_bytes(relu(("batch", 5), output_shape=("batch", 5)).SerializeToString())
    publish(root, "m", build, MANIFEST)
    definition = ModelRepository([root]).open("m")
    with pytest.raises(ConfigError, match=r"does not fit the file's 'x'.*\[5\]"):
        ModelRepository([root]).verify(definition, 1)
