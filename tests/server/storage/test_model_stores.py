"""All buckets of a server: starts without them, failures that are counted, folders shared between processes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from erg_server.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, UnavailableError
from erg_server.storage import model_stores
from erg_server.storage.fetch_meter import fetch_families
from erg_server.storage.location import parse_location
from erg_server.storage.model_stores import ListingError, ModelStores, default_cache, open_sources

from tests.server.storage.fakes import FakeSource


def unused(_: str) -> set[int]:
    return set()


@pytest.fixture
def source() -> FakeSource:
    source = FakeSource()
    source.put_version("m", 1, model_onnx=b"weights")
    return source


def shown(stores: ModelStores) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for root in stores.roots for path in root.rglob("*.onnx"))


async def test_a_start_fetches_everything_or_what_is_named(source: FakeSource, tmp_path: Path) -> None:
    source.put_version("n", 1, model_onnx=b"n")
    stores = ModelStores([source], tmp_path)
    assert await stores.start([]) == {}
    assert (shown(stores), stores.names) == ([], {"m", "n"})
    assert await stores.start(["n", "in-a-folder"]) == {}
    assert shown(stores) == ["n/1/model.onnx"]
    assert await stores.start(None) == {}
    assert shown(stores) == ["m/1/model.onnx", "n/1/model.onnx"]
    stores.close()


async def test_a_start_without_the_bucket_serves_what_the_cache_has(
    source: FakeSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = ModelStores([source], tmp_path)
    await stores.start(None)
    stores.close()
    source.listing_error = UnavailableError("connection refused")
    again = ModelStores([source], tmp_path)
    assert await again.start(None) == {}
    assert shown(again) == ["m/1/model.onnx"]
    assert "serving what the cache has of s3://bucket/models: m" in caplog.text
    again.close()


async def test_a_start_without_the_bucket_and_without_a_cache_says_why_it_ends(
    source: FakeSource, tmp_path: Path
) -> None:
    source.listing_error = UnavailableError("connection refused")
    stores = ModelStores([source], tmp_path)
    with pytest.raises(ListingError, match="connection refused"):
        await stores.start(None)
    stores.close()


async def test_a_look_that_fails_keeps_what_is_shown_and_is_counted_and_told_once(
    source: FakeSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = ModelStores([source], tmp_path)
    await stores.start(None)
    source.listing_error = UnavailableError("connection refused")
    for _ in range(3):
        assert await stores.refresh(unused) == {}
    assert shown(stores) == ["m/1/model.onnx"]
    assert caplog.text.count("listing s3://bucket/models failed") == 1
    assert (stores.meters[0].polls, stores.meters[0].poll_failures) == (4, 3)
    source.listing_error = None
    caplog.set_level(logging.INFO)
    await stores.refresh(unused)
    assert "works again" in caplog.text
    stores.close()


async def test_what_is_known_of_a_models_problem_stays_while_the_bucket_is_silent(
    source: FakeSource, tmp_path: Path
) -> None:
    source.data["m/1/model.onnx"] = b"WEIGHTS"
    stores = ModelStores([source], tmp_path)
    assert "has sha256" in (await stores.start(None))["m"].message
    source.listing_error = UnavailableError("connection refused")
    assert "m" in await stores.refresh(unused)
    stores.close()


async def test_a_named_model_is_fetched_from_the_bucket_that_has_it(source: FakeSource, tmp_path: Path) -> None:
    other = FakeSource("s3://other")
    other.put_version("n", 1, model_onnx=b"n")
    stores = ModelStores([source, other], tmp_path)
    assert await stores.fetch("n", unused) is None
    assert shown(stores) == ["n/1/model.onnx"]
    assert stores.holds(stores.roots[1] / "n")
    assert not stores.holds(tmp_path / "n")
    assert await stores.fetch("nowhere", unused) is None, "it may be in a folder"
    source.listing_error = UnavailableError("connection refused")
    assert isinstance(await stores.fetch("n", unused), ListingError)
    stores.close()


async def test_a_servers_folder_is_its_own_while_it_lives_and_used_again_later(
    source: FakeSource, tmp_path: Path
) -> None:
    first, second = ModelStores([source], tmp_path), ModelStores([source], tmp_path)
    await first.start(None)
    await second.start(None)
    assert first.roots != second.roots
    path = first.roots[0]
    first.close()
    assert not path.exists()
    third = ModelStores([source], tmp_path)
    assert third.roots == [path]
    assert shown(second) == ["m/1/model.onnx"]
    second.close()
    third.close()


async def test_what_a_process_that_died_left_is_removed(source: FakeSource, tmp_path: Path) -> None:
    views = tmp_path / source.location.id / "views"
    for number in (0, 1):
        (views / str(number) / "dead").mkdir(parents=True)
        (views / f"{number}.lock").touch()
    stores = ModelStores([source], tmp_path)
    assert stores.roots == [views / "0"]
    assert not list(views.glob("*/dead"))
    stores.close()


def test_a_cache_that_cannot_be_written_names_the_setting(source: FakeSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPreconditionError, match="--model-cache"):
        ModelStores([source], tmp_path / "file")


async def test_figures_are_shown_by_bucket(source: FakeSource, tmp_path: Path) -> None:
    stores = ModelStores([source], tmp_path)
    await stores.start(None)
    samples = {
        sample.name: sample.value
        for family in fetch_families(stores.meters)
        for sample in family.samples
        if sample.labels == {"repository": "s3://bucket/models"}
    }
    assert samples["erg_repository_fetched_bytes_total"] == sum(map(len, source.data.values()))
    assert samples["erg_repository_fetch_seconds_count"] == 1
    assert samples["erg_repository_poll_failures_total"] == 0
    assert samples["erg_repository_polls_total"] == 1
    assert not list(fetch_families([]))
    stores.close()


def test_the_systems_cache_is_taken_where_it_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_stores, "SHARED_CACHE", tmp_path)
    assert default_cache() == tmp_path
    monkeypatch.setattr(model_stores, "SHARED_CACHE", tmp_path / "absent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / "erg" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/erg/models")
    assert os.environ["HOME"] == "/home/someone"


def test_a_server_takes_no_archive_and_says_what_does() -> None:
    with pytest.raises(InvalidArgumentError, match=r"erg fetch --model-repository https://host/a\.tar"):
        open_sources([parse_location("https://host/a.tar")])
    assert open_sources([parse_location("folder")]) == []


async def test_a_model_that_is_in_no_bucket_is_no_problem_of_the_start(source: FakeSource, tmp_path: Path) -> None:
    stores = ModelStores([source], tmp_path)
    assert await stores.start(["absent"]) == {}
    assert not any(isinstance(error, NotFoundError) for error in (await stores.refresh(unused)).values())
    stores.close()
