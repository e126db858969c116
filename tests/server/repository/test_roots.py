"""A repository that is one model's own folder, as KServe's storage initializer leaves it in /mnt/models."""

from __future__ import annotations

from pathlib import Path

import pytest
from erg_server.errors import InvalidArgumentError, NotFoundError
from erg_server.repository.problem import ConfigError
from erg_server.repository.repository import ModelRepository
from erg_server.repository.roots import check_root

from tests.server.repository.builders import IDENTITY_CONFIG, add_model, relu


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A model's folder with two versions and no configuration."""
    add_model(tmp_path, "models", relu())
    add_model(tmp_path, "models", relu(), version=3)
    return tmp_path / "models"


@pytest.mark.parametrize(("stated", "name"), [("", "models"), ("minilm", "minilm")])
def test_one_models_folder_is_served_under_its_name_or_the_stated_one(single: Path, stated: str, name: str) -> None:
    repository = ModelRepository([single], single_name=stated)
    check_root(single, stated)
    (entry,) = repository.scan().values()
    assert (entry.name, entry.root, entry.path, entry.versions) == (name, single, single, (1, 3))
    definition = repository.open(name)
    assert definition.model_file(3) == single / "3" / "model.onnx"
    repository.verify(definition, 3)
    for other in ("other", "1", "3"):
        with pytest.raises(NotFoundError):
            repository.open(other)


def test_its_configuration_counts_and_may_state_no_other_name(tmp_path: Path) -> None:
    add_model(tmp_path, "m", None, IDENTITY_CONFIG)
    assert ModelRepository([tmp_path / "m"], single_name="served").open("served").spec.backend == "identity"
    config = tmp_path / "m" / "config.pbtxt"
    config.write_text(f'name: "m" {IDENTITY_CONFIG}')
    ModelRepository([tmp_path / "m"]).open("m")
    with pytest.raises(ConfigError, match="use 'served', or leave the key out"):
        ModelRepository([tmp_path / "m"], single_name="served").open("served")


def test_a_link_to_a_models_folder_is_followed_as_that_of_a_repository_is(single: Path, tmp_path: Path) -> None:
    # KServe's model images leave such a link.
    (tmp_path / "link").symlink_to(single)
    repository = ModelRepository([tmp_path / "link"], single_name="m")
    assert list(repository.scan()) == ["m"]
    repository.verify(repository.open("m"), 3)


def test_a_repository_stays_one_whatever_lies_beside_its_models(tmp_path: Path) -> None:
    add_model(tmp_path, "m", relu())
    (tmp_path / "2024").mkdir()
    (tmp_path / "config.toml").write_text("")
    repository = ModelRepository([tmp_path], single_name="m2")
    assert list(repository.scan()) == ["m"]
    with pytest.raises(NotFoundError):
        repository.open("m2")


def test_a_model_called_by_a_number_is_no_version(tmp_path: Path) -> None:
    add_model(tmp_path, "1", relu())
    assert list(ModelRepository([tmp_path], single_name="m").scan()) == ["1"]


def test_changes_of_one_models_folder_are_seen(single: Path) -> None:
    repository = ModelRepository([single])
    before = repository.scan()["models"].fingerprint
    (single / "4").mkdir()
    (single / "4" / "model.onnx").write_bytes(b"")
    assert repository.scan()["models"].fingerprint != before


def test_a_file_without_a_version_is_told_where_to_lie(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match=r"without a version; move it to 1/model\.onnx"):
        check_root(tmp_path)


def test_a_folder_whose_name_is_none_needs_one(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    (folder / "1").mkdir(parents=True)
    assert ModelRepository([folder]).scan() == {}
    with pytest.raises(InvalidArgumentError, match=r"'my model' cannot name a model; give its name by --model-name"):
        check_root(folder)
    check_root(folder, "m")
    with pytest.raises(InvalidArgumentError, match="cannot name a model"):
        check_root(folder, "no name")


def test_an_empty_repository_is_one_all_the_same(tmp_path: Path) -> None:
    check_root(tmp_path)
    with pytest.raises(InvalidArgumentError, match="there is no such folder"):
        check_root(tmp_path / "gone")
