"""Fetches one unit into its staging folder: sizes and digests checked, goes on where an earlier try ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path
from typing import Protocol

from erg_server.errors import ErgError, ResourceExhaustedError, UnavailableError
from erg_server.repository.manifest import ManifestError
from erg_server.storage.fetch_plan import FetchFile, Unit
from erg_server.storage.object_source import ObjectSource
from erg_server.storage.storage_errors import disk_error
from erg_server.storage.unit_cache import UnitCache

FILES_AT_ONCE = 4


class FetchProgress(Protocol):
    """Who is told how a fetch goes."""

    def started(self, unit: Unit, where: str) -> None:
        """A fetch of the unit from a location begins."""

    def advanced(self, unit: Unit, nbytes: int, *, fetched: bool = True) -> None:
        """So many more bytes of it are there; not `fetched`, they were left by an earlier try (or have to be again)."""

    def ended(self, unit: Unit, error: ErgError | None) -> None:
        """It is there, or why it is not."""


class UnitFetcher:
    """Fetches units from one location. Bounds how many objects are read at a time."""

    def __init__(self, source: ObjectSource, cache: UnitCache, progress: FetchProgress) -> None:
        self._source = source
        self._cache = cache
        self._progress = progress
        self._gate = asyncio.Semaphore(FILES_AT_ONCE)

    async def fetch(self, unit: Unit) -> None:
        """Bring the unit into the cache; what was fetched of it is kept for the next try.

        Raises:
            ManifestError: bytes are not those that the manifest was written for.
            ResourceExhaustedError: the disk has no room.
            ErgError: the objects cannot be read, or changed meanwhile.
        """
        self._progress.started(unit, self._source.location.uri)
        try:
            await self._fetch(unit)
        except ErgError as error:
            self._progress.ended(unit, error)
            raise
        except asyncio.CancelledError:
            self._progress.ended(unit, UnavailableError("cancelled"))
            raise
        self._progress.ended(unit, None)

    async def _fetch(self, unit: Unit) -> None:
        folder = await asyncio.to_thread(self._cache.prepare, unit)
        tasks = [asyncio.ensure_future(self._fetch_file(unit, path, folder)) for path in unit.files]
        try:
            await asyncio.gather(*tasks)
            await asyncio.to_thread(self._cache.publish, unit)
        except OSError as error:
            told = disk_error(error, f"fetching {unit}")
            if isinstance(told, ResourceExhaustedError):
                # Whoever still fetched would make the folder anew.
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                # Others need the room more than the next try needs what is here.
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise told from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_file(self, unit: Unit, path: str, folder: Path) -> None:
        file = unit.files[path]
        part, whole = folder / "parts" / path, folder / "whole" / path
        async with self._gate:
            if whole.exists():
                self._progress.advanced(unit, file.stored.bytes, fetched=False)
                return
            for target in (part, whole):
                # Not in a thread, which would go on after this task was cancelled.
                target.parent.mkdir(parents=True, exist_ok=True)
            resumed = await self._fetch_part(unit, file, part, resume=True)
            problem = await asyncio.to_thread(_keep_if_right, file, part, whole)
            if problem and resumed:
                # What lay there since an earlier try may be anything; a fresh copy decides.
                self._progress.advanced(unit, -file.stored.bytes, fetched=False)
                await self._fetch_part(unit, file, part, resume=False)
                problem = await asyncio.to_thread(_keep_if_right, file, part, whole)
            if problem:
                kind = ManifestError if file.sha256 else UnavailableError
                raise kind(f"{self._source.location.uri}/{file.stored.key} {problem}")

    async def _fetch_part(self, unit: Unit, file: FetchFile, part: Path, *, resume: bool) -> bool:
        """Append to what is there of the file; returns whether there was something."""
        stored = file.stored
        there = await asyncio.to_thread(_begin, part, stored.bytes, resume and bool(file.sha256))
        self._progress.advanced(unit, there, fetched=False)
        size = there
        if there < stored.bytes:
            async for chunk in self._source.read(stored, there):
                size += len(chunk)
                if size > stored.bytes:
                    break
                await asyncio.to_thread(append, part, chunk)
                self._progress.advanced(unit, len(chunk))
        if size != stored.bytes:
            where = f"{self._source.location.uri}/{stored.key}"
            raise UnavailableError(f"{where}: {size} bytes came of the {stored.bytes} that were listed")
        return there > 0


def _begin(part: Path, nbytes: int, resume: bool) -> int:
    """How much is there to go on from; nothing where it cannot be verified later, or is too much."""
    try:
        there = part.stat().st_size
    except FileNotFoundError:
        there = 0
    if not resume or there > nbytes:
        there = 0
    if not there:
        part.write_bytes(b"")
    return there


def append(part: Path, chunk: bytes) -> None:
    """Add to a file; it is opened each time, so that a fetch that is cancelled leaves nothing open."""
    with part.open("ab") as file:
        file.write(chunk)


def _keep_if_right(file: FetchFile, part: Path, whole: Path) -> str:
    """Bring a file that is right to its place, flushed; otherwise remove it and say what is wrong."""
    problem = ""
    with part.open("rb") as data:
        os.fsync(data.fileno())
        size = os.fstat(data.fileno()).st_size
        if size != file.stored.bytes:
            problem = f"was written as {size} bytes instead of {file.stored.bytes}"
        elif file.sha256 and (digest := hashlib.file_digest(data, "sha256").hexdigest()) != file.sha256:
            problem = f"has sha256 {digest}; the manifest says {file.sha256}"
    if problem:
        part.unlink()
    else:
        part.rename(whole)
    return problem
