"""Decides from a listing what of a model to fetch, to show, and to take away again. Pure.

What is fetched and shown as one is a *unit*: a version, or the files beside a model's versions. A unit's identity is
that of its contents, so that what is unchanged is never fetched again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from erg_server.errors import NotFoundError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.layout import MANIFEST_FILENAME, choose_versions
from erg_server.repository.manifest import FORMAT_VERSION, FileDigest, Manifest
from erg_server.repository.manifest_json import ManifestFormatError, decode
from erg_server.storage.catalogue import Files, ListedModel, key_problem, listing_digest, manifest_of
from erg_server.storage.object_source import StoredObject

FILES_LABEL = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFile:
    """One file of a unit; `sha256` is "" where no manifest tells it."""

    stored: StoredObject
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """`version` is None for a model's own files. `id` changes with the contents."""

    model: str
    version: int | None
    id: str
    files: Mapping[str, FetchFile]

    @property
    def label(self) -> str:
        """The version, or `FILES_LABEL`."""
        return FILES_LABEL if self.version is None else str(self.version)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(each.stored.bytes for each in self.files.values())

    @property
    def verified(self) -> bool:
        """Whether every file has a digest to be held against."""
        return all(each.sha256 for each in self.files.values())

    def __str__(self) -> str:
        return f"model {self.model}" + (f" version {self.version}" if self.version is not None else "'s own files")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadManifest:
    """A version's manifest.json as it was read: what it says, or why that means nothing."""

    sha256: str
    files: Mapping[str, FileDigest] = field(default_factory=lambda: MappingProxyType({}))
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPlan:
    """Which versions to show, ascending, and why others are passed over. `unread` are manifests to read first."""

    units: tuple[Unit, ...] = ()
    passed_over: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    unread: tuple[int, ...] = ()


def read_manifest(data: bytes) -> ReadManifest:
    """Read a manifest's bytes; never raises."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        files = decode(data.decode("utf-8"), Manifest, FORMAT_VERSION).files
    except UnicodeDecodeError as error:
        return ReadManifest(sha256=digest, problem=f"its {MANIFEST_FILENAME} is not UTF-8 at byte {error.start}")
    except ManifestFormatError as error:
        return ReadManifest(sha256=digest, problem=f"its {MANIFEST_FILENAME}: {error}")
    odd = [path for path in files if key_problem(path)]
    if odd:
        return ReadManifest(sha256=digest, problem=f"its {MANIFEST_FILENAME} names {odd[0]!r:.200}, which is no path")
    return ReadManifest(sha256=digest, files=files)


def own_files(model: ListedModel) -> Unit:
    """The unit of the files beside a model's versions, which no manifest tells of."""
    files = {path: FetchFile(stored=stored) for path, stored in sorted(model.files.items())}
    return Unit(model=model.name, version=None, id=listing_digest(model.files), files=files)


def plan_versions(
    model: ListedModel,
    policy: pb.ModelVersionPolicy,
    manifests: Mapping[int, ReadManifest],
    *,
    seen_before: Mapping[int, str] | None,
    refused: Mapping[str, str],
    require_digests: bool,
) -> VersionPlan:
    """Choose the versions that the policy serves out of those that are whole.

    Newest first, so that no manifest is asked for that cannot matter. `manifests` are those read so far; while
    `unread` is not empty, read these and ask again. `seen_before` are the listing digests of the look before, None to
    take listings as they are: a version without a manifest may still be on its way, and is taken when two looks agree.
    `refused` has the listing digests of versions whose bytes were not what they should be, with the reason.
    """
    passed_over: dict[int, str] = {}
    units: dict[int, Unit] = {}
    unread: list[int] = []
    wanted = _count(policy)
    specific = set(policy.specific.versions) if policy.WhichOneof("policy_choice") == "specific" else None
    for version in sorted(model.versions, reverse=True):
        if specific is not None and version not in specific:
            continue
        if len(units) + len(unread) >= wanted:
            break
        files = model.versions[version]
        if manifest_of(files) is not None and version not in manifests:
            unread.append(version)
            continue
        manifest = manifests.get(version) if manifest_of(files) is not None else None
        problem = _problem(files, manifest, (seen_before or {}).get(version, ""), seen_before is None, require_digests)
        unit = _unit(model.name, version, files, manifest)
        problem = problem or refused.get(listing_digest(files), "")
        if problem:
            passed_over[version] = problem
        else:
            units[version] = unit
    if unread:
        return VersionPlan(unread=tuple(unread))
    try:
        chosen = choose_versions(policy, tuple(sorted(units)))
    except NotFoundError:
        # What the policy names and is not there yet is told when the model is loaded; the others can be brought.
        chosen = tuple(sorted(units))
    return VersionPlan(units=tuple(units[each] for each in chosen), passed_over=passed_over)


def drop_versions(
    shown: Collection[int], plan: VersionPlan, listed: Collection[int], used: Collection[int]
) -> set[int]:
    """Versions to take out of sight: gone from the store, or replaced and no longer in use.

    One that was only replaced stays while it is in use: its successor may not load, and a worker that restarts reads
    its files again. One that was good and is damaged in the store now stays as well.
    """
    planned = {unit.version for unit in plan.units}
    kept = {each for each in shown if each in listed and (each in used or each in plan.passed_over)}
    return set(shown) - planned - kept


def _count(policy: pb.ModelVersionPolicy) -> float:
    choice = policy.WhichOneof("policy_choice")
    if choice in {"all", "specific"}:
        return float("inf")
    return max(1, policy.latest.num_versions)


def _problem(files: Files, manifest: ReadManifest | None, before: str, as_it_is: bool, require_digests: bool) -> str:
    """Why a version is not taken, "" where it may be."""
    if manifest is None:
        if require_digests:
            return f"it has no {MANIFEST_FILENAME} to verify its files by, which --require-digests asks for"
        settled = as_it_is or before == listing_digest(files)
        return "" if settled else f"it has no {MANIFEST_FILENAME}, and may still be on its way; it is looked at again"
    if manifest.problem:
        return manifest.problem
    for path, expected in sorted(manifest.files.items()):
        stored = files.get(path)
        if stored is None:
            return f"its {MANIFEST_FILENAME} names '{path}', which is not there (yet)"
        if stored.bytes != expected.bytes:
            return f"'{path}' has {stored.bytes} bytes; its {MANIFEST_FILENAME} says {expected.bytes}"
    return ""


def _unit(name: str, version: int, files: Files, manifest: ReadManifest | None) -> Unit:
    if manifest is None:
        unverified = {path: FetchFile(stored=stored) for path, stored in sorted(files.items())}
        return Unit(model=name, version=version, id=listing_digest(files), files=unverified)
    verified = {
        path: FetchFile(stored=files[path], sha256=expected.sha256)
        for path, expected in sorted(manifest.files.items())
        if path in files
    }
    verified[MANIFEST_FILENAME] = FetchFile(stored=files[MANIFEST_FILENAME], sha256=manifest.sha256)
    return Unit(model=name, version=version, id=manifest.sha256[:32], files=verified)
