"""One run of `erg fetch`: several locations into one folder that a server then reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erg_server.errors import ErgError, FailedPreconditionError, NotFoundError
from erg_server.storage.archive import ArchiveSource
from erg_server.storage.bucket import BucketSource
from erg_server.storage.folder import FolderSource
from erg_server.storage.location import Location
from erg_server.storage.mirror import Mirror
from erg_server.storage.object_source import ObjectSource
from erg_server.storage.storage_errors import disk_error
from erg_server.storage.unit_cache import UnitCache, try_lock, wait_for_lock
from erg_server.storage.unit_fetch import FetchProgress
from erg_server.storage.view import View

STATE_FOLDER = ".erg-store"
"""Below the folder that is fetched to: what was fetched, by content. Servers and `erg check` pass over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """`models` are the names to fetch, none for all of them."""

    locations: Sequence[Location]
    to: Path
    models: Sequence[str] = ()
    require_digests: bool = False
    max_archive_bytes: int = 64 << 30


@dataclass(slots=True, kw_only=True)
class FetchOutcome:
    """Versions shown by model, and what went wrong by model or location."""

    versions: dict[str, list[int]] = field(default_factory=dict)
    problems: dict[str, ErgError] = field(default_factory=dict)


async def fetch_models(options: FetchOptions, progress: FetchProgress, say: Callable[[str], None]) -> FetchOutcome:
    """Bring the folder up to date with the locations, one after the other; `say` is told what people should know.

    Raises:
        ErgError: the folder cannot be written, or a location's library is not installed.
    """
    state = options.to / STATE_FOLDER
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise disk_error(error, f"--to {options.to}") from error
    try:
        if not try_lock(descriptor):
            say(f"another fetch works on {options.to}; waiting for it to end")
            await wait_for_lock(descriptor)
        return await _fetch_locked(options, state, progress, say)
    finally:
        os.close(descriptor)


async def _fetch_locked(
    options: FetchOptions, state: Path, progress: FetchProgress, say: Callable[[str], None]
) -> FetchOutcome:
    view = View(options.to, state / "shown.json")
    outcome = FetchOutcome()
    missing = set(options.models)
    for location in options.locations:
        source = open_source(location, state, options)
        mirror = Mirror(
            source=source,
            cache=UnitCache(state / location.id),
            view=view,
            progress=progress,
            require_digests=options.require_digests,
            others=[each.uri for each in options.locations],
            warn=say,
        )
        try:
            problems = await mirror.look(options.models or None, _unused)
        except ErgError as error:
            outcome.problems[location.uri] = error
            continue
        finally:
            if isinstance(source, ArchiveSource):
                await asyncio.to_thread(source.close)
        if not options.models and not mirror.names:
            outcome.problems[location.uri] = NotFoundError(
                f"{location.uri} holds no models; a model is NAME/VERSION/FILE below it"
            )
        for name in options.models or mirror.names:
            found = problems.get(name)
            if not isinstance(found, NotFoundError):
                missing.discard(name)
            if found is not None and not (options.models and isinstance(found, NotFoundError)):
                outcome.problems[name] = found
    for name in sorted(missing - outcome.problems.keys()):
        places = ", ".join(each.uri for each in options.locations)
        outcome.problems[name] = NotFoundError(f"there is no model '{name}' in {places}")
    outcome.versions = {
        name: sorted(model.versions) for name, model in view.models.items() if _asked_for(name, options.models)
    }
    return outcome


def open_source(location: Location, state: Path, options: FetchOptions) -> ObjectSource:
    """What reads a location of any kind."""
    if location.kind == "bucket":
        return BucketSource(location)
    if location.kind == "archive":
        return ArchiveSource(location, state / location.id / "archive", options.max_archive_bytes)
    folder = Path(location.uri).absolute()
    if folder == options.to.absolute():
        raise FailedPreconditionError(f"{folder} is both fetched from and fetched to; choose another --to")
    return FolderSource(location, folder)


def _asked_for(name: str, models: Collection[str]) -> bool:
    return not models or name in models


def _unused(_: str) -> Collection[int]:
    return ()
