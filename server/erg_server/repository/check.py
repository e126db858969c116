"""Checks repositories without serving them: everything that would keep a model from being loaded, all at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from erg_server.errors import ErgError, NotFoundError
from erg_server.repository.config import ConfigDocument, read_config
from erg_server.repository.installed import installed_backends
from erg_server.repository.layout import (
    CONFIG_FILENAMES,
    STAGING_PREFIX,
    choose_versions,
    contained_path,
    is_name,
    versions_on_disk,
)
from erg_server.repository.manifest import Manifest, ManifestError, load_manifest
from erg_server.repository.problem import ConfigError, Problem, did_you_mean
from erg_server.repository.repository import ModelDefinition, ModelRepository
from erg_server.repository.selection import complete_version
from erg_server.repository.spec import ModelSpec
from erg_server.repository.validation import validate


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What was found in one model's folder. `versions` are those that would be served.

    `manifests` are theirs, by version, as far as they have one that can be read.
    """

    name: str
    path: Path
    problems: tuple[Problem, ...]
    versions: tuple[int, ...] = ()
    backend: str = ""
    manifests: Mapping[int, Manifest] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ok(self) -> bool:
        """Whether nothing was found that keeps the model from being served, once it has a version."""
        return all(problem.severity != "error" for problem in self.problems)


def check_paths(paths: Sequence[Path], backends: Collection[str] | None = None) -> list[ModelReport]:
    """Check each path: a repository, or one model's folder.

    `backends` are those installed, found by their entry points when None.
    """
    # None at all means that this is no installation but a checkout, where nothing can be said.
    installed = (installed_backends() or None) if backends is None else backends
    reports: list[ModelReport] = []
    homes: dict[str, Path] = {}
    for path in (each.resolve() for each in paths):
        if _is_model(path):
            reports.append(check_model(path, installed))
            continue
        found = _check_repository(path, installed)
        for index, report in enumerate(found):
            if report.name in homes and _is_model(report.path):
                message = f"there is a model of this name in {homes[report.name]} too, so neither is served"
                problem = Problem(path=str(report.path), message=message, suggestion="rename one")
                found[index] = dataclasses.replace(report, problems=(*report.problems, problem))
            homes.setdefault(report.name, path)
        reports += found
    return reports


def check_model(path: Path, backends: Collection[str] | None = None) -> ModelReport:
    """Check the configuration, the versions and the files of one model."""
    name = path.name
    if not is_name(name):
        message = f"{name!r} cannot name a model"
        hint = "letters, digits, dots, underscores and hyphens, the first a letter or digit, at most 128"
        return ModelReport(name=name, path=path, problems=(Problem(path=str(path), message=message, suggestion=hint),))
    try:
        document = read_config(path)
        versions = choose_versions(document.config.version_policy, versions_on_disk(path))
        newest = contained_path(path, str(versions[-1])) if versions else None
        document = complete_version(document, name, newest)
    except ErgError as error:
        return ModelReport(name=name, path=path, problems=tuple(_problems_of(error, path)))
    problems = validate(document, name, backends)
    if newest is None:
        # As in a repository under version control, whose weights are built elsewhere: what is written can be checked.
        problems = [each for each in problems if each.key not in ("backend", "input", "output") or each.line]
        hint = "publish one, or add a folder called 1"
        problems.append(Problem(path=str(path), message="has no version yet", suggestion=hint, severity="warning"))
    elif all(problem.severity != "error" for problem in problems):
        problems += [*_check_versions(path, backends), *_check_referenced_files(document, path)]
    return ModelReport(
        name=name,
        path=path,
        problems=tuple(problems),
        versions=versions,
        backend=document.config.backend,
        manifests=_manifests(path, versions),
    )


def _manifests(path: Path, versions: Sequence[int]) -> Mapping[int, Manifest]:
    found: dict[int, Manifest] = {}
    for version in versions:
        try:
            manifest = load_manifest(path / str(version))
        except ManifestError:
            continue  # among the problems already
        if manifest is not None:
            found[version] = manifest
    return MappingProxyType(found)


def _is_model(path: Path) -> bool:
    return any((path / name).exists() for name in CONFIG_FILENAMES) or bool(versions_on_disk(path))


def _check_repository(root: Path, backends: Collection[str] | None) -> list[ModelReport]:
    reports: list[ModelReport] = []
    with os.scandir(root) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        if entry.is_symlink():
            message = "is a symbolic link, which is not followed"
            problem = Problem(path=entry.path, message=message, suggestion="copy what it points to", severity="warning")
            reports.append(ModelReport(name=entry.name, path=path, problems=(problem,)))
        elif entry.name.startswith(STAGING_PREFIX):
            message = "was left behind by a publication that did not finish"
            problem = Problem(path=entry.path, message=message, suggestion="remove it", severity="warning")
            reports.append(ModelReport(name=entry.name, path=path, problems=(problem,)))
        elif entry.is_dir() and not entry.name.startswith("."):
            reports.append(check_model(path, backends))
    if not reports:
        problem = Problem(path=str(root), message="holds no models", suggestion="a model is a folder with a folder 1")
        reports.append(ModelReport(name="", path=root, problems=(problem,)))
    return reports


def _check_versions(path: Path, backends: Collection[str] | None) -> list[Problem]:
    """Open the model as the server would, and check the files of each version, and what it would be served as."""
    repository = ModelRepository([path.parent])
    try:
        definition = repository.open(path.name)
    except ErgError as error:
        return _problems_of(error, path)
    problems: list[Problem] = []
    for version in definition.versions:
        try:
            repository.verify(definition, version)
            problems += _check_selections(definition, version, backends)
        except ErgError as error:
            problems += _problems_of(error, definition.version_path(version))
    return problems


def _check_selections(definition: ModelDefinition, version: int, backends: Collection[str] | None) -> list[Problem]:
    """Plan the version for every device that its manifest selects something for."""
    manifest = definition.manifest(version)
    if manifest is None or backends is None:
        return []
    folder = str(definition.version_path(version))
    problems: list[Problem] = []
    for device in sorted({selection.device for selection in manifest.selected}):
        try:
            definition.plan(version, device, backends)
        except ErgError as error:
            problems.append(Problem(path=folder, key="selected", message=error.message))
    unknown = {artifact.backend for artifact in manifest.artifacts} - set(backends)
    for backend in sorted(unknown):
        message = f"artifacts of backend '{backend}', which is not installed, are passed over"
        hint = did_you_mean(backend, sorted(backends))
        problems.append(Problem(path=folder, key="artifacts", message=message, suggestion=hint, severity="warning"))
    return problems


def _check_referenced_files(document: ConfigDocument, path: Path) -> list[Problem]:
    """Label and warm-up files that the configuration names."""
    spec = ModelSpec.from_config(document.config)
    named = [
        (f"output[{index}].label_filename", path, output.label_filename)
        for index, output in enumerate(spec.outputs)
        if output.label_filename
    ]
    for index, sample in enumerate(spec.warmup):
        named += [
            (f"model_warmup[{index}].inputs.{name}.input_data_file", path / "warmup", entry.data_file)
            for name, entry in sample.inputs.items()
            if entry.data_file
        ]
    problems: list[Problem] = []
    for key, folder, filename in named:
        try:
            contained_path(folder, filename)
        except NotFoundError:
            problems.append(document.problem(key, f"there is no '{filename}' in {folder}"))
        except ErgError as error:
            problems.append(document.problem(key, error.message))
    return problems


def _problems_of(error: ErgError, path: Path) -> list[Problem]:
    if isinstance(error, ConfigError):
        return list(error.problems)
    return [Problem(path=str(path), message=error.message.removeprefix(f"{path}: "))]
