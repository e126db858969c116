"""A listing sorted into models and versions, whatever keys it holds."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from erg_server.repository.layout import is_name
from erg_server.storage.catalogue import key_problem, listing_digest, read_listing
from erg_server.storage.object_source import StoredObject
from hypothesis import given
from hypothesis import strategies as st

PART = st.one_of(
    st.sampled_from(["m", "1", "02", "0", "config.pbtxt", "manifest.json", "..", ".", "", ".git", "a b", "ü", "\n"]),
    st.text(max_size=8),
)
KEYS = st.lists(PART, max_size=5).map("/".join)


def stored(key: str, size: int = 1, etag: str = "e") -> StoredObject:
    return StoredObject(key=key, bytes=size, etag=etag)


def test_models_have_versions_and_files_of_their_own() -> None:
    keys = ("m/config.pbtxt", "m/warmup/x", "m/1/model.onnx", "m/1/sub/w.bin", "m/12/model.onnx", "n/1/model.onnx")
    found = read_listing(stored(key) for key in keys)
    assert not found.refused
    assert sorted(found.models) == ["m", "n"]
    assert sorted(found.models["m"].files) == ["config.pbtxt", "warmup/x"]
    assert {version: sorted(files) for version, files in found.models["m"].versions.items()} == {
        1: ["model.onnx", "sub/w.bin"],
        12: ["model.onnx"],
    }


def test_what_stands_beside_models_is_passed_over_without_a_word() -> None:
    found = read_listing([stored("README.md"), stored(".git/config"), stored("m/.DS_Store"), stored("m/1/model.onnx")])
    assert not found.refused
    assert list(found.models) == ["m"]
    assert not found.models["m"].files


def test_empty_objects_that_stand_for_folders_are_no_files() -> None:
    found = read_listing([stored("m", 0), stored("m/1", 0), stored("m/1/model.onnx")])
    assert not found.refused
    assert found.models["m"].files == {}
    assert sorted(found.models["m"].versions[1]) == ["model.onnx"]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("m/1/../../../etc/passwd", "'..'"),
        ("/etc/passwd", "absolute"),
        ("m//1/model.onnx", "empty part"),
        ("m/1/./model.onnx", "'.'"),
        ("m/1/a\\b", "backslash"),
        ("m/1/a\nb", "not printable"),
        ("m/1/a\0b", "not printable"),
        ("m/1/" + "x" * 256, "longer than 255"),
        ("m/1/" + "x/" * 600 + "x", "longer than 1024"),
        ("-m/1/model.onnx", "cannot name a model"),
    ],
)
def test_odd_keys_are_refused_and_the_others_taken(key: str, why: str) -> None:
    found = read_listing([stored(key), stored("m/1/model.onnx")])
    assert [refused for refused, _ in found.refused] == [key]
    assert why in found.refused[0][1]
    assert sorted(found.models["m"].versions[1]) == ["model.onnx"]


def test_a_key_that_is_an_object_and_a_folder_is_refused() -> None:
    found = read_listing([stored("m/1/a"), stored("m/1/a/b")])
    assert found.refused == (("m/1/a", "is an object and a folder at once"),)


@given(st.lists(st.builds(stored, KEYS, st.integers(0, 3)), max_size=12))
def test_no_listing_leads_out_of_a_models_folder(objects: list[StoredObject]) -> None:
    found = read_listing(objects)
    for name, model in found.models.items():
        assert is_name(name)
        for path in (*model.files, *(path for files in model.versions.values() for path in files)):
            parts = PurePosixPath(path).parts
            assert path == "/".join(parts)
            assert not {"..", ".", ""} & set(parts)
            assert not path.startswith("/")


@given(st.text(max_size=40))
def test_a_key_without_a_problem_is_a_relative_path(key: str) -> None:
    if not key_problem(key):
        path = PurePosixPath(key)
        assert path.as_posix() == key
        assert not path.is_absolute()
        assert ".." not in path.parts


def test_a_listings_digest_changes_with_path_size_and_etag() -> None:
    files = {"a": stored("m/1/a")}
    changed = [{"b": stored("m/1/a")}, {"a": stored("m/1/a", 2)}, {"a": stored("m/1/a", 1, "f")}, {}]
    assert len({listing_digest(each) for each in (files, *changed)}) == 5
    assert listing_digest({"a": stored("elsewhere/1/a")}) == listing_digest(files)
