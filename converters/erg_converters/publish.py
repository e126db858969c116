"""Publishes a conversion: the winner, the plain file beside it, and a manifest with everything that was found."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from erg_server import __version__
from erg_server.repository.layout import versions_on_disk
from erg_server.repository.manifest import (
    Accuracy,
    Artifact,
    Golden,
    Manifest,
    Measurement,
    PassRecord,
    Selection,
    Source,
    Verdict,
    load_manifest,
)
from erg_server.repository.onnx_safety import read_onnx
from erg_server.repository.publication import publish
from erg_server.tensor import Tensor

from erg_converters.passes.parity import Array
from erg_converters.report import SOURCE_CANDIDATE
from erg_converters.serving_config import best_batch, derive_config, has_config
from erg_converters.settings import PublishSettings
from erg_converters.sources.base import InputSpec

SOURCE_FILENAME = "model.onnx"
MAX_GOLDEN_BYTES = 1 << 20
"""Of all tensors together: the manifest is read whole, and servers compute the sample at every load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One file and how it is run; `name` is the candidate's."""

    name: str
    path: Path
    backend: str
    precision: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Everything that one version is made of. `winner` may be the source itself."""

    settings: PublishSettings
    source: Variant
    winner: Variant
    reason: str
    origin: Source
    passes: tuple[PassRecord, ...]
    recipe_sha256: str
    calibration_sha256: str
    golden: Golden | None
    accuracy: tuple[Accuracy, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


def publish_version(publication: Publication, inputs: Sequence[InputSpec], config: str | None) -> Path:
    """Publish the next version; the repository is unchanged until one rename brings it into place.

    `config` is a configuration that the recipe names; without one, and where the model has none, one is derived.

    Returns:
        The version's folder.

    Raises:
        ErgError: the repository refuses it, as where the model has another configuration than the one named.
        OSError: the disk is full, or the like. Nothing was published.
    """
    settings = publication.settings
    root = Path(settings.repository)
    with tempfile.TemporaryDirectory(prefix="erg-publish-") as folder:
        build = Path(folder)
        artifacts = _place(publication, build)
        manifest = _manifest(publication, artifacts)
        if config is None and not has_config(root / settings.name):
            served = read_onnx(publication.source.path)
            config = derive_config(
                settings.name, served, inputs, best_batch(publication.measurements, publication.winner.name)
            )
        version = publish(root, settings.name, build, manifest, config)
    return root / settings.name / str(version)


def published_already(publication: Publication) -> Path | None:
    """The newest version, where it was made of the same inputs and serves the same winner; None otherwise."""
    model = Path(publication.settings.repository) / publication.settings.name
    newest = max(versions_on_disk(model), default=0) if model.is_dir() else 0
    manifest = load_manifest(model / str(newest)) if newest else None
    if manifest is None or manifest.recipe_sha256 != publication.recipe_sha256 or not manifest.selected:
        return None
    served = next((each for each in manifest.artifacts if each.name == manifest.selected[0].artifact), None)
    if served is None or served.name != publication.winner.name or served.file not in manifest.files:
        return None
    same = manifest.files[served.file].sha256 == publication.winner.sha256
    return model / str(newest) if same else None


def golden_sample(
    feed: Mapping[str, Array], names: Sequence[str], outputs: Sequence[Array], source_outputs: Sequence[Array]
) -> Golden | None:
    """The inputs and the winner's own outputs, with tolerances that fit it; None where they are too large to keep.

    A server without the winner's backend, or on a processor that computes its precision otherwise, answers as the
    source does at the furthest; so the absolute tolerance is twice the largest difference between the two here.
    """
    arrays = [*feed.values(), *outputs]
    if sum(array.nbytes for array in arrays) > MAX_GOLDEN_BYTES:
        return None
    difference = max(
        (
            float(np.abs(one.astype(np.float64) - other).max())
            for one, other in zip(outputs, source_outputs, strict=True)
            if one.dtype.kind == "f" and one.size and one.shape == other.shape
        ),
        default=0.0,
    )
    return Golden(
        inputs=tuple(Tensor.from_numpy(name, array) for name, array in feed.items()),
        outputs=tuple(Tensor.from_numpy(name, array) for name, array in zip(names, outputs, strict=True)),
        absolute_tolerance=max(1e-4, 2 * difference),
    )


def _place(publication: Publication, build: Path) -> tuple[Artifact, ...]:
    """Copy the files into the version's folder; one that two variants run lies there once."""
    source, winner = publication.source, publication.winner
    same_file = winner.sha256 == source.sha256
    kept = [winner]
    if publication.settings.keep_source and winner.name != SOURCE_CANDIDATE:
        kept.append(source)
    artifacts = []
    for variant in kept:
        plain = variant.name == SOURCE_CANDIDATE or same_file
        file = SOURCE_FILENAME if plain else f"{variant.name}.onnx"
        if not (build / file).exists():
            shutil.copyfile(variant.path, build / file)
        artifacts.append(
            Artifact(
                name=variant.name,
                file=file,
                backend=variant.backend,
                precision=variant.precision,
                batch_limit=best_batch(publication.measurements, variant.name),
                bytes=variant.bytes,
            )
        )
    return tuple(artifacts)


def _manifest(publication: Publication, artifacts: tuple[Artifact, ...]) -> Manifest:
    winner = publication.winner.name
    otherwise = f"the plain model, where {publication.winner.backend} is not installed"
    selected = [Selection(device="cpu", artifact=winner, reason=publication.reason)]
    selected += [
        Selection(
            device="cpu",
            artifact=each.name,
            reason=otherwise,
        )
        for each in artifacts
        if each.name != winner
    ]
    return Manifest(
        model=publication.settings.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        erg_version=__version__,
        recipe_sha256=publication.recipe_sha256,
        source=publication.origin,
        passes=publication.passes,
        calibration_sha256=publication.calibration_sha256,
        accuracy=publication.accuracy,
        measurements=publication.measurements,
        verdicts=publication.verdicts,
        artifacts=artifacts,
        selected=tuple(selected),
        golden=publication.golden,
    )
