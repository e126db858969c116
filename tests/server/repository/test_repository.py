import json
from pathlib import Path

import pytest
from erg_server.datatype import DataType
from erg_server.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from erg_server.repository.manifest import Manifest, ManifestError
from erg_server.repository.problem import ConfigError
from erg_server.repository.publication import publish
from erg_server.repository.repository import ModelRepository

from tests.server.repository.builders import IDENTITY_CONFIG, add_model, external_tensor, relu


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    return root


def test_a_repository_without_configurations_is_served(root: Path) -> None:
    add_model(root, "m", relu())
    add_model(root, "m", relu(), version=12)
    repository = ModelRepository([root])
    entry = repository.scan()["m"]
    assert (entry.root, entry.versions) == (root, (1, 12))
    definition = repository.open("m")
    assert definition.versions == (12,)
    assert definition.spec.inputs[0].datatype is DataType.FP32
    assert definition.spec.wire_shape(definition.spec.inputs[0]) == (-1, 3)
    assert definition.model_file(12) == root / "m" / "12" / "model.onnx"
    repository.verify(definition, 12)


def test_a_model_without_a_file_names_its_folder(root: Path) -> None:
    add_model(root, "m", None, IDENTITY_CONFIG)
    definition = ModelRepository([root]).open("m")
    assert definition.model_file(1) == root / "m" / "1"
    assert definition.golden(1) is None


def test_what_is_no_model_is_passed_over(root: Path, tmp_path: Path) -> None:
    add_model(root, "m", relu())
    add_model(tmp_path, "outside", relu())
    (root / "link").symlink_to(tmp_path / "outside")
    (root / ".erg-staging-x" / "1").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "bad name" / "1").mkdir(parents=True)
    (root / "file").write_text("")
    repository = ModelRepository([root, tmp_path / "missing"])
    assert list(repository.scan()) == ["m"]
    for name in ("link", "empty", "file", "nothing"):
        with pytest.raises(NotFoundError):
            repository.open(name)
    with pytest.raises(InvalidArgumentError):
        repository.open("../outside")


def test_fingerprints_follow_every_change_and_nothing_else(root: Path) -> None:
    model = add_model(root, "m", relu(), IDENTITY_CONFIG)
    add_model(root, "other", relu())
    repository = ModelRepository([root])
    definition = repository.open("m")
    seen = [repository.scan()["m"].fingerprint]
    of_version = definition.fingerprint(1)
    assert repository.scan()["m"].fingerprint == seen[0]
    (root / ".erg-staging-x").mkdir()
    (root / "other" / "2").mkdir()
    assert repository.scan()["m"].fingerprint == seen[0]
    (model / "config.pbtxt").write_text(IDENTITY_CONFIG + "#")
    seen.append(repository.scan()["m"].fingerprint)
    assert definition.fingerprint(1) == of_version
    (model / "2").mkdir()
    seen.append(repository.scan()["m"].fingerprint)
    (model / "1" / "model.onnx").write_bytes(b"another")
    seen.append(repository.scan()["m"].fingerprint)
    assert definition.fingerprint(1) != of_version
    (model / "labels.txt").write_text("a")
    seen.append(repository.scan()["m"].fingerprint)
    assert len(set(seen)) == len(seen)


def test_a_model_of_two_repositories_is_refused(root: Path, tmp_path: Path) -> None:
    add_model(root, "m", relu())
    add_model(tmp_path / "second", "m", relu())
    repository = ModelRepository([root, tmp_path / "second"])
    assert repository.scan()["m"].shadowed == (tmp_path / "second",)
    with pytest.raises(FailedPreconditionError, match="several repositories"):
        repository.open("m")


def test_a_wrong_configuration_is_told_whole(root: Path) -> None:
    add_model(root, "m", None, IDENTITY_CONFIG + "sequence_batching { }\ninstance_group { count: -1 }")
    with pytest.raises(ConfigError) as caught:
        ModelRepository([root]).open("m")
    assert [problem.key for problem in caught.value.problems] == ["sequence_batching", "instance_group[0].count"]
    assert str(root / "m" / "config.pbtxt:7") in caught.value.message


def test_a_model_without_a_version_is_told(root: Path) -> None:
    (root / "m").mkdir()
    (root / "m" / "config.pbtxt").write_text(IDENTITY_CONFIG)
    with pytest.raises(FailedPreconditionError, match="has no version"):
        ModelRepository([root]).open("m")


def test_an_override_stands_in_for_the_configuration(root: Path) -> None:
    add_model(root, "m", relu(), "max_batch_size: 2")
    repository = ModelRepository([root])
    definition = repository.open("m", json.dumps({"max_batch_size": 16}))
    assert definition.spec.max_batch_size == 16
    with pytest.raises(ConfigError, match=r"load request's config\): max_batch_sise"):
        repository.open("m", json.dumps({"max_batch_sise": 16}))


def test_files_of_a_load_request_stand_in_for_those_on_disk(root: Path) -> None:
    add_model(root, "m", relu())
    repository = ModelRepository([root])
    files = {"file:3/model.onnx": relu(("batch", 7), output_shape=("batch", 7)).SerializeToString()}
    first, second = (repository.open("m", "{}", files) for _ in range(2))
    assert first.versions == (3,)
    assert first.spec.inputs[0].dims == (7,)
    assert root not in first.path.parents
    assert first.fingerprint(3) == second.fingerprint(3)
    repository.verify(first, 3)
    first.close()
    assert not first.path.exists()
    assert second.model_file(3).exists()
    assert repository.open("new", "{}", files).name == "new"
    repository.close()
    assert not second.path.exists()
    assert (root / "m" / "1" / "model.onnx").exists()


@pytest.mark.parametrize("key", ["file:1/../../x", "file:/etc/x", "model.onnx", "file:x/model.onnx", "file:1", "file:"])
def test_files_of_a_load_request_stay_inside(root: Path, key: str) -> None:
    with pytest.raises(InvalidArgumentError):
        ModelRepository([root]).open("m", "{}", {key: b""})


def test_files_need_a_configuration(root: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="need a config"):
        ModelRepository([root]).open("m", None, {"file:1/model.onnx": b""})


def test_a_failed_load_request_leaves_no_files(root: Path) -> None:
    repository = ModelRepository([root])
    good = repository.open("m", IDENTITY, {"file:1/x": b""})
    with pytest.raises(ConfigError):
        repository.open("m", '{"backend": "identity"}', {"file:1/x": b""})
    assert list(good.path.parent.iterdir()) == [good.path]
    repository.close()


IDENTITY = json.dumps(
    {
        "backend": "identity",
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
    }
)


def test_a_published_version_is_held_to_its_manifest(root: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / "model.onnx").write_bytes(relu().SerializeToString())
    publish(root, "m", build, Manifest(model="m"))
    repository = ModelRepository([root])
    definition = repository.open("m")
    repository.verify(definition, 1)
    (root / "m" / "1" / "model.onnx").write_bytes(relu(("b", 3)).SerializeToString())
    with pytest.raises(ManifestError):
        repository.verify(definition, 1)


def test_external_data_outside_is_refused_before_a_worker_sees_it(root: Path) -> None:
    model = relu()
    model.graph.initializer.append(external_tensor("../../../secret"))
    add_model(root, "m", model)
    repository = ModelRepository([root])
    with pytest.raises(InvalidArgumentError, match="external data"):
        repository.verify(repository.open("m"), 1)


def test_links_below_the_root_are_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(relu().SerializeToString())
    (root / "m" / "1").mkdir(parents=True)
    (root / "m" / "1" / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(InvalidArgumentError):
        ModelRepository([root]).open("m")
    (root / "n" / "1").mkdir(parents=True)
    (root / "n" / "config.pbtxt").symlink_to(tmp_path / "config")
    (tmp_path / "config").write_text(IDENTITY_CONFIG)
    with pytest.raises(InvalidArgumentError):
        ModelRepository([root]).open("n")
    add_model(tmp_path, "o", relu())
    (root / "o").mkdir()
    (root / "o" / "1").symlink_to(tmp_path / "o" / "1")
    with pytest.raises(NotFoundError):
        ModelRepository([root]).open("o")


def test_versions_of_one_model_have_one_signature(root: Path) -> None:
    add_model(root, "m", relu(("b", 4), output_shape=("b", 4)), "version_policy { all { } }")
    add_model(root, "m", relu(), version=2)
    repository = ModelRepository([root])
    definition = repository.open("m")
    assert definition.versions == (1, 2)
    repository.verify(definition, 2)
    with pytest.raises(ConfigError, match="does not fit"):
        repository.verify(definition, 1)


def test_a_repository_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    add_model(root, "m", relu())
    (tmp_path / "current").symlink_to(root)
    repository = ModelRepository([tmp_path / "current"])
    repository.verify(repository.open("m"), 1)
