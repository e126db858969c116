"""Units on disk: fetched aside, published by one rename, removed when nobody shows them. Processes may share them.

    ROOT/units/MODEL/LABEL-ID/...            whole and verified, never changed again
    ROOT/staging/MODEL/LABEL-ID/{parts,whole} what a fetch has so far
    ROOT/manifests/...                       manifests by their object's path and etag
    ROOT/locks/MODEL                         held by the process that works on the model

Whoever shows a unit does so by hard links, so that a link count of 1 says that nobody does. All of it is blocking file
work but `lock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

from erg_server.errors import ResourceExhaustedError
from erg_server.files import replace_text
from erg_server.storage.fetch_plan import Unit
from erg_server.storage.object_source import StoredObject
from erg_server.storage.storage_errors import disk_error

LOCK_RETRY_S = 0.1
SPARE_BYTES = 16 << 20
"""Left free on the disk: the server's own logs and files need room too."""


class UnitCache:
    """The units of one location."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, unit: Unit) -> Path:
        """Where the unit lies once it is whole."""
        return self.folder(unit.model, unit.label, unit.id)

    def folder(self, model: str, label: str, unit_id: str) -> Path:
        """As `path`, by the unit's names."""
        return self.root / "units" / model / f"{label}-{unit_id}"

    def staging(self, unit: Unit) -> Path:
        """Where it is fetched to."""
        return self.root / "staging" / unit.model / f"{unit.label}-{unit.id}"

    def has(self, unit: Unit) -> bool:
        """Whether it is whole: every file there with its size."""
        folder = self.path(unit)
        try:
            return all((folder / path).stat().st_size == each.stored.bytes for path, each in unit.files.items())
        except OSError:
            return False

    def prepare(self, unit: Unit) -> Path:
        """Make the staging folder and see that the disk has room for what is missing.

        Raises:
            ResourceExhaustedError: it has not, even without the units that nobody shows.
        """
        folder = self.staging(unit)
        try:
            for name in ("parts", "whole"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            there = sum(path.stat().st_size for path in _files(folder))
            missing = unit.bytes - there + SPARE_BYTES
            if self._free() < missing:
                self._evict_unshown()
            free = self._free()
        except OSError as error:
            raise disk_error(error, f"fetching {unit}") from error
        if free < missing:
            raise ResourceExhaustedError(
                f"fetching {unit} needs {missing} bytes and {self.root} has {free} left; what is served serves on. "
                "Give it a larger disk or another folder"
            )
        return folder

    def publish(self, unit: Unit) -> None:
        """Bring what was fetched into place, all at once."""
        target = self.path(unit)
        whole = self.staging(unit) / "whole"
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder, _, _ in os.walk(whole, topdown=False):
            _sync(Path(folder))
        if target.exists():
            shutil.rmtree(target)  # damaged, or `has` would have found it
        whole.rename(target)
        _sync(target.parent)
        shutil.rmtree(self.staging(unit), ignore_errors=True)

    def evict(self, model: str, kept: Collection[Path]) -> list[Path]:
        """Remove the model's units that are not to be kept and that nobody shows, and what fetches left behind."""
        removed = [path for path in _folders(self.root / "units" / model) if path not in kept and not _shown(path)]
        names = {path.name for path in kept}
        left = [path for path in _folders(self.root / "staging" / model) if path.name not in names]
        for path in (*removed, *left):
            shutil.rmtree(path, ignore_errors=True)
        return removed

    def keep_manifest(self, stored: StoredObject, data: bytes) -> None:
        """Keep what a manifest says, so that no later look or process reads it again."""
        with contextlib.suppress(UnicodeDecodeError):
            replace_text(self._manifest_path(stored), data.decode("utf-8"), durable=False)

    def find_manifest(self, stored: StoredObject) -> bytes | None:
        """What was kept of a manifest, if it is as large as it should be."""
        try:
            data = self._manifest_path(stored).read_bytes()
        except OSError:
            return None
        return data if len(data) == stored.bytes else None

    def prune_manifests(self, listed: Collection[StoredObject]) -> None:
        """Forget the manifests of versions that are no longer there."""
        names = {self._manifest_path(stored).name for stored in listed}
        folder = self.root / "manifests"
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in names:
                path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def lock(self, model: str) -> AsyncIterator[None]:
        """Be the only one, of all processes, that works on this model; the kernel lets go of who dies."""
        path = self.root / "locks" / model
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(error, f"the cache {self.root}") from error
        try:
            await wait_for_lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _manifest_path(self, stored: StoredObject) -> Path:
        name = hashlib.sha256(repr((stored.key, stored.bytes, stored.etag)).encode()).hexdigest()
        return self.root / "manifests" / name

    def _free(self) -> int:
        return shutil.disk_usage(self.root).free

    def _evict_unshown(self) -> None:
        for model in _folders(self.root / "units"):
            for path in _folders(model):
                if not _shown(path):
                    shutil.rmtree(path, ignore_errors=True)


async def wait_for_lock(descriptor: int) -> None:
    """Lock an open file for this process alone, however long another one has it."""
    while not try_lock(descriptor):  # noqa: ASYNC110 (another process tells of nothing)
        await asyncio.sleep(LOCK_RETRY_S)


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process alone; False where another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _shown(folder: Path) -> bool:
    return any(path.stat().st_nlink > 1 for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for top, _, names in os.walk(folder):
        for name in names:
            yield Path(top, name)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
