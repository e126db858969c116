"""What a listing holds: models, their own files and their versions. Pure; keys that no file may have are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from erg_server.repository.layout import MANIFEST_FILENAME, is_name, parse_version
from erg_server.storage.object_source import StoredObject

MAX_KEY_BYTES = 1024
MAX_PART_BYTES = 255
"""What S3 allows of a key, and Linux of a file's name."""

Files = Mapping[str, StoredObject]
"""By path, relative to the version's or the model's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """One model as it was listed: files of its own, such as config.pbtxt, and those of each version."""

    name: str
    files: Files = field(default_factory=lambda: MappingProxyType({}))
    versions: Mapping[int, Files] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The models by name, and the keys that were refused with the reason."""

    models: Mapping[str, ListedModel]
    refused: Sequence[tuple[str, str]] = ()


def read_listing(objects: Iterable[StoredObject]) -> Catalogue:
    """Sort a listing into models and versions.

    Objects beside models (`README.md`), names that start with a dot and the empty objects that stand for folders in
    some tools are passed over. A model with neither a version nor files of its own is none.
    """
    refused: list[tuple[str, str]] = []
    plain: dict[str, StoredObject] = {}
    for stored in objects:
        problem = key_problem(stored.key)
        if problem:
            refused.append((stored.key, problem))
        elif not stored.key.startswith("."):
            plain[stored.key] = stored
    folders = {"/".join(parts[:end]) for key in plain if (parts := key.split("/")) for end in range(1, len(parts))}
    models: dict[str, tuple[dict[str, StoredObject], dict[int, dict[str, StoredObject]]]] = {}
    for key, stored in plain.items():
        parts = key.split("/")
        if key in folders:
            if stored.bytes:
                refused.append((key, "is an object and a folder at once"))
            continue
        if len(parts) == 1 or parts[1].startswith("."):
            continue
        if not is_name(parts[0]):
            refused.append((key, f"'{parts[0][:140]}' cannot name a model"))
            continue
        files, versions = models.setdefault(parts[0], ({}, {}))
        version = parse_version(parts[1])
        if version is None:
            files["/".join(parts[1:])] = stored
        elif len(parts) > 2:
            versions.setdefault(version, {})["/".join(parts[2:])] = stored
    listed = {
        name: ListedModel(name=name, files=files, versions=versions)
        for name, (files, versions) in models.items()
        if files or versions
    }
    return Catalogue(models=MappingProxyType(listed), refused=tuple(refused))


def key_problem(key: str) -> str:
    """Why no file may be written for this key, "" where one may."""
    if len(key.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    if key.startswith("/"):
        return "is absolute"
    if "\\" in key or not key.isprintable():
        return "has a backslash or a character that is not printable"
    for part in key.split("/"):
        if part in {"", ".", ".."}:
            return "has an empty part, '.' or '..'"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"has a part longer than {MAX_PART_BYTES} bytes"
    return ""


def listing_digest(files: Files) -> str:
    """Changes with any object's path, size or etag; 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, stored in sorted(files.items()):
        digest.update(repr((path, stored.bytes, stored.etag)).encode())
    return digest.hexdigest()[:32]


def manifest_of(files: Files) -> StoredObject | None:
    """The object that is the version's manifest, if it has one."""
    return files.get(MANIFEST_FILENAME)
