"""All buckets that a server takes models from: each one mirrored into a repository of this process's own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erg_server.errors import ErgError, FailedPreconditionError, InvalidArgumentError, NotFoundError, UnavailableError
from erg_server.files import replace_text
from erg_server.storage.bucket import BucketSource
from erg_server.storage.fetch_log import FetchLog
from erg_server.storage.fetch_meter import FetchMeter
from erg_server.storage.location import Location
from erg_server.storage.mirror import Mirror, Used
from erg_server.storage.object_source import ObjectSource
from erg_server.storage.storage_errors import disk_error
from erg_server.storage.unit_cache import UnitCache, try_lock
from erg_server.storage.view import View

log = logging.getLogger(__name__)

SHARED_CACHE = Path("/var/cache/erg")
SHOWN_FILENAME = "shown.json"


class ListingError(UnavailableError):
    """A location could not be listed, so nothing is known of what it holds."""


@dataclass(slots=True, kw_only=True)
class _Store:
    mirror: Mirror
    meter: FetchMeter
    cache: UnitCache
    record: Path
    slot: int
    problems: dict[str, ErgError] = field(default_factory=dict)
    failing: bool = False


class ModelStores:
    """The server's buckets. Without any, everything here is at once done."""

    def __init__(self, sources: Sequence[ObjectSource], cache: Path, *, require_digests: bool = False) -> None:
        """Take a folder below `cache` for each source; raises FailedPreconditionError where that cannot be written."""
        self._stores: list[_Store] = []
        try:
            for source in sources:
                self._stores.append(_open_store(source, cache / source.location.id, require_digests))
        except OSError as error:
            self.close()
            told = disk_error(error, f"the model cache {cache}")
            raise FailedPreconditionError(f"{told.message}; choose another folder with --model-cache") from error

    @property
    def roots(self) -> list[Path]:
        """The repositories on this disk, one for each bucket."""
        return [store.mirror.view.root for store in self._stores]

    @property
    def names(self) -> set[str]:
        """The models that the buckets held when they were last listed."""
        return {name for store in self._stores for name in store.mirror.names}

    @property
    def meters(self) -> list[FetchMeter]:
        """What was fetched from each bucket."""
        return [store.meter for store in self._stores]

    def holds(self, path: Path) -> bool:
        """Whether a model's folder came from a bucket."""
        return path.parent in self.roots

    async def start(self, names: Collection[str] | None) -> dict[str, ErgError]:
        """Fetch what is to serve from the start: everything, or `names`. Returns why models could not be, by name.

        A bucket that cannot be listed is replaced by what this cache showed of it last.

        Raises:
            ListingError: a bucket cannot be listed and nothing of it is in the cache.
        """
        await asyncio.gather(*(self._look(store, names, _unused, settled=False) for store in self._stores))
        for store in self._stores:
            problem = store.problems.pop("", None)
            if problem is not None:
                restored = await store.mirror.restore(View(store.mirror.view.root, store.record), names)
                if not restored:
                    raise problem
                log.warning("serving what the cache has of %s: %s", store.mirror.uri, ", ".join(sorted(restored)))
        return self._problems(names)

    async def refresh(self, used: Used) -> dict[str, ErgError]:
        """Look at every bucket and bring the disk up to date; returns why models could not be, by name."""
        await asyncio.gather(*(self._look(store, None, used, settled=True) for store in self._stores))
        return self._problems(None)

    async def fetch(self, name: str, used: Used) -> ErgError | None:
        """Bring one model up to date from the bucket that has it; returns why it could not be, if it could not.

        No bucket needs to have it.
        """
        await asyncio.gather(*(self._look(store, [name], used, settled=False) for store in self._stores))
        found = [error for store in self._stores for key in ("", name) if (error := store.problems.pop(key, None))]
        return next((error for error in found if not isinstance(error, NotFoundError)), None)

    def close(self) -> None:
        """Give the folders up; what was fetched stays in the cache."""
        for store in self._stores:
            shutil.rmtree(store.mirror.view.root, ignore_errors=True)
            os.close(store.slot)
        self._stores = []

    async def _look(self, store: _Store, names: Collection[str] | None, used: Used, *, settled: bool) -> None:
        store.meter.polls += 1
        try:
            problems = await store.mirror.look(names, used, settled=settled)
        except ErgError as error:
            store.meter.poll_failures += 1
            message = error.message
            if not store.failing:
                log.error("listing %s failed, what is served serves on: %s", store.mirror.uri, message)  # noqa: TRY400
            store.failing = True
            # What is known of its models' problems is still the last that is known.
            store.problems[""] = ListingError(message)
            return
        if store.failing:
            log.info("listing %s works again", store.mirror.uri)
        store.failing = False
        store.problems = problems if names is None else store.problems | problems
        store.problems.pop("", None)
        if not store.mirror.names:
            log.debug("%s holds no models", store.mirror.uri)
        await asyncio.to_thread(_keep_record, store)

    def _problems(self, names: Collection[str] | None) -> dict[str, ErgError]:
        found: dict[str, ErgError] = {}
        for store in self._stores:
            found |= {name: error for name, error in store.problems.items() if name}
        if names is None:
            return found
        # Named, and in none of the buckets: it may be in a folder.
        return {name: error for name, error in found.items() if not isinstance(error, NotFoundError)}


def open_sources(locations: Sequence[Location]) -> list[ObjectSource]:
    """The buckets among the locations.

    Raises:
        FailedPreconditionError: the library for buckets is not installed.
        InvalidArgumentError: an archive, which a server does not follow.
    """
    for location in locations:
        if location.kind == "archive":
            raise InvalidArgumentError(
                f"--model-repository {location.uri}: a server takes folders and buckets; bring an archive with "
                f"'erg fetch --model-repository {location.uri} --to DIR'"
            )
    return [BucketSource(location) for location in locations if location.kind == "bucket"]


def default_cache() -> Path:
    """Where fetched models are kept when nothing is said: the system's cache if it can be written, else the user's."""
    if os.access(SHARED_CACHE, os.W_OK | os.X_OK):
        return SHARED_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "erg" / "models"


def _unused(_: str) -> Collection[int]:
    return ()


def _open_store(source: ObjectSource, root: Path, require_digests: bool) -> _Store:
    views = root / "views"
    views.mkdir(parents=True, exist_ok=True)
    slot, folder = _take_slot(views)
    meter = FetchMeter(repository=source.location.uri)
    cache = UnitCache(root)
    mirror = Mirror(
        source=source,
        cache=cache,
        view=View(folder, folder.with_suffix(".json")),
        progress=FetchLog(log, meter, time.monotonic),
        require_digests=require_digests,
    )
    return _Store(mirror=mirror, meter=meter, cache=cache, record=root / SHOWN_FILENAME, slot=slot)


def _take_slot(views: Path) -> tuple[int, Path]:
    """The first view that no living process has, emptied, with its locked file; those that others left are removed.

    Numbers are used again, so that a server that starts anew finds its models at the paths that they had.
    """
    taken: tuple[int, Path] | None = None
    left = sum(1 for _ in views.glob("*.lock"))
    for number in itertools.count():
        if taken is not None and number >= left:
            return taken
        folder = views / str(number)
        descriptor = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not try_lock(descriptor):
            os.close(descriptor)
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".json").unlink(missing_ok=True)
        if taken is None:
            folder.mkdir()
            taken = descriptor, folder
        else:
            os.close(descriptor)
    raise AssertionError("counting does not end")


def _keep_record(store: _Store) -> None:
    """Remember what is shown, for a start while the bucket cannot be reached."""
    own = store.mirror.view.root.with_suffix(".json")
    if own.exists():
        replace_text(store.record, own.read_text(encoding="utf-8"), durable=False)
