"""Which of a version's artifacts is served on a kind of device, and the configuration that makes it so.

The manifest says what won where it was measured. The configuration has the last word: a `backend`,
`default_model_filename` or parameter that its author wrote is kept, and artifacts that contradict it are passed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from erg_server.errors import ErgError, FailedPreconditionError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.autocomplete import PLATFORMS, complete, complete_backend, model_file
from erg_server.repository.config import ConfigDocument
from erg_server.repository.layout import contained_path
from erg_server.repository.manifest import Artifact, Manifest, ManifestError, load_manifest
from erg_server.repository.spec import PRECISION_PARAMETER, ModelSpec

PRECISIONS = ("", "f32", "bf16", "f16")
DECIDING_KEYS = ("backend", "platform", "default_model_filename")
"""What an author writes against an artifact. Completion fills the same keys in, so that it matters who did."""

DeviceKind = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """What a version's workers load. `artifact` is None where the configuration alone decides; `reason` says why."""

    config: pb.ModelConfig
    spec: ModelSpec
    path: Path
    artifact: Artifact | None
    reason: str


def complete_version(document: ConfigDocument, name: str, version: Path | None) -> ConfigDocument:
    """Complete a configuration from a version's folder, whatever its files are called where it has artifacts.

    Raises:
        ConfigError: the configuration contradicts the file.
        ErgError: the file cannot be read.
    """
    return complete(document, name, version, _stand_in(document, version) if version is not None else None)


def plan_version(document: ConfigDocument, folder: Path, device: DeviceKind, installed: Collection[str]) -> ServingPlan:
    """How the version in `folder` is served on devices of a kind; `document` is the model's completed configuration.

    `installed` are the backends that can be used here.

    Raises:
        FailedPreconditionError: the backend of no selected artifact is installed.
        ErgError: the manifest cannot be read, or names an artifact that is not there.
    """
    manifest = load_manifest(folder)
    if manifest is not None:
        check_artifacts(manifest, folder)
    artifact, reason = choose_artifact(manifest, document, device, installed)
    own = own_document(document, folder)
    config = (own if artifact is None else with_artifact(own, artifact)).config
    # Metadata keeps the model's platform: which engine runs a version is no business of its callers.
    spec = dataclasses.replace(
        ModelSpec.from_config(config),
        platform=document.config.platform,
        batch_limit=0 if artifact is None or artifact.batch_limit is None else artifact.batch_limit,
    )
    path = model_file(folder, config.default_model_filename)
    return ServingPlan(config=config, spec=spec, path=path, artifact=artifact, reason=reason)


def choose_artifact(
    manifest: Manifest | None, document: ConfigDocument, device: DeviceKind, installed: Collection[str]
) -> tuple[Artifact | None, str]:
    """The first artifact selected for the device that the configuration allows and whose backend is installed.

    None where the manifest selects none for the device, or the configuration allows none of them; and why.

    Raises:
        FailedPreconditionError: the configuration allows some, and the backend of none of them is installed.
    """
    selected = [] if manifest is None else [each for each in manifest.selected if each.device == device]
    if manifest is None or not selected:
        return None, f"its manifest selects nothing for {device}" if manifest is not None else "it has no manifest"
    artifacts = {artifact.name: artifact for artifact in manifest.artifacts}
    passed_over: list[str] = []
    missing: list[str] = []
    for selection in selected:
        artifact = artifacts[selection.artifact]
        if contradiction := _contradiction(document, artifact):
            passed_over.append(f"not '{artifact.name}', since {contradiction}")
        elif artifact.backend not in installed:
            missing.append(artifact.backend)
            passed_over.append(f"not '{artifact.name}', since backend '{artifact.backend}' is not installed")
        else:
            return artifact, "; ".join([selection.reason or f"selected for {device}", *passed_over])
    told = "; ".join(passed_over)
    if missing:
        raise FailedPreconditionError(
            f"model '{document.config.name}': nothing that its manifest selects for {device} can be served: {told}; "
            f"install backend '{missing[0]}', or state backend and default_model_filename in the configuration"
        )
    return None, told


def own_document(document: ConfigDocument, folder: Path) -> ConfigDocument:
    """The completed configuration with the backend and the file of one version, where the author named none."""
    config = pb.ModelConfig()
    config.CopyFrom(document.config)
    if not (document.gives("backend") or document.gives("platform")):
        config.backend = config.platform = ""
    if not document.gives("default_model_filename"):
        config.default_model_filename = ""
    own = dataclasses.replace(document, config=config)
    complete_backend(own, folder, _stand_in(document, folder))
    return own


def with_artifact(document: ConfigDocument, artifact: Artifact) -> ConfigDocument:
    """The configuration that serves an artifact; parameters that the author wrote stay as they are."""
    config = pb.ModelConfig()
    config.CopyFrom(document.config)
    config.backend = artifact.backend
    config.default_model_filename = artifact.file
    if PLATFORMS.get(config.platform) != artifact.backend:
        config.platform = next((key for key, value in PLATFORMS.items() if value == artifact.backend), "")
    precision = {PRECISION_PARAMETER: artifact.precision} if artifact.precision else {}
    for key, value in {**precision, **artifact.parameters}.items():
        if key not in document.config.parameters:
            config.parameters[key].string_value = value
    return dataclasses.replace(document, config=config)


def check_artifacts(manifest: Manifest, folder: Path) -> None:
    """Check that the artifacts are there, and that what is selected is one of them.

    Raises:
        ManifestError: a file is missing or outside the folder, a name or a figure makes no sense.
    """
    names = [artifact.name for artifact in manifest.artifacts]
    for artifact in manifest.artifacts:
        told = f"{folder}: artifact '{artifact.name}' of the manifest"
        if names.count(artifact.name) > 1:
            raise ManifestError(f"{told} is there twice")
        if artifact.precision not in PRECISIONS:
            raise ManifestError(f"{told} has precision '{artifact.precision}'; allowed: {', '.join(PRECISIONS[1:])}")
        if artifact.batch_limit is not None and artifact.batch_limit < 1:
            raise ManifestError(f"{told} has batch_limit {artifact.batch_limit}; a batch has at least one row")
        try:
            path = contained_path(folder, artifact.file)
        except ErgError as error:
            raise ManifestError(f"{told}: {error.message}") from error
        if not path.is_file():
            raise ManifestError(f"{told}: '{artifact.file}' is a folder")
    for selection in manifest.selected:
        if selection.artifact not in names:
            have = ", ".join(f"'{name}'" for name in names) or "none"
            raise ManifestError(f"{folder}: the manifest selects '{selection.artifact}'; its artifacts are {have}")


def _stand_in(document: ConfigDocument, folder: Path) -> Artifact | None:
    """The artifact that tells the signature where the configuration's own file is not there."""
    try:
        manifest = load_manifest(folder)
    except ManifestError:
        return None  # told when the version is loaded
    return next(_preferred(manifest, document), None) if manifest is not None else None


def _preferred(manifest: Manifest, document: ConfigDocument) -> Iterator[Artifact]:
    """The artifacts that the configuration allows, those that are selected first."""
    order = {selection.artifact: number for number, selection in reversed(list(enumerate(manifest.selected)))}
    for artifact in sorted(manifest.artifacts, key=lambda each: order.get(each.name, len(order))):
        if not _contradiction(document, artifact):
            yield artifact


def _contradiction(document: ConfigDocument, artifact: Artifact) -> str:
    """What the author of the configuration wrote against an artifact, "" for nothing."""
    config = document.config
    if document.gives("default_model_filename") and config.default_model_filename != artifact.file:
        return f'the configuration states default_model_filename "{config.default_model_filename}"'
    key = next((key for key in ("backend", "platform") if document.gives(key)), "")
    stated = config.backend or PLATFORMS.get(config.platform, "")
    if key and stated and stated != artifact.backend:
        return f'the configuration states {key} "{getattr(config, key)}"'
    return ""
