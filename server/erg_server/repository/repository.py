"""Model repositories on disk: what is in them, and one model of them opened to be served."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erg_server.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.autocomplete import ONNX_BACKENDS, check_signature, model_file
from erg_server.repository.config import ConfigDocument, parse_override, read_config
from erg_server.repository.layout import (
    check_name,
    check_relative,
    choose_versions,
    contained_path,
    parse_version,
    versions_on_disk,
)
from erg_server.repository.manifest import Golden, Manifest, list_files, load_manifest, verify_files
from erg_server.repository.onnx_safety import check_external_data, read_onnx
from erg_server.repository.problem import ConfigError
from erg_server.repository.roots import model_folders, model_home
from erg_server.repository.selection import (
    DeviceKind,
    ServingPlan,
    check_artifacts,
    complete_version,
    own_document,
    plan_version,
    with_artifact,
)
from erg_server.repository.spec import ModelSpec
from erg_server.repository.validation import validate

_FILE_PREFIX = "file:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model as it lies in a repository. `fingerprint` changes with its configuration and with any of its files.

    `shadowed` are the other repositories that have a model of that name: such a model is not served.
    """

    name: str
    root: Path
    path: Path
    fingerprint: str
    versions: tuple[int, ...]
    shadowed: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefinition:
    """One model, its configuration completed and checked, and the versions of it to serve, ascending.

    `path` is the folder with the version folders; a private one, until `close`, for files that came with the load
    request.
    """

    name: str
    path: Path
    document: ConfigDocument
    spec: ModelSpec
    versions: tuple[int, ...]
    overridden: bool = False

    @property
    def config(self) -> pb.ModelConfig:
        """The completed configuration. Shared: copy it before changing it."""
        return self.document.config

    def version_path(self, version: int) -> Path:
        """The folder of one version."""
        return self.path / str(version)

    def plan(self, version: int, device: DeviceKind, installed: Collection[str]) -> ServingPlan:
        """How one version is served on devices of a kind with the backends that are installed; see `plan_version`."""
        return plan_version(self.document, self.version_path(version), device, installed)

    def variants(self, version: int) -> Iterator[ConfigDocument]:
        """The configuration of everything that the version may be served as: its plain file, and its artifacts.

        Raises ManifestError as `manifest` does.
        """
        manifest = self.manifest(version)
        own = own_document(self.document, self.version_path(version))
        artifacts = manifest.artifacts if manifest is not None else ()
        served_as = {(artifact.backend, artifact.file) for artifact in artifacts}
        if (own.config.backend, own.config.default_model_filename) not in served_as:
            yield own
        for artifact in artifacts:
            yield with_artifact(own, artifact)

    def model_file(self, version: int) -> Path:
        """What the configuration alone would load: a file, or the version's folder where it names none."""
        return model_file(self.version_path(version), self.spec.default_model_filename)

    def fingerprint(self, version: int) -> str:
        """Changes with any file of the version."""
        return (
            _fingerprint_of_contents(self.version_path(version))
            if self.overridden
            else _fingerprint(self.version_path(version))
        )

    def manifest(self, version: int) -> Manifest | None:
        """The version's manifest, if it has one; raises ManifestError where it cannot be read."""
        return load_manifest(self.version_path(version))

    def golden(self, version: int) -> Golden | None:
        """The golden sample in the version's manifest, if there is one; raises ManifestError as `manifest` does."""
        manifest = self.manifest(version)
        return manifest.golden if manifest is not None else None

    def close(self) -> None:
        """Release files that came with the load request. No worker may load the model after this."""
        if self.overridden:
            shutil.rmtree(self.path, ignore_errors=True)


class ModelRepository:
    """One or more repositories, read as one. Does blocking file work: call it from a thread.

    A root that is itself a model's folder is that model, called `single_name` where that is stated.
    """

    def __init__(self, roots: Sequence[Path], *, single_name: str = "") -> None:
        self._single_name = single_name
        self.roots = tuple(Path(root).absolute() for root in roots)
        self._overrides = _Overrides()

    def scan(self) -> dict[str, ModelEntry]:
        """Every model there is, by name. Staging folders, links and names that no model may have are passed over."""
        found: dict[str, ModelEntry] = {}
        for root in self.roots:
            for name, path in model_folders(root, self._single_name).items():
                if name in found:
                    earlier = found[name]
                    shadowed = (*earlier.shadowed, root)
                    found[name] = ModelEntry(
                        name=name,
                        root=earlier.root,
                        path=earlier.path,
                        fingerprint=earlier.fingerprint + _fingerprint(path),
                        versions=earlier.versions,
                        shadowed=shadowed,
                    )
                else:
                    found[name] = _entry(root, name, path)
        return found

    def open(
        self, name: str, config_override: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> ModelDefinition:
        """Read, complete and check the configuration of one model.

        `config_override` is a JSON ModelConfig in place of the one on disk. `files` are version folders in place of
        those on disk, by "file:VERSION/PATH"; they need `config_override`.

        Raises:
            NotFoundError: there is no such model.
            ConfigError: its configuration is wrong.
            ErgError: it has no version to serve, or a file of it cannot be read.
        """
        check_name(name)
        document = parse_override(config_override) if config_override is not None else None
        if files:
            if document is None:
                raise InvalidArgumentError(f"model '{name}': files in a load request need a config beside them")
            folder = self._overrides.write(name, files)
            try:
                return _define(name, folder, document, overridden=True)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        path = self._find(name)
        return _define(name, path, document or read_config(path))

    def verify(self, definition: ModelDefinition, version: int) -> None:
        """Check the files of one version before a worker reads them.

        Raises:
            ManifestError: they are not those of its manifest, or not what it says of its artifacts.
            InvalidArgumentError: an ONNX file reaches outside its folder.
            ConfigError: a file's inputs and outputs are not the configuration's.
        """
        folder = definition.version_path(version)
        manifest = definition.manifest(version)
        if manifest is not None:
            verify_files(folder, manifest)
            check_artifacts(manifest, folder)
        for variant in definition.variants(version):
            path = model_file(folder, variant.config.default_model_filename)
            if variant.config.backend in ONNX_BACKENDS or path.suffix == ".onnx":
                contained_path(definition.path, path.relative_to(definition.path).as_posix())
                check_external_data(read_onnx(path), path)
                check_signature(variant, folder)

    def close(self) -> None:
        """Release the files of every load request."""
        self._overrides.close()

    def _find(self, name: str) -> Path:
        found = {root: model_home(root, name, self._single_name) for root in self.roots}
        homes = {root: path for root, path in found.items() if path is not None}
        if not homes:
            raise NotFoundError(f"no repository has a model '{name}'")
        if len(homes) > 1:
            places = ", ".join(map(str, homes))
            raise FailedPreconditionError(f"model '{name}' is in several repositories: {places}")
        (path,) = homes.values()
        return path


def _entry(root: Path, name: str, path: Path) -> ModelEntry:
    return ModelEntry(name=name, root=root, path=path, fingerprint=_fingerprint(path), versions=versions_on_disk(path))


def _define(name: str, path: Path, document: ConfigDocument, *, overridden: bool = False) -> ModelDefinition:
    versions = choose_versions(document.config.version_policy, versions_on_disk(path))
    if not versions:
        raise FailedPreconditionError(f"model '{name}' has no version: {path} has no folder called 1, 2, …")
    newest = contained_path(path, str(versions[-1]))
    completed = complete_version(document, name, newest)
    problems = validate(completed, name)
    if any(problem.severity == "error" for problem in problems):
        raise ConfigError(problem for problem in problems if problem.severity == "error")
    for version in versions:
        folder = contained_path(path, str(version))
        filename = own_document(completed, folder).config.default_model_filename
        contained_path(path, model_file(folder, filename).relative_to(path).as_posix())
    return ModelDefinition(
        name=name,
        path=path,
        document=completed,
        spec=ModelSpec.from_config(completed.config),
        versions=versions,
        overridden=overridden,
    )


def _fingerprint(path: Path) -> str:
    """From what the file system says of every file below: a change that keeps size, time and inode goes unseen."""
    digest = hashlib.sha256()
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in found:
            try:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
            except OSError:
                continue
            # A folder's own time and size change when something beside the model's files comes and goes.
            folder = entry.is_dir(follow_symlinks=False)
            size, changed_ns = (0, 0) if folder else (status.st_size, status.st_mtime_ns)
            facts = (entry.path, status.st_mode, status.st_ino, size, changed_ns)
            digest.update(repr(facts).encode())
    return digest.hexdigest()


def _fingerprint_of_contents(path: Path) -> str:
    """From the bytes themselves, so that loading the same files again is seen to change nothing."""
    digest = hashlib.sha256()
    for relative in list_files(path):
        data = (path / relative).read_bytes()
        digest.update(f"{relative}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


class _Overrides:
    """Private folders for files that came with load requests, all below one that goes with this object."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._remove: Callable[[], object] = lambda: None

    def write(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write version folders of one model; returns the model's folder."""
        targets = {_override_target(key): data for key, data in files.items()}
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="erg-load-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))
        for relative, data in targets.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def close(self) -> None:
        self._remove()
        self._root = None


def _override_target(key: str) -> str:
    """The path below the model's folder that a load request's "file:VERSION/PATH" stands for."""
    relative = check_relative(key.removeprefix(_FILE_PREFIX))
    if len(relative.parts) < 2 or parse_version(relative.parts[0]) is None:
        raise InvalidArgumentError(f"{key[:200]!r} does not name a file of a version; write file:1/model.onnx")
    return relative.as_posix()
