"""Which versions answer under which name. Owns that map; loading itself is the loader's."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from erg_server.errors import ErgError, FailedPreconditionError, InternalError, NotFoundError, UnavailableError
from erg_server.models.loader import ModelLoader
from erg_server.models.served_model import ServedModel
from erg_server.repository.layout import parse_version
from erg_server.repository.repository import ModelDefinition, ModelRepository
from erg_server.storage.model_stores import ListingError, ModelStores

log = logging.getLogger(__name__)


class ControlMode(enum.StrEnum):
    """Who decides what is loaded: the repository at start, the load RPC, or the repository as it changes."""

    NONE = "none"
    EXPLICIT = "explicit"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class ModelIndexEntry:
    """A version's state as the repository index reports it; Triton's words."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(slots=True)
class _Version:
    state: str
    reason: str = ""
    served: ServedModel | None = None


class ModelRegistry:
    """Names to versions to what serves them. Every change of a name goes through that name's lock."""

    def __init__(
        self, repository: ModelRepository, loader: ModelLoader, mode: ControlMode, stores: ModelStores | None = None
    ) -> None:
        self._repository = repository
        self._stores = stores if stores is not None else ModelStores([], Path())
        self._loader = loader
        self._mode = mode
        self._models: dict[str, dict[int, _Version]] = {}
        # The versions that answer, newest first: what a request looks up.
        self._served: dict[str, dict[int, ServedModel]] = {}
        self._errors: dict[str, str] = {}
        self._unfetched: dict[str, str] = {}
        self._wanted: set[str] = set()
        self._fingerprints: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[], None]] = []
        self._started = False

    def resolve(self, name: str, version: str) -> ServedModel:
        """What answers for `name` at `version` ("" for the newest).

        Raises:
            NotFoundError: no such model, or no such version of it.
            UnavailableError: it exists and does not serve; the message says why.
        """
        versions = self._served.get(name)
        if not versions:
            raise self._absent(name, version)
        if not version:
            return next(iter(versions.values()))
        served = versions.get(parse_version(version) or 0)
        if served is None:
            raise self._absent(name, version)
        return served

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of `name` that answer, newest first."""
        return tuple(map(str, self._served.get(name, {})))

    def served(self) -> list[ServedModel]:
        """Everything that answers."""
        return [served for versions in self._served.values() for served in versions.values()]

    def index(self, repository_name: str, ready: bool) -> list[ModelIndexEntry]:
        """Every model of the repositories with the state of each version; with `ready`, only those that answer.

        Raises:
            NotFoundError: `repository_name` is not one of the repositories'.
        """
        known = self._repository.scan()
        if repository_name and repository_name not in {str(entry.root) for entry in known.values()} | {
            entry.root.name for entry in known.values()
        }:
            raise NotFoundError(f"no repository is called '{repository_name}'")
        entries: list[ModelIndexEntry] = []
        for name in sorted(known.keys() | self._models.keys() | self._stores.names):
            versions = self._models.get(name, {})
            for number in sorted(versions):
                record = versions[number]
                entries.append(ModelIndexEntry(name, str(number), record.state, record.reason))
            if not versions:
                reason = self._errors.get(name, "")
                entries.append(ModelIndexEntry(name, "", "UNAVAILABLE" if reason else "", reason))
        return [entry for entry in entries if entry.state == "READY"] if ready else entries

    def ready(self) -> bool:
        """Whether start-up is over and every wanted model answers, with a live worker behind it."""
        return self._started and all(self.model_ready(name, "") for name in self._wanted)

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a request for this version would be served now."""
        try:
            return self.resolve(name, version).available
        except ErgError:
            return False

    def known(self, name: str) -> bool:
        """Whether `name` is or was to be served."""
        return name in self._models or name in self._errors

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever readiness of anything may have changed."""
        self._listeners.append(listener)

    def notify(self) -> None:
        """Tell the listeners; also called when a worker dies or comes back."""
        for listener in self._listeners:
            listener()

    async def start(self, names: list[str]) -> None:
        """Load what serves from the start: everything, or in explicit mode `names` ("*" for everything).

        A model that fails is logged and stays UNAVAILABLE; the others serve.
        """
        everything = self._mode is not ControlMode.EXPLICIT or "*" in names
        unfetched = await self._stores.start(None if everything else names)
        known = await asyncio.to_thread(self._repository.scan)
        self._note_unfetched(unfetched)
        self._wanted |= unfetched.keys()
        chosen = sorted(known) if everything else [name for name in names if name in known or name not in unfetched]
        self._wanted.update(name for name in chosen if name in known)
        results = await asyncio.gather(*(self._load(name, None, {}) for name in chosen), return_exceptions=True)
        for name, result in zip(chosen, results, strict=True):
            if isinstance(result, ErgError):
                log.error("model %s does not serve: %s", name, result.message)
            elif isinstance(result, BaseException):
                raise result
        self._fingerprints = {name: entry.fingerprint for name, entry in known.items()}
        self._started = True
        self.notify()

    async def load(self, name: str, config_json: str | None, files: Mapping[str, bytes]) -> None:
        """Load or reload by request; see `_load`.

        Only what loads becomes part of readiness: a caller's mistake must not take the server out of service.

        Raises:
            FailedPreconditionError: the control mode is not explicit.
        """
        self._require_explicit("load")
        await self._load(name, config_json, files, fetch=not files)
        self._wanted.add(name)

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests it accepted finish.

        Raises:
            FailedPreconditionError: the control mode is not explicit.
            NotFoundError: nothing of that name is loaded.
        """
        self._require_explicit("unload")
        await self._unload(name)

    async def poll(self) -> None:
        """Compare the repositories with what was last seen, and load, reload and unload what changed.

        What cannot be fetched, or not even be listed, leaves what is served serving.
        """
        self._note_unfetched(await self._stores.refresh(self._versions_in_use))
        known = await asyncio.to_thread(self._repository.scan)
        for name in sorted(self._fingerprints.keys() - known.keys()):
            log.info("model %s left the repository", name)
            if self.known(name):
                await self._unload(name)
        for name, entry in sorted(known.items()):
            if self._fingerprints.get(name) != entry.fingerprint:
                self._wanted.add(name)
                log.info("model %s changed in the repository", name)
                try:
                    await self._load(name, None, {})
                except ErgError as error:
                    log.error("model %s was not reloaded: %s", name, error.message)  # noqa: TRY400 (its cause is told)
        self._fingerprints = {name: entry.fingerprint for name, entry in known.items()}

    async def drain(self) -> None:
        """Finish every request accepted; new ones are the transports' to refuse."""
        await asyncio.gather(*(served.scheduler.drain(served.queue) for served in self.served()))
        await self._loader.keep_latencies(self.served())
        if self._retiring:
            await asyncio.gather(*self._retiring, return_exceptions=True)

    def _versions_in_use(self, name: str) -> set[int]:
        return {number for number, record in self._models.get(name, {}).items() if record.served is not None}

    def _note_unfetched(self, problems: Mapping[str, ErgError]) -> None:
        """Tell of models that could not be fetched, once; and forget those that are told of no more."""
        for name, error in sorted(problems.items()):
            if self._unfetched.get(name) != error.message:
                log.error("model %s was not fetched: %s", name, error.message)
            if name not in self._models:
                self._errors[name] = error.message
        for name in self._unfetched.keys() - problems.keys():
            if name not in self._models and self._errors.get(name) == self._unfetched[name]:
                del self._errors[name]
                self._wanted.discard(name)
        self._unfetched = {name: error.message for name, error in problems.items()}

    async def _load(
        self, name: str, config_json: str | None, files: Mapping[str, bytes], *, fetch: bool = False
    ) -> None:
        """Bring a name to what its configuration asks for. What fails leaves what served before serving.

        With `fetch`, a bucket that has the model is asked for it first; what could not be fetched is told after what is
        there was loaded.

        Raises:
            ErgError: the configuration is wrong, or a version failed to load; the others of it serve.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            unfetched = await self._stores.fetch(name, self._versions_in_use) if fetch else None
            try:
                definition = await asyncio.to_thread(self._repository.open, name, config_json, files or None)
            except Exception as error:  # noqa: BLE001 (whatever it is, the caller and the index are told)
                told = _told(error, f"model '{name}'")
                if unfetched is not None and isinstance(error, NotFoundError):
                    told = unfetched
                # A name that nobody has is not remembered: there is no end of them.
                if name in self._wanted or name in self._models:
                    self._errors[name] = told.message
                self.notify()
                raise told from (None if told is error else error)
            self._errors.pop(name, None)
            self._loader.hold(definition)
            try:
                await self._load_versions(name, definition)
            finally:
                self.notify()
                await self._loader.release(definition)
            # A bucket that cannot be listed is no matter of a model in a folder.
            if unfetched is not None and (
                self._stores.holds(definition.path) or not isinstance(unfetched, ListingError)
            ):
                raise unfetched

    async def _load_versions(self, name: str, definition: ModelDefinition) -> None:
        records = self._models.setdefault(name, {})
        failures: list[ErgError] = []
        for number in definition.versions:
            current = records.get(number)
            if current and current.served and current.served.fingerprint == self._loader.identity(definition, number):
                continue
            if current is None or current.served is None:
                records[number] = _Version("LOADING")
            record = records[number]
            try:
                served = await self._loader.load(definition, number)
            except BaseException as error:
                told = _told(error, f"model '{name}' version {number}")
                record.state = "READY" if record.served else "UNAVAILABLE"
                record.reason = told.message
                if not isinstance(error, Exception):
                    raise
                failures.append(told)
                continue
            old = records.get(number)
            records[number] = _Version("READY", "", served)
            # First the new one answers, then the old one drains: no request finds neither.
            self._publish(name)
            self._retire(old)
        if not failures:
            surplus = {number: record for number, record in records.items() if number not in definition.versions}
            records.update(dict.fromkeys(surplus, _Version("UNAVAILABLE", "unloaded")))
            self._publish(name)
            for record in surplus.values():
                self._retire(record)
        if failures:
            raise failures[0]

    async def _unload(self, name: str) -> None:
        async with self._locks.setdefault(name, asyncio.Lock()):
            records = self._models.get(name, {})
            if not self.known(name):
                raise NotFoundError(f"model '{name}' is not loaded")
            self._wanted.discard(name)
            self._errors.pop(name, None)
            retired = list(records.items())
            for number, _ in retired:
                records[number] = _Version("UNAVAILABLE", "unloaded")
            self._publish(name)
            for _, record in retired:
                self._retire(record)
            self.notify()

    def _publish(self, name: str) -> None:
        served = {
            number: record.served
            for number, record in sorted(self._models.get(name, {}).items(), reverse=True)
            if record.served is not None
        }
        if served:
            self._served[name] = served
        else:
            self._served.pop(name, None)

    def _retire(self, record: _Version | None) -> None:
        if record is None or record.served is None:
            return
        task = asyncio.get_running_loop().create_task(self._loader.retire(record.served))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _require_explicit(self, verb: str) -> None:
        if self._mode is not ControlMode.EXPLICIT:
            raise FailedPreconditionError(
                f"explicit {verb} is not allowed in model control mode '{self._mode}'; "
                "start the server with --model-control-mode explicit"
            )

    def _absent(self, name: str, version: str) -> ErgError:
        records = self._models.get(name)
        if records is None:
            if name in self._errors:
                return UnavailableError(f"model '{name}' does not serve: {self._errors[name]}")
            return NotFoundError(f"no model is called '{name}'")
        if not version:
            reasons = "; ".join(
                f"version {number}: {record.reason or record.state}" for number, record in records.items()
            )
            return UnavailableError(f"model '{name}' does not serve: {reasons}")
        record = records.get(parse_version(version) or 0)
        if record is None:
            have = ", ".join(map(str, sorted(records))) or "none"
            return NotFoundError(f"model '{name}' has no version '{version}'; it has {have}")
        return UnavailableError(f"model '{name}' version {version} does not serve: {record.reason or record.state}")


def _told(error: BaseException, what: str) -> ErgError:
    """The error as callers and the index are told of it; anything unforeseen is logged whole."""
    if isinstance(error, ErgError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return UnavailableError(f"{what}: loading it was cancelled")
    if isinstance(error, OSError):
        return FailedPreconditionError(f"{what}: {error}")
    log.error("%s failed to load", what, exc_info=error)
    return InternalError(f"{what} failed to load: {type(error).__name__}; the server's log has the cause")
