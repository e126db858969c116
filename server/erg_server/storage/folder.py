"""A folder of this machine as a place that models come from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from erg_server.errors import NotFoundError, UnavailableError
from erg_server.repository.layout import open_plain
from erg_server.storage.location import Location
from erg_server.storage.object_source import CHUNK_BYTES, StoredObject
from erg_server.storage.storage_errors import disk_error


class FolderSource:
    """An `ObjectSource` over a folder. Links are passed over, as they are in a repository."""

    def __init__(self, location: Location, folder: Path) -> None:
        self.location = location
        self._folder = folder

    async def list_objects(self, prefix: str = "") -> Sequence[StoredObject]:
        """Every plain file; what the file system says of it is its etag."""
        return await asyncio.to_thread(self._list, prefix)

    async def read(self, stored: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        """The file's bytes from `offset` on."""
        path = self._folder / stored.key
        try:
            with await asyncio.to_thread(open_plain, path) as file:
                file.seek(offset)
                while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    yield chunk
        except NotFoundError:
            raise UnavailableError(f"{path}: went away while it was read; it is read again at the next look") from None
        except OSError as error:
            raise disk_error(error, str(path)) from error

    def _list(self, prefix: str) -> Sequence[StoredObject]:
        top = self._folder / prefix
        if not self._folder.is_dir():
            raise NotFoundError(f"{self._folder}: there is no such folder")
        found: list[StoredObject] = []
        for folder, names, files in os.walk(top, followlinks=False):
            names[:] = [name for name in names if not name.startswith(".")]
            for name in files:
                path = Path(folder, name)
                status = path.lstat()
                if path.is_file() and not path.is_symlink():
                    key = path.relative_to(self._folder).as_posix()
                    etag = f"{status.st_mtime_ns:x}-{status.st_ino:x}"
                    found.append(StoredObject(key=key, bytes=status.st_size, etag=etag))
        return found
