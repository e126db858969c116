"""A tar archive behind an HTTP address as a place that models come from. Fetched whole, unpacked with suspicion."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from erg_server.errors import ErgError, InvalidArgumentError, ResourceExhaustedError, UnavailableError
from erg_server.files import replace_text
from erg_server.storage.bucket import client_options as bucket_options
from erg_server.storage.bucket import load_library, retry_config
from erg_server.storage.catalogue import key_problem
from erg_server.storage.folder import FolderSource
from erg_server.storage.location import Location
from erg_server.storage.object_source import CHUNK_BYTES, StoredObject
from erg_server.storage.storage_errors import disk_error, storage_error

MAX_MEMBERS = 100_000
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, OSError)


class ArchiveSource:
    """An `ObjectSource` over `https://host/models.tar` (also .tar.gz, .tar.xz, .tar.bz2).

    What it held is kept in `work`, so that an archive that did not change is asked for and not fetched again.
    """

    def __init__(self, location: Location, work: Path, max_bytes: int) -> None:
        """Open nothing yet; raises FailedPreconditionError where the library is missing."""
        self.location = location
        self._library = load_library(location.uri)
        self._work = work
        self._max_bytes = max_bytes
        parts = urlsplit(location.uri)
        self._path = unquote(parts.path).lstrip("/")
        options = bucket_options() | {"allow_http": parts.scheme == "http"}
        self._store = self._library.store.from_url(
            f"{parts.scheme}://{parts.netloc}", client_options=options, retry_config=retry_config()
        )
        self._files = FolderSource(location, work / "unpacked")
        self._unpacked = False

    async def list_objects(self, prefix: str = "") -> Sequence[StoredObject]:
        """The archive's files, with their digests as etags."""
        saved = await asyncio.to_thread(self._load)
        try:
            result = await self._open(saved)
            objects = saved[1] if result is None else await self._fetch(result)
        except (self._library.exceptions.BaseError, OSError, ValueError) as error:
            raise storage_error(error, self.location.uri) from None
        return [each for each in objects if each.key.startswith(f"{prefix}/" if prefix else "")]

    async def read(self, stored: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a file of the archive from `offset` on; fetches the archive if it has not been."""
        if not self._unpacked:
            try:
                await self._fetch(await self._open(("", ())))
            except (self._library.exceptions.BaseError, OSError, ValueError) as error:
                raise storage_error(error, self.location.uri) from None
        async for chunk in self._files.read(stored, offset):
            yield chunk

    def close(self) -> None:
        """Remove what was unpacked; what is kept is what it held."""
        shutil.rmtree(self._work / "unpacked", ignore_errors=True)
        (self._work / "archive.part").unlink(missing_ok=True)

    async def _open(self, saved: tuple[str, Sequence[StoredObject]]) -> Any:
        """The answer to a request for the archive, None where it is the one that was unpacked before."""
        etag = saved[0]
        options = {"if_none_match": etag} if etag.startswith(('"', "W/")) else {}
        try:
            result = await self._library.get_async(self._store, self._path, options=options)
        except self._library.exceptions.NotModifiedError:
            return None
        return None if etag and _identity(result.meta) == etag else result

    async def _fetch(self, result: Any) -> Sequence[StoredObject]:
        """Download and unpack; the listing is kept once all of it is there."""
        part, nbytes = self._work / "archive.part", result.meta["size"]
        await asyncio.to_thread(self._prepare, nbytes)
        try:
            with await asyncio.to_thread(part.open, "wb") as file:
                async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                    await asyncio.to_thread(file.write, chunk)
            objects = await asyncio.to_thread(self._unpack, part, nbytes)
        except BaseException:
            self.close()
            raise
        part.unlink(missing_ok=True)
        self._unpacked = True
        await asyncio.to_thread(self._save, _identity(result.meta), objects)
        return objects

    def _unpack(self, part: Path, nbytes: int) -> Sequence[StoredObject]:
        if part.stat().st_size != nbytes:
            raise UnavailableError(f"{self.location.uri}: {part.stat().st_size} bytes came of {nbytes}")
        return unpack(part, self._work / "unpacked", self._max_bytes, self.location.uri)

    def _prepare(self, nbytes: int) -> None:
        self.close()
        self._work.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._work).free
        if nbytes > free:
            raise ResourceExhaustedError(f"{self.location.uri} has {nbytes} bytes; {self._work} has {free} left")

    def _load(self) -> tuple[str, Sequence[StoredObject]]:
        """The etag and the files of the archive that was unpacked last; nothing where that cannot be told."""
        try:
            saved = json.loads((self._work / "archive.json").read_text(encoding="utf-8"))
            objects = [
                StoredObject(key=str(key), bytes=int(size), etag=str(etag)) for key, size, etag in saved["files"]
            ]
            return str(saved["etag"]), objects
        except (OSError, ValueError, KeyError, TypeError):
            return "", ()

    def _save(self, etag: str, objects: Sequence[StoredObject]) -> None:
        files = [[each.key, each.bytes, each.etag] for each in objects]
        replace_text(self._work / "archive.json", json.dumps({"etag": etag, "files": files}))


def unpack(archive: Path, into: Path, max_bytes: int, uri: str) -> Sequence[StoredObject]:
    """Unpack plain files below `into`, which must not exist.

    Raises:
        InvalidArgumentError: it is no whole tar archive, or holds a link, a device, an odd path or one path twice.
        ResourceExhaustedError: it unpacks to more than `max_bytes`, or the disk is full.
    """
    objects: list[StoredObject] = []
    room = max_bytes
    try:
        with tarfile.open(archive, mode="r|*") as tar:
            for number, member in enumerate(tar):
                key = member.name.removeprefix("./").rstrip("/")
                if number >= MAX_MEMBERS:
                    raise ResourceExhaustedError(f"{uri}: the archive has more than {MAX_MEMBERS} members")
                if member.isdir():
                    continue
                problem = key_problem(key) if member.isreg() else "is a link or a device"
                if problem:
                    raise InvalidArgumentError(f"{uri}: '{key[:200]}' in the archive {problem}; nothing was taken")
                room -= member.size
                if room < 0:
                    raise ResourceExhaustedError(f"{uri}: the archive unpacks to more than {max_bytes} bytes")
                objects.append(_write_member(tar, member, into / key, key, uri))
    except ErgError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise disk_error(error, f"unpacking {uri}") from error
        raise InvalidArgumentError(f"{uri}: no tar archive, or cut short: {error}") from error
    except _DAMAGED as error:
        raise InvalidArgumentError(f"{uri}: no tar archive, or cut short: {error}") from error
    return objects


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, key: str, uri: str) -> StoredObject:
    source = tar.extractfile(member)
    assert source is not None, "a plain file"
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        raise InvalidArgumentError(f"{uri}: '{key[:200]}' is in the archive twice; nothing was taken")
    with path.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return StoredObject(key=key, bytes=member.size, etag=digest.hexdigest())


def _identity(meta: Any) -> str:
    """What changes with the archive; "" where the server tells nothing of it."""
    if meta["e_tag"]:
        return str(meta["e_tag"])
    # The library says 1970 where the server says nothing.
    return f"{meta['last_modified'].isoformat()} {meta['size']}" if meta["last_modified"].timestamp() > 0 else ""
