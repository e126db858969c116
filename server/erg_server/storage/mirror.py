"""Keeps a local model repository like one location: lists it, fetches what is new, shows it, removes what is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from erg_server.errors import ErgError, FailedPreconditionError, NotFoundError, ResourceExhaustedError, UnavailableError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.config import read_config
from erg_server.repository.layout import MAX_TEXT_BYTES, check_name
from erg_server.repository.manifest import ManifestError
from erg_server.storage.catalogue import ListedModel, listing_digest, manifest_of, read_listing
from erg_server.storage.fetch_plan import (
    FILES_LABEL,
    ReadManifest,
    Unit,
    VersionPlan,
    drop_versions,
    own_files,
    plan_versions,
    read_manifest,
)
from erg_server.storage.object_source import ObjectSource, StoredObject
from erg_server.storage.storage_errors import disk_error
from erg_server.storage.unit_cache import UnitCache
from erg_server.storage.unit_fetch import FetchProgress, UnitFetcher
from erg_server.storage.view import View

log = logging.getLogger(__name__)

Used = Callable[[str], Collection[int]]
"""The versions of a model that are in use now."""


class Mirror:
    """One location, its cache and what is shown of it. Owns what is known of it between two looks.

    `others` are locations that share the view: a model of theirs is not replaced.
    """

    def __init__(
        self,
        *,
        source: ObjectSource,
        cache: UnitCache,
        view: View,
        progress: FetchProgress,
        require_digests: bool = False,
        others: Collection[str] = (),
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        self.source = source
        self.uri = source.location.uri
        self.view = view
        self.names: frozenset[str] = frozenset()
        """The models that the last whole listing held."""
        self._cache = cache
        self._fetcher = UnitFetcher(source, cache, progress)
        self._require_digests = require_digests
        self._others = frozenset(others) - {self.uri}
        self._warn_by = warn
        self._warned: set[str] = set()
        self._seen: dict[str, Mapping[int, str]] = {}
        self._refused: dict[str, str] = {}
        self._manifests: dict[StoredObject, ReadManifest] = {}

    async def look(self, names: Collection[str] | None, used: Used, *, settled: bool = False) -> dict[str, ErgError]:
        """Look at the location and bring models up to date: all of them, or those named.

        With `settled`, versions that no manifest vouches for are taken only when they are as at the look before.

        Returns:
            Why models could not be brought up to date, by name; what was shown of them before is shown on.

        Raises:
            ErgError: the location cannot be listed. Nothing changed.
        """
        one = check_name(next(iter(names))) if names is not None and len(names) == 1 else ""
        catalogue = read_listing(await self.source.list_objects(one))
        for key, problem in catalogue.refused:
            self._warn(f"{self.uri}: the key {key[:200]!r} {problem}; it is passed over")
        if not one:
            self.names = frozenset(catalogue.models)
            listed = {manifest_of(files) for model in catalogue.models.values() for files in model.versions.values()}
            self._manifests = {stored: each for stored, each in self._manifests.items() if stored in listed}
            await asyncio.to_thread(self._cache.prune_manifests, [stored for stored in listed if stored is not None])
        chosen = sorted(catalogue.models) if names is None else sorted(set(names))
        errors: dict[str, ErgError] = {}
        for name in sorted(self.view.models):
            if names is None and name not in catalogue.models and self.view.models[name].location == self.uri:
                await self._drop_model(name)
        results = await asyncio.gather(
            *(self._bring(name, catalogue.models.get(name), used, settled=settled) for name in chosen),
            return_exceptions=True,
        )
        for name, result in zip(chosen, results, strict=True):
            if isinstance(result, ErgError):
                errors[name] = result
            elif isinstance(result, BaseException):
                raise result
        return errors

    async def restore(self, shown: View, names: Collection[str] | None) -> list[str]:
        """Show what another view of this location shows, without looking at it; returns the models."""
        restored = []
        for name, model in shown.models.items():
            units = {
                label: (unit_id, self._cache.folder(name, label, unit_id)) for label, unit_id in model.units.items()
            }
            whole = all(folder.is_dir() for _, folder in units.values())
            if whole and (names is None or name in names):
                await asyncio.to_thread(self.view.show, name, self.uri, units)
                restored.append(name)
        return restored

    async def _bring(self, name: str, model: ListedModel | None, used: Used, *, settled: bool) -> None:
        if model is None:
            raise NotFoundError(f"{self.uri} has no model '{name}'")
        shown = self.view.shown(name)
        if shown is not None and shown.location in self._others:
            raise FailedPreconditionError(f"model '{name}' is in several repositories: {shown.location}, {self.uri}")
        before = self._seen.get(name, {}) if settled else None
        self._seen[name] = {version: listing_digest(files) for version, files in model.versions.items()}
        try:
            async with self._cache.lock(name):
                await self._bring_locked(model, used, before)
        except OSError as error:
            raise disk_error(error, f"model {name} in {self.view.root}") from error

    async def _bring_locked(self, model: ListedModel, used: Used, before: Mapping[int, str] | None) -> None:
        units: list[Unit] = []
        policy = pb.ModelVersionPolicy()
        if model.files:
            own = own_files(model)
            await self._ensure(own)
            units.append(own)
            policy = (await asyncio.to_thread(read_config, self._cache.path(own))).config.version_policy
        plan, failures = await self._fetch_versions(model, policy, before)
        for version, reason in plan.passed_over.items():
            self._warn(f"model {model.name} version {version} of {self.uri} is passed over: {reason}")
        units += plan.units
        shown = self.view.shown(model.name)
        if plan.units or (shown is not None and shown.versions):
            await asyncio.to_thread(self._show, model.name, units)
            # Until what was to come is there, nothing that it would replace goes.
            await self._drop_versions(model, plan, shown.versions if failures and shown else used(model.name))
        elif not failures:
            raise _nothing_to_serve(model, plan, self.uri)
        if failures:
            raise failures[0]

    async def _fetch_versions(
        self, model: ListedModel, policy: pb.ModelVersionPolicy, before: Mapping[int, str] | None
    ) -> tuple[VersionPlan, list[ErgError]]:
        """Fetch what the policy serves; returns what is there of it, and what failed.

        Versions whose bytes are wrong are remembered, so that they are not fetched again until they change, and the
        next older one takes their place.
        """
        manifests: dict[int, ReadManifest] = {}
        failures: list[ErgError] = []
        while True:
            plan = plan_versions(
                model,
                policy,
                manifests,
                seen_before=before,
                refused=self._refused,
                require_digests=self._require_digests,
            )
            for version in plan.unread:
                manifests[version] = await self._manifest(model, version)
            if plan.unread:
                continue
            there: list[Unit] = []
            refused = False
            for unit in plan.units:
                assert unit.version is not None
                try:
                    await self._ensure(unit)
                except ManifestError as error:
                    self._refused[listing_digest(model.versions[unit.version])] = error.message
                    failures.append(error)
                    refused = True
                except ErgError as error:
                    failures.append(error)
                else:
                    there.append(unit)
            if not refused:
                return VersionPlan(units=tuple(there), passed_over=plan.passed_over), failures

    async def _ensure(self, unit: Unit) -> None:
        if not await asyncio.to_thread(self._cache.has, unit):
            if unit.version is not None and not unit.verified:
                self._warn(f"{unit} of {self.uri} has no manifest.json: its sizes are checked, its digests cannot be")
            await self._fetcher.fetch(unit)

    async def _manifest(self, model: ListedModel, version: int) -> ReadManifest:
        stored = manifest_of(model.versions[version])
        assert stored is not None, "the plan asks for manifests that are there"
        known = self._manifests.get(stored)
        if known is not None:
            return known
        if stored.bytes > MAX_TEXT_BYTES:
            raise ResourceExhaustedError(
                f"{self.uri}/{stored.key} has {stored.bytes} bytes; a manifest has at most {MAX_TEXT_BYTES}"
            )
        data = await asyncio.to_thread(self._cache.find_manifest, stored)
        if data is None:
            data = b"".join([chunk async for chunk in self.source.read(stored)])
            if len(data) != stored.bytes:
                raise UnavailableError(f"{self.uri}/{stored.key}: {len(data)} bytes came of {stored.bytes}")
            await asyncio.to_thread(self._cache.keep_manifest, stored, data)
        self._manifests[stored] = read_manifest(data)
        return self._manifests[stored]

    def _show(self, name: str, units: Collection[Unit]) -> None:
        by_label = {unit.label: (unit.id, self._cache.path(unit)) for unit in units}
        if self.view.show(name, self.uri, by_label):
            versions = ", ".join(sorted(by_label.keys() - {FILES_LABEL}, key=int))
            log.info("model %s of %s: versions %s are on the disk", name, self.uri, versions)

    async def _drop_versions(self, model: ListedModel, plan: VersionPlan, used: Collection[int]) -> None:
        shown = self.view.shown(model.name)
        assert shown is not None
        gone = drop_versions(shown.versions, plan, model.versions.keys(), used)
        if gone:
            log.info("model %s of %s: versions %s are removed", model.name, self.uri, sorted(gone))
            await asyncio.to_thread(self.view.hide, model.name, {str(version) for version in gone})
        await asyncio.to_thread(self._cache.evict, model.name, self._kept(model.name))

    async def _drop_model(self, name: str) -> None:
        log.info("model %s left %s", name, self.uri)
        async with self._cache.lock(name):
            await asyncio.to_thread(self.view.hide, name)
            await asyncio.to_thread(self._cache.evict, name, ())
        self._seen.pop(name, None)

    def _kept(self, name: str) -> list[Path]:
        shown = self.view.shown(name)
        return [self._cache.folder(name, *each) for each in shown.units.items()] if shown is not None else []

    def _warn(self, text: str) -> None:
        """Say something once, however often it is seen."""
        if text not in self._warned:
            self._warned.add(text)
            self._warn_by(text)


def _nothing_to_serve(model: ListedModel, plan: VersionPlan, uri: str) -> ErgError:
    if not plan.passed_over:
        return FailedPreconditionError(f"model '{model.name}' in {uri} has no version that its configuration serves")
    reasons = "; ".join(f"version {version}: {reason}" for version, reason in sorted(plan.passed_over.items()))
    return FailedPreconditionError(f"model '{model.name}' in {uri} has no version that can be taken: {reasons}")
