"""What is known of one published version: the digests of its files, how it was made, and what was measured.

`manifest.json` lies in the version's folder. Its keys are the fields of `Manifest` and of the classes in it; unknown
keys are refused, so that a manifest of a later format is not half understood. Tensors are
{"name", "datatype", "shape", "data": base64 of the wire bytes}.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from erg_server.errors import ErgError, FailedPreconditionError
from erg_server.repository.layout import MANIFEST_FILENAME, contained_path, open_plain, read_text
from erg_server.repository.manifest_json import ManifestFormatError, decode, encode
from erg_server.tensor import Tensor

FORMAT_VERSION = 1
_CHUNK_BYTES = 1024 * 1024


class ManifestError(FailedPreconditionError):
    """The manifest cannot be read, or the files are not the ones that it was written for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """One file of the version."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the model came from. `location` is a package, a path or an address as the recipe names it."""

    kind: str
    location: str
    sha256: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """One pass that made the version, with the settings and the versions of the tools it ran with."""

    name: str
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tools: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A quality figure of this version with its confidence interval; `baseline` is the source model's.

    `variant` is the name of the artifact or candidate that was judged, "" for the version's only one. `drop` is what
    it loses against the source on the same samples, with the bounds of a paired interval of the same `confidence`;
    below zero it gained.
    """

    metric: str
    value: float
    low: float
    high: float
    samples: int
    confidence: float = 0.95
    baseline: float | None = None
    variant: str = ""
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Cost of one batch size on one device. `energy_joules` is for each row; a modelled figure says that it is.

    `variant` is the artifact or candidate that ran, "" for the version's only one; `precision` what its floating-point
    operations ran in; `length` the size of the input's axis of that name, None for a model without one; `threads` how
    many it was given. `cpu_ms_per_row` is the CPU time of the whole process over the rows. `cpu_ratio` is the source's
    CPU time over this one's in the same interleaved run: above 1 this one is cheaper.
    """

    device: str
    backend: str
    batch_size: int
    latency_ms_p50: float
    throughput_per_s: float
    latency_ms_p99: float | None = None
    memory_bytes: int | None = None
    energy_joules: float | None = None
    energy_source: Literal["measured", "modelled", "none"] = "none"
    shape: str = ""
    variant: str = ""
    precision: str = ""
    length: int | None = None
    threads: int = 1
    cpu_ms_per_row: float | None = None
    cpu_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one variant pays on one kind of device at one batch size and length (None where it has no length).

    `reason` has the figure and the bound. A variant that the gate refused is "refused" whatever it would save.
    """

    variant: str
    device: Literal["cpu", "gpu"]
    batch_size: int
    length: int | None = None
    verdict: Literal["worth it", "not worth it", "refused"]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One form of the version: a file relative to its folder, and how it is to be run.

    `precision` is what its floating-point operations run in, "" for the backend's own default; the backend is told so
    by the parameter INFERENCE_PRECISION_HINT. `parameters` are further configuration parameters. `batch_limit` caps the
    rows of a batch, not of a request; None leaves them to the configuration. `bytes` is the size of the file.
    """

    name: str
    file: str
    backend: str
    precision: str = ""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    batch_limit: int | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The artifact to serve on a kind of device, and why: `reason` has the figures that it won by."""

    device: Literal["cpu", "gpu"]
    artifact: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Inputs, and the outputs that a version must reproduce before it may serve."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    absolute_tolerance: float = 1e-4
    relative_tolerance: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything known of one version. `files` are relative to its folder and leave out the manifest itself.

    `artifacts` are the forms that it may be served in, none where there is but the file that the configuration names.
    `selected` says in order of preference which of them runs where: the first of the device's kind whose backend is
    installed, unless the configuration says otherwise (`repository/selection.py`).
    """

    model: str
    format_version: int = FORMAT_VERSION
    created: str = ""
    """When, in ISO 8601 with the zone."""
    erg_version: str = ""
    recipe_sha256: str = ""
    """Of the recipe and everything that it reads: equal digests make equal versions."""
    source: Source | None = None
    passes: tuple[PassRecord, ...] = ()
    calibration_sha256: str = ""
    accuracy: tuple[Accuracy, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    selected: tuple[Selection, ...] = ()
    golden: Golden | None = None
    files: Mapping[str, FileDigest] = field(default_factory=lambda: MappingProxyType({}))


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest of a version's folder, None where it has none; raises ManifestError where it cannot be read."""
    path = folder / MANIFEST_FILENAME
    if not path.exists() and not path.is_symlink():
        return None
    try:
        manifest = decode(read_text(path), Manifest, FORMAT_VERSION)
    except ManifestFormatError as error:
        raise ManifestError(f"{path}: {error}") from None
    except ErgError as error:
        raise ManifestError(error.message) from error
    return manifest


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as manifest.json has it."""
    return encode(manifest)


def digest_files(folder: Path) -> Mapping[str, FileDigest]:
    """Digests of every file under `folder` but a manifest at its top.

    Raises:
        ManifestError: something in it is neither a file nor a folder.
    """
    digests: dict[str, FileDigest] = {}
    for relative in list_files(folder):
        if relative != MANIFEST_FILENAME:
            digests[relative] = digest_file(folder / relative)
    return MappingProxyType(digests)


def list_files(folder: Path) -> list[str]:
    """The relative paths of the files under `folder`, sorted; raises ManifestError for links and the like."""
    found: list[str] = []
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                relative = Path(entry.path).relative_to(folder).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found.append(relative)
                else:
                    raise ManifestError(f"'{relative}' in {folder} is neither a file nor a folder")
    return sorted(found)


def digest_file(path: Path) -> FileDigest:
    """Read one file through, following no link."""
    digest = hashlib.sha256()
    size = 0
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileDigest(sha256=digest.hexdigest(), bytes=size)


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Check every file that the manifest names, and that there is none beside them.

    Raises:
        ManifestError: a file is missing, changed or extra.
    """
    for relative, expected in sorted(manifest.files.items()):
        try:
            path = contained_path(folder, relative)
            size = path.stat().st_size
            actual = digest_file(path) if size == expected.bytes else FileDigest(sha256="", bytes=size)
        except (ErgError, OSError) as error:
            raise ManifestError(f"{folder / relative}: {error}") from error
        if actual.bytes != expected.bytes:
            raise ManifestError(f"{path} has {actual.bytes} bytes; the manifest says {expected.bytes}")
        if actual.sha256 != expected.sha256:
            raise ManifestError(f"{path} has sha256 {actual.sha256}; the manifest says {expected.sha256}")
    extra = set(list_files(folder)) - set(manifest.files) - {MANIFEST_FILENAME}
    if extra:
        raise ManifestError(f"{folder} has files that its manifest does not name: {', '.join(sorted(extra))}")
