import multiprocessing
from pathlib import Path

import pytest
from erg_server.errors import AlreadyExistsError, InvalidArgumentError
from erg_server.repository import publication
from erg_server.repository.manifest import Manifest, ManifestError, load_manifest, verify_files
from erg_server.repository.publication import publish

MANIFEST = Manifest(model="m")


@pytest.fixture
def build(tmp_path: Path) -> Path:
    build = tmp_path / "build"
    (build / "data").mkdir(parents=True)
    (build / "model.onnx").write_bytes(b"model")
    (build / "data" / "w").write_bytes(b"weights")
    return build


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_versions_follow_one_another(tmp_path: Path, build: Path) -> None:
    root = tmp_path / "repo"
    assert [publish(root, "m", build, MANIFEST) for _ in range(2)] == [1, 2]
    (root / "m" / "7").mkdir()
    assert publish(root, "m", build, MANIFEST) == 8
    assert names(root) == ["m"]
    manifest = load_manifest(root / "m" / "8")
    assert manifest is not None
    assert set(manifest.files) == {"model.onnx", "data/w"}
    verify_files(root / "m" / "8", manifest)


def test_what_is_published_can_be_read_by_others(tmp_path: Path, build: Path) -> None:
    publish(tmp_path / "repo", "m", build, MANIFEST, "backend: 'identity'")
    published = list((tmp_path / "repo" / "m").rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in published if path.is_file()} == {0o644}
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in published if path.is_dir())


def test_a_configuration_is_kept_unless_it_shall_go(tmp_path: Path, build: Path) -> None:
    root = tmp_path / "repo"
    config = root / "m" / "config.pbtxt"
    publish(root, "m", build, MANIFEST, "max_batch_size: 1")
    publish(root, "m", build, MANIFEST, "max_batch_size: 1")
    publish(root, "m", build, MANIFEST)
    with pytest.raises(AlreadyExistsError, match=r"config\.pbtxt differs"):
        publish(root, "m", build, MANIFEST, "max_batch_size: 2")
    assert config.read_text() == "max_batch_size: 1"
    assert names(root / "m") == ["1", "2", "3", "config.pbtxt"]
    publish(root, "m", build, MANIFEST, "max_batch_size = 2", config_filename="config.toml", replace_config=True)
    assert names(root / "m") == ["1", "2", "3", "4", "config.toml"]


def test_a_model_known_by_its_configuration_alone_gets_its_first_version(tmp_path: Path, build: Path) -> None:
    (tmp_path / "repo" / "m").mkdir(parents=True)
    (tmp_path / "repo" / "m" / "config.toml").write_text("max_batch_size = 1")
    assert publish(tmp_path / "repo", "m", build, MANIFEST) == 1
    assert names(tmp_path / "repo" / "m") == ["1", "config.toml"]


@pytest.mark.parametrize("name", ["../m", ".m", ""])
def test_a_name_that_is_none_is_refused(tmp_path: Path, build: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        publish(tmp_path / "repo", name, build, MANIFEST)


def test_links_are_not_published(tmp_path: Path, build: Path) -> None:
    (build / "link").symlink_to("/etc/hostname")
    with pytest.raises(ManifestError):
        publish(tmp_path / "repo", "m", build, MANIFEST)
    assert names(tmp_path / "repo") == []


def test_nothing_to_publish_is_an_error(tmp_path: Path, build: Path) -> None:
    (build / "empty").mkdir()
    with pytest.raises(InvalidArgumentError):
        publish(tmp_path / "repo", "m", build / "empty", MANIFEST)
    (build / "manifest.json").write_text("{}")
    with pytest.raises(InvalidArgumentError, match="publication writes it"):
        publish(tmp_path / "repo", "m", build, MANIFEST)


def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path: Path, build: Path, monkeypatch) -> None:
    def fail(_: object) -> None:
        raise OSError("disk full")

    publish(tmp_path / "repo", "m", build, MANIFEST)
    monkeypatch.setattr(publication, "_sync_folders", fail)
    with pytest.raises(OSError, match="disk full"):
        publish(tmp_path / "repo", "m", build, MANIFEST)
    assert names(tmp_path / "repo") == ["m"]
    assert names(tmp_path / "repo" / "m") == ["1"]


def _publish_some(root: Path, build: Path, results) -> None:
    results.put([publish(root, "m", build, MANIFEST, "max_batch_size: 1") for _ in range(5)])


def test_publications_at_the_same_time_get_different_versions(tmp_path: Path, build: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_publish_some, args=(tmp_path / "repo", build, results), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    versions = [version for _ in processes for version in results.get(timeout=60)]
    for process in processes:
        process.join(timeout=60)
    results.close()
    results.join_thread()
    assert sorted(versions) == list(range(1, 11))
    assert names(tmp_path / "repo") == ["m"]
