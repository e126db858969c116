"""A local repository follows a store: what is fetched, shown and removed, and what a failure leaves."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path

import pytest
from erg_server.errors import FailedPreconditionError, UnavailableError
from erg_server.storage import unit_cache
from erg_server.storage.view import View

from tests.server.storage.fakes import FakeSource, MirrorHarness, manifest_bytes

CONFIG = b'backend: "identity"\n'


@pytest.fixture
def harness(tmp_path: Path) -> MirrorHarness:
    return MirrorHarness(tmp_path)


async def test_a_model_is_brought_with_its_files_and_not_fetched_again(harness: MirrorHarness) -> None:
    harness.source.data["m/config.pbtxt"] = CONFIG
    harness.source.put_version("m", 1, model_onnx=b"weights", sub_w=b"more")
    assert await harness.look() == {}
    tree = harness.tree()
    assert tree["m/config.pbtxt"] == CONFIG
    assert tree["m/1/model.onnx"] == b"weights"
    assert tree["m/1/manifest.json"] == harness.source.data["m/1/manifest.json"]
    assert harness.mirror.names == {"m"}
    harness.source.reads.clear()
    assert await harness.look() == {}
    assert harness.source.reads == []
    assert harness.tree() == tree


async def test_another_process_with_the_same_cache_fetches_nothing(tmp_path: Path) -> None:
    first = MirrorHarness(tmp_path)
    first.source.put_version("m", 1, model_onnx=b"weights")
    await first.look()
    second = MirrorHarness(tmp_path, first.source, view="other")
    first.source.reads.clear()
    await second.look()
    assert second.tree() == first.tree()
    assert first.source.reads == []
    first.source.put_version("m", 2, model_onnx=b"weights2")
    await first.look()
    assert "m/1/model.onnx" in second.tree(), "what one process drops, the other still has"
    assert second.tree()["m/1/model.onnx"] == b"weights"


async def test_two_processes_at_once_fetch_a_version_once(tmp_path: Path) -> None:
    first = MirrorHarness(tmp_path)
    second = MirrorHarness(tmp_path, first.source, view="other")
    first.source.put_version("m", 1, model_onnx=b"weights")
    await asyncio.gather(first.look(), second.look())
    assert first.tree() == second.tree()
    assert [key for key, _ in first.source.reads].count("m/1/model.onnx") == 1


async def test_a_new_version_replaces_the_old_one_which_stays_while_it_is_in_use(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"one")
    await harness.look()
    harness.used["m"] = {1}
    harness.source.put_version("m", 2, model_onnx=b"two")
    await harness.look()
    assert {"m/1/model.onnx", "m/2/model.onnx"} <= harness.tree().keys()
    harness.used["m"] = {2}
    await harness.look()
    assert "m/1/model.onnx" not in harness.tree()
    kept = [path.name[0] for path in (harness.cache.root / "units" / "m").iterdir()]
    assert kept == ["2"], "nobody shows the other one any more"


async def test_a_removed_version_and_a_removed_model_go(harness: MirrorHarness) -> None:
    for version in (1, 2):
        harness.source.put_version("m", version, model_onnx=b"m%d" % version)
    harness.source.put_version("n", 1, model_onnx=b"n")
    await harness.look()
    harness.used = {"m": {2}, "n": {1}}
    harness.source.data = {key: data for key, data in harness.source.data.items() if key.startswith("m/1/")}
    assert await harness.look() == {}
    assert sorted(harness.tree()) == ["m/1/manifest.json", "m/1/model.onnx"]


async def test_bytes_that_the_manifest_does_not_know_are_never_shown_nor_fetched_twice(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    await harness.look()
    harness.used["m"] = {1}
    harness.source.put_version("m", 2, model_onnx=b"weights")
    harness.source.data["m/2/model.onnx"] = b"WEIGHTS"
    problems = await harness.look()
    assert "has sha256" in problems["m"]
    assert "m/2/model.onnx" not in harness.tree()
    assert harness.tree()["m/1/model.onnx"] == b"weights"
    harness.source.reads.clear()
    await harness.look()
    assert "m/2/model.onnx" not in harness.source.read_keys(), "it did not change"
    assert any("version 2" in warning and "has sha256" in warning for warning in harness.warnings)
    harness.source.data["m/2/model.onnx"] = b"weights"
    assert await harness.look() == {}
    assert harness.tree()["m/2/model.onnx"] == b"weights"


async def test_at_first_a_damaged_version_gives_way_to_the_one_before(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    harness.source.put_version("m", 2, model_onnx=b"weights")
    harness.source.data["m/2/model.onnx"] = b"WEIGHTS"
    assert "has sha256" in (await harness.look())["m"]
    assert sorted(harness.tree()) == ["m/1/manifest.json", "m/1/model.onnx"]


async def test_an_object_that_comes_short_is_fetched_on_from_where_it_ended(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"0123456789")
    harness.source.cut["m/1/model.onnx"] = 8
    problems = await harness.look()
    assert "8 bytes came of the 10" in problems["m"]
    assert harness.tree() == {}
    harness.source.cut.clear()
    harness.source.reads.clear()
    assert await harness.look() == {}
    assert ("m/1/model.onnx", 8) in harness.source.reads
    assert harness.tree()["m/1/model.onnx"] == b"0123456789"


async def test_what_an_earlier_try_left_is_verified_and_otherwise_fetched_anew(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"0123456789")
    harness.source.cut["m/1/model.onnx"] = 8
    await harness.look()
    harness.source.cut.clear()
    part = next((harness.cache.root / "staging").rglob("parts/model.onnx"))
    part.write_bytes(b"\0" * 8)
    harness.source.reads.clear()
    assert await harness.look() == {}
    assert [offset for key, offset in harness.source.reads if key == "m/1/model.onnx"] == [8, 0]
    assert harness.tree()["m/1/model.onnx"] == b"0123456789"


async def test_a_fetch_that_is_cancelled_goes_on_later(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"0123456789")
    arrived = asyncio.Event()

    def hold(key: str, offset: int) -> object:
        if key == "m/1/model.onnx" and offset == 8:
            arrived.set()
            return asyncio.Event().wait()
        return None

    harness.source.before_chunk = hold
    looking = asyncio.create_task(harness.look())
    await arrived.wait()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert harness.tree() == {}
    harness.source.before_chunk = lambda _key, _offset: None
    harness.source.reads.clear()
    assert await harness.look() == {}
    assert ("m/1/model.onnx", 8) in harness.source.reads


async def test_objects_that_change_while_they_are_fetched_are_not_taken(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights", more_bin=b"more")

    def change(key: str, _: int) -> None:
        if key == "m/1/manifest.json":
            harness.source.data["m/1/more.bin"] = b"MORE"

    harness.source.before_chunk = change
    assert "changed while it was read" in (await harness.look())["m"]
    assert harness.tree() == {}


async def test_an_upload_without_a_manifest_is_taken_when_two_looks_agree(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"old", manifest=False)
    await harness.look()
    harness.used["m"] = {1}
    harness.source.put_version("m", 2, model_onnx=b"new", manifest=False)
    await harness.look(settled=True)
    harness.source.put_version("m", 2, weights_bin=b"external", manifest=False)
    await harness.look(settled=True)
    assert "m/2/model.onnx" not in harness.tree()
    await harness.look(settled=True)
    assert harness.tree()["m/2/weights.bin"] == b"external"
    assert any("digests cannot be" in warning for warning in harness.warnings)


async def test_with_a_manifest_still_missing_files_the_version_waits(harness: MirrorHarness) -> None:
    harness.source.data["m/1/manifest.json"] = manifest_bytes("m", {"model.onnx": b"weights"})
    problems = await harness.look()
    assert "no version that can be taken: version 1" in problems["m"]
    assert "(yet)" in problems["m"]
    harness.source.data["m/1/model.onnx"] = b"weights"
    assert await harness.look() == {}
    assert harness.tree()["m/1/model.onnx"] == b"weights"


async def test_one_models_failure_is_no_other_models(harness: MirrorHarness) -> None:
    harness.source.data["a/config.pbtxt"] = b"max_batch_sise: 3"
    harness.source.put_version("a", 1, model_onnx=b"a")
    harness.source.put_version("b", 1, model_onnx=b"b")
    problems = await harness.look()
    assert list(problems) == ["a"]
    assert "max_batch_sise" in problems["a"]
    assert sorted(harness.tree()) == ["b/1/manifest.json", "b/1/model.onnx"]


async def test_the_models_own_configuration_says_which_versions_are_fetched(harness: MirrorHarness) -> None:
    harness.source.data["m/config.pbtxt"] = b"version_policy { specific { versions: [ 1, 3 ] } }"
    for version in (1, 2, 3):
        harness.source.put_version("m", version, model_onnx=b"m%d" % version)
    await harness.look()
    assert sorted(path for path in harness.tree() if path.endswith("onnx")) == ["m/1/model.onnx", "m/3/model.onnx"]
    harness.source.data["m/config.pbtxt"] = CONFIG
    harness.source.data["m/labels.txt"] = b"cat"
    await harness.look()
    assert sorted(harness.tree()) == ["m/3/manifest.json", "m/3/model.onnx", "m/config.pbtxt", "m/labels.txt"]
    del harness.source.data["m/labels.txt"]
    await harness.look()
    assert "m/labels.txt" not in harness.tree()
    assert harness.tree()["m/config.pbtxt"] == CONFIG


async def test_a_configuration_alone_is_no_model_yet(harness: MirrorHarness) -> None:
    harness.source.data["m/config.pbtxt"] = CONFIG
    problems = await harness.look()
    assert "no version" in problems["m"]
    assert harness.tree() == {}


async def test_a_version_that_is_overwritten_is_replaced(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    await harness.look()
    harness.used["m"] = {1}
    harness.source.put_version("m", 1, model_onnx=b"WEIGHTS")
    assert await harness.look() == {}
    assert harness.tree()["m/1/model.onnx"] == b"WEIGHTS"


async def test_a_listing_that_fails_changes_nothing(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    await harness.look()
    tree = harness.tree()
    harness.source.listing_error = UnavailableError("the bucket is gone")
    with pytest.raises(UnavailableError, match="the bucket is gone"):
        await harness.look()
    assert harness.tree() == tree


async def test_odd_keys_are_told_once_and_never_written(harness: MirrorHarness, tmp_path: Path) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    harness.source.data["m/1/../../../../evil"] = b"x"
    harness.source.data["/etc/evil"] = b"x"
    await harness.look()
    await harness.look()
    assert len([warning for warning in harness.warnings if "evil" in warning]) == 2
    assert not list(tmp_path.rglob("evil"))


async def test_named_models_alone_are_fetched_by_listing_them_alone(harness: MirrorHarness) -> None:
    for name in ("a", "b", "ab"):
        harness.source.put_version(name, 1, model_onnx=name.encode())
    await harness.look(["a"])
    assert harness.source.lists == ["a"]
    assert sorted(harness.tree()) == ["a/1/manifest.json", "a/1/model.onnx"]
    assert "has no model 'c'" in (await harness.look(["c"]))["c"]
    await harness.look(["a", "ab"])
    assert {path.split("/")[0] for path in harness.tree()} == {"a", "ab"}


async def test_a_disk_without_room_is_told_before_it_is_full_and_what_nobody_shows_goes_first(
    harness: MirrorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    await harness.look()
    unused = harness.cache.root / "units" / "old" / "1-abc"
    unused.mkdir(parents=True)
    (unused / "model.onnx").write_bytes(b"x")
    usage = shutil.disk_usage(harness.cache.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=unit_cache.SPARE_BYTES - 1))
    harness.source.put_version("m", 2, model_onnx=b"weights")
    problems = await harness.look()
    assert "left; what is served serves on" in problems["m"]
    assert not unused.exists()
    assert harness.tree()["m/1/model.onnx"] == b"weights"


async def test_a_disk_that_fills_while_fetching_is_a_typed_error_and_gives_its_room_back(
    harness: MirrorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")

    def full(_key: str, _offset: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    harness.source.before_chunk = lambda key, offset: full(key, offset) if key.endswith("onnx") else None
    problems = await harness.look()
    assert "the disk is full" in problems["m"]
    assert not list((harness.cache.root / "staging").rglob("parts"))
    assert harness.tree() == {}


async def test_a_unit_that_was_damaged_in_the_cache_is_fetched_again(harness: MirrorHarness) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    await harness.look()
    unit = next((harness.cache.root / "units" / "m").iterdir())
    (unit / "model.onnx").unlink()
    assert await harness.look() == {}
    assert (unit / "model.onnx").read_bytes() == b"weights"


async def test_a_manifest_too_large_to_be_one_is_not_read(harness: MirrorHarness) -> None:
    harness.source.data["m/1/manifest.json"] = b" " * (4 << 20) + b"x"
    harness.source.data["m/1/model.onnx"] = b"x"
    assert "a manifest has at most" in (await harness.look())["m"]
    assert harness.source.reads == []


async def test_versions_without_digests_can_be_refused(tmp_path: Path) -> None:
    harness = MirrorHarness(tmp_path, require_digests=True)
    harness.source.put_version("m", 1, model_onnx=b"weights", manifest=False)
    assert "--require-digests" in (await harness.look())["m"]
    assert harness.tree() == {}


async def test_a_folder_that_was_not_fetched_is_left_alone(harness: MirrorHarness) -> None:
    own = harness.root / "m" / "1"
    own.mkdir(parents=True)
    (own / "model.onnx").write_bytes(b"mine")
    harness.source.put_version("m", 1, model_onnx=b"theirs")
    assert "was not fetched to there" in (await harness.look())["m"]
    assert harness.tree() == {"m/1/model.onnx": b"mine"}


async def test_locations_that_share_a_view_do_not_take_each_others_models(tmp_path: Path) -> None:
    uris = ["s3://bucket/a", "s3://bucket/b"]
    first = MirrorHarness(tmp_path, FakeSource(uris[0]), others=uris)
    first.source.put_version("m", 1, model_onnx=b"a")
    await first.look()
    second = MirrorHarness(tmp_path, FakeSource(uris[1]), others=uris)
    second.source.put_version("m", 1, model_onnx=b"b")
    assert "several repositories: s3://bucket/a, s3://bucket/b" in (await second.look())["m"]
    assert second.tree()["m/1/model.onnx"] == b"a"


async def test_where_hard_links_are_refused_files_are_copied(
    harness: MirrorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    harness.source.put_version("m", 1, model_onnx=b"weights")
    assert await harness.look() == {}
    assert await harness.look() == {}
    assert harness.tree()["m/1/model.onnx"] == b"weights"


async def test_what_was_shown_last_can_be_shown_again_without_the_store(harness: MirrorHarness, tmp_path: Path) -> None:
    harness.source.data["m/config.pbtxt"] = CONFIG
    harness.source.put_version("m", 1, model_onnx=b"weights")
    harness.source.put_version("n", 1, model_onnx=b"n")
    await harness.look()
    later = MirrorHarness(tmp_path, harness.source, view="later")
    harness.source.reads.clear()
    assert sorted(await later.mirror.restore(View(later.root, tmp_path / "view.json"), None)) == ["m", "n"]
    assert later.tree() == harness.tree()
    assert harness.source.reads == []


async def test_a_view_whose_record_is_lost_touches_nothing(harness: MirrorHarness, tmp_path: Path) -> None:
    harness.source.put_version("m", 1, model_onnx=b"weights")
    await harness.look()
    (tmp_path / "view.json").write_text("{not json")
    again = MirrorHarness(tmp_path, harness.source)
    assert "was not fetched to there" in (await again.look())["m"]
    with pytest.raises(FailedPreconditionError):
        again.mirror.view.show("m", "s3://bucket/models", {})
