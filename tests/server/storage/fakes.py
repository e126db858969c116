"""A place for models in memory, which a test fills, changes and breaks; and a progress that remembers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from erg_server.errors import ErgError, UnavailableError
from erg_server.storage.fetch_plan import Unit
from erg_server.storage.location import parse_location
from erg_server.storage.mirror import Mirror
from erg_server.storage.object_source import StoredObject
from erg_server.storage.unit_cache import UnitCache
from erg_server.storage.view import View

CHUNK = 4


class FakeSource:
    """Reads come in chunks of four bytes. `before_chunk` may fail, wait or change what is stored."""

    def __init__(self, uri: str = "s3://bucket/models") -> None:
        self.location = parse_location(uri)
        self.data: dict[str, bytes] = {}
        self.listing_error: ErgError | None = None
        self.before_chunk: Callable[[str, int], object] = lambda _key, _offset: None
        self.reads: list[tuple[str, int]] = []
        self.lists: list[str] = []
        self.cut: dict[str, int] = {}

    def put_version(self, name: str, version: int, *, manifest: bool = True, **files: bytes) -> None:
        """Files are called by keyword: model_onnx=b"..." is model.onnx."""
        contents = {key.replace("_", "."): data for key, data in files.items()}
        for path, data in contents.items():
            self.data[f"{name}/{version}/{path}"] = data
        if manifest:
            self.data[f"{name}/{version}/manifest.json"] = manifest_bytes(name, contents)

    async def list_objects(self, prefix: str = "") -> Sequence[StoredObject]:
        self.lists.append(prefix)
        if self.listing_error is not None:
            raise self.listing_error
        return [
            StoredObject(key=key, bytes=len(data), etag=etag(data))
            for key, data in sorted(self.data.items())
            if key.startswith(f"{prefix}/" if prefix else "")
        ]

    async def read(self, stored: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        self.reads.append((stored.key, offset))
        data = self.data.get(stored.key)
        if data is None or etag(data) != stored.etag:
            raise UnavailableError(f"{stored.key}: changed while it was read")
        end = self.cut.get(stored.key, len(data))
        for start in range(offset, end, CHUNK):
            result = self.before_chunk(stored.key, start)
            if asyncio.iscoroutine(result):
                await result
            yield data[start : min(start + CHUNK, end)]

    def read_keys(self) -> list[str]:
        return sorted({key for key, _ in self.reads})


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def manifest_bytes(name: str, files: dict[str, bytes]) -> bytes:
    digests = {path: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for path, data in files.items()}
    return json.dumps({"model": name, "format_version": 1, "files": digests}).encode()


class Recorded:
    """Which units were fetched, and which failed; bytes that came."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.failed: list[str] = []
        self.bytes = 0

    def started(self, unit: Unit, where: str) -> None:
        pass

    def advanced(self, unit: Unit, nbytes: int, *, fetched: bool = True) -> None:
        self.bytes += nbytes if fetched else 0

    def ended(self, unit: Unit, error: ErgError | None) -> None:
        (self.failed if error else self.fetched).append(f"{unit.model}/{unit.label}")


class MirrorHarness:
    """A mirror of a `FakeSource`. `used` are the versions in use by model."""

    def __init__(self, tmp_path: Path, source: FakeSource | None = None, view: str = "view", **options: object) -> None:
        self.source = source or FakeSource()
        self.progress = Recorded()
        self.warnings: list[str] = []
        self.used: dict[str, set[int]] = {}
        self.root = tmp_path / view
        self.root.mkdir(exist_ok=True)
        self.cache = UnitCache(tmp_path / "cache")
        self.mirror = Mirror(
            source=self.source,
            cache=self.cache,
            view=View(self.root, tmp_path / f"{view}.json"),
            progress=self.progress,
            warn=self.warnings.append,
            **options,  # type: ignore[arg-type]
        )

    async def look(self, names: Collection[str] | None = None, *, settled: bool = False) -> dict[str, str]:
        problems = await self.mirror.look(names, lambda name: self.used.get(name, set()), settled=settled)
        return {name: error.message for name, error in problems.items()}

    def tree(self) -> dict[str, bytes]:
        """Everything that a server would see."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }
