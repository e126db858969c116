"""A model on its way through the pipeline: one file, the form that it is in, and its digest."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from erg_server.repository.manifest import digest_file


class Format(enum.StrEnum):
    """What a pass may expect of a file. Passes are chained by it before any of them runs."""

    SOURCE = "source"
    """Whatever the source is kept in; not for a backend yet."""
    ONNX = "onnx"
    """Canonical: standard operators, fp32, one file with its weights inside. Opset 18, or an older source's own."""
    ONNX_QUANTIZED = "onnx-quantized"
    """Standard operators that compute in less than fp32, as QDQ pairs do. Any backend may try it."""
    ONNX_ORT = "onnx-ort"
    """With operators of com.microsoft, which only ONNX Runtime has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file in one form. `sha256` is of its bytes; of a source that is a folder, the source's own digest."""

    format: Format
    path: Path
    sha256: str
    bytes: int

    @classmethod
    def of(cls, form: Format, path: Path) -> Artifact:
        """Digest the file at `path`; raises ErgError where it is no plain file."""
        digest = digest_file(path)
        return cls(format=form, path=path, sha256=digest.sha256, bytes=digest.bytes)
