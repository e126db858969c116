"""What every place that models come from offers: a listing, and the bytes of an object from an offset on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from erg_server.storage.location import Location

CHUNK_BYTES = 1 << 20
"""Of a read. The library makes a Python object of each while it holds the interpreter, for some 0.1 ms of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object as a listing tells of it. `key` is relative to the location; `etag` changes with its contents.

    `etag` is "" where the place has none: then only the size tells one object from another.
    """

    key: str
    bytes: int
    etag: str = ""


class ObjectSource(Protocol):
    """A bucket's prefix, a folder or an archive. All errors are ErgErrors that hold no credential."""

    @property
    def location(self) -> Location:
        """Where it is."""

    async def list_objects(self, prefix: str = "") -> Sequence[StoredObject]:
        """Every object, or those below the folder `prefix`; raises ErgError where that cannot be told."""

    def read(self, stored: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of an object from `offset` on.

        Raises:
            UnavailableError: the object is no longer the one that was listed, or cannot be read now.
        """
