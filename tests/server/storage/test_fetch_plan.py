"""Which versions are taken from a listing, and which stay in sight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from erg_server.pb import model_config_pb2 as pb
from erg_server.storage.catalogue import ListedModel, listing_digest, read_listing
from erg_server.storage.fetch_plan import (
    ReadManifest,
    VersionPlan,
    drop_versions,
    own_files,
    plan_versions,
    read_manifest,
)
from erg_server.storage.object_source import StoredObject
from hypothesis import given
from hypothesis import strategies as st

from tests.server.storage.fakes import etag, manifest_bytes

ALL = pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
LATEST = pb.ModelVersionPolicy()


def version(
    number: int, *, manifest: bool = True, data: bytes = b"weights", listed: bytes | None = None
) -> dict[str, bytes]:
    """`data` is what the manifest was written for, `listed` what is stored."""
    stored = {f"m/{number}/model.onnx": data if listed is None else listed}
    return stored | ({f"m/{number}/manifest.json": manifest_bytes("m", {"model.onnx": data})} if manifest else {})


def model_of(*versions: Mapping[str, bytes]) -> ListedModel:
    data = {key: value for each in versions for key, value in each.items()}
    listed = [StoredObject(key=key, bytes=len(value), etag=etag(value)) for key, value in data.items()]
    return read_listing(listed).models["m"]


def manifests_of(*versions: Mapping[str, bytes]) -> dict[int, ReadManifest]:
    data = {key: value for each in versions for key, value in each.items()}
    return {int(key.split("/")[1]): read_manifest(data[key]) for key in data if key.endswith("manifest.json")}


def plan(
    *versions: Mapping[str, bytes],
    policy: pb.ModelVersionPolicy = LATEST,
    seen_before: Mapping[int, str] | None = None,
    refused: Mapping[str, str] | None = None,
    require_digests: bool = False,
) -> VersionPlan:
    return plan_versions(
        model_of(*versions),
        policy,
        manifests_of(*versions),
        seen_before=seen_before,
        refused=refused or {},
        require_digests=require_digests,
    )


def taken(result: VersionPlan) -> list[int | None]:
    return [unit.version for unit in result.units]


def test_only_the_versions_that_the_policy_serves_are_taken() -> None:
    three = [version(1), version(2), version(10)]
    latest_2 = pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=2))
    specific = pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[1, 7]))
    assert taken(plan(*three)) == [10]
    assert taken(plan(*three, policy=latest_2)) == [2, 10]
    assert taken(plan(*three, policy=ALL)) == [1, 2, 10]
    assert taken(plan(*three, policy=specific)) == [1], "what it names and is not there is told at the load"


def test_no_manifest_is_asked_for_that_cannot_matter() -> None:
    model = model_of(version(1), version(2), version(3))
    asked = plan_versions(model, LATEST, {}, seen_before=None, refused={}, require_digests=False)
    assert asked.unread == (3,)
    assert not asked.units


def test_a_version_whose_files_are_not_all_there_gives_way_to_the_one_before() -> None:
    cut = plan(version(1), version(2, listed=b"weig"))
    assert taken(cut) == [1]
    assert cut.passed_over == {2: "'model.onnx' has 4 bytes; its manifest.json says 7"}
    missing = {key: data for key, data in version(2).items() if "onnx" not in key}
    assert "not there (yet)" in plan(version(1), missing).passed_over[2]


def test_a_manifest_that_means_nothing_is_told() -> None:
    assert "not valid JSON" in plan({"m/1/model.onnx": b"x", "m/1/manifest.json": b"{"}).passed_over[1]
    assert "UTF-8" in plan({"m/1/model.onnx": b"x", "m/1/manifest.json": b"\xff"}).passed_over[1]
    climbing = {"m/1/model.onnx": b"x", "m/1/manifest.json": manifest_bytes("m", {"../../x": b"x"})}
    assert "is no path" in plan(climbing).passed_over[1]


def test_without_a_manifest_a_version_is_taken_when_two_looks_agree() -> None:
    bare = version(1, manifest=False)
    digest = listing_digest(model_of(bare).versions[1])
    assert taken(plan(bare)) == [1], "who asks for it says that it is there"
    assert "on its way" in plan(bare, seen_before={}).passed_over[1]
    assert "on its way" in plan(bare, seen_before={1: "other"}).passed_over[1]
    assert taken(plan(bare, seen_before={1: digest})) == [1]
    assert "--require-digests" in plan(bare, require_digests=True).passed_over[1]


def test_bytes_that_were_wrong_are_not_asked_for_again_until_they_change() -> None:
    bad = version(2, listed=b"WEIGHTS")
    digest = listing_digest(model_of(bad).versions[2])
    assert taken(plan(version(1), bad, refused={digest: "sha256 differs"})) == [1]
    assert taken(plan(version(1), version(2), refused={digest: "sha256 differs"})) == [2]


def test_a_units_identity_is_its_manifest_or_its_listing() -> None:
    one = plan(version(1)).units[0]
    assert one.id == plan(version(1)).units[0].id
    assert one.id != plan(version(1, data=b"others!")).units[0].id
    assert one.verified
    assert sorted(one.files) == ["manifest.json", "model.onnx"]
    bare = plan(version(1, manifest=False)).units[0]
    assert not bare.verified
    assert bare.id != plan(version(1, manifest=False, data=b"others!")).units[0].id


def test_files_that_the_manifest_does_not_name_stay_where_they_are() -> None:
    extra = version(1) | {"m/1/notes.txt": b"?"}
    assert sorted(plan(extra).units[0].files) == ["manifest.json", "model.onnx"]


def test_a_models_own_files_are_a_unit() -> None:
    unit = own_files(model_of(version(1), {"m/config.pbtxt": b"x", "m/labels.txt": b"yy"}))
    assert (unit.label, unit.bytes, sorted(unit.files)) == ("files", 3, ["config.pbtxt", "labels.txt"])
    assert str(unit) == "model m's own files"


@pytest.mark.parametrize(
    ("shown", "listed", "used", "dropped"),
    [
        ({1, 2}, {1, 2}, set(), {1}),
        ({1, 2}, {1, 2}, {1, 2}, set()),
        ({1, 2}, {2}, {1, 2}, {1}),
        ({2}, {2}, set(), set()),
    ],
)
def test_what_was_replaced_stays_while_it_is_in_use_and_what_is_gone_does_not(
    shown: Iterable[int], listed: Iterable[int], used: Iterable[int], dropped: set[int]
) -> None:
    two = plan(version(1), version(2))
    assert drop_versions(set(shown), two, set(listed), set(used)) == dropped


def test_a_version_that_was_good_and_is_damaged_now_stays() -> None:
    damaged = plan(version(1), version(2, listed=b"w"))
    assert drop_versions({2}, damaged, {1, 2}, set()) == set()


@given(
    st.dictionaries(st.integers(1, 6), st.sampled_from(["whole", "cut", "bare", "odd"]), min_size=1),
    st.integers(1, 3),
    st.sets(st.integers(1, 8)),
    st.sets(st.integers(1, 8)),
)
def test_whatever_is_listed_only_whole_versions_are_taken_and_no_more_than_the_policy_serves(
    kinds: dict[int, str], count: int, shown: set[int], used: set[int]
) -> None:
    makers = {
        "whole": version,
        "cut": lambda number: version(number, listed=b"w"),
        "bare": lambda number: version(number, manifest=False),
        "odd": lambda number: version(number) | {f"m/{number}/manifest.json": b"[]"},
    }
    stored = [makers[kind](number) for number, kind in kinds.items()]
    policy = pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=count))
    result = plan(*stored, policy=policy)
    whole = sorted((number for number, kind in kinds.items() if kind in {"whole", "bare"}), reverse=True)
    assert taken(result) == sorted(whole[:count])
    dropped = drop_versions(shown, result, kinds.keys(), used)
    assert dropped <= shown - set(taken(result))
    assert not dropped & used & kinds.keys()
    assert shown - kinds.keys() <= dropped
