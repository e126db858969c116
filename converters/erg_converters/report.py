"""What a conversion did and found, step by step: report.json, whose keys are the fields of `Report`.

Figures that also travel with the served model are of the manifest's own types. Readers refuse unknown keys and other
format versions, so that a report of a later Erg is not half understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from erg_server.errors import ErgError
from erg_server.repository.layout import read_text
from erg_server.repository.manifest import Accuracy, Measurement, PassRecord, Source, Verdict
from erg_server.repository.manifest_json import ManifestFormatError, decode, encode

from erg_converters.errors import ConversionError

REPORT_FORMAT_VERSION = 1
REPORT_FILENAME = "report.json"
SOURCE_CANDIDATE = "source"
"""The name of the plain fp32 ONNX file in ONNX Runtime, which every candidate is held against."""

Status = Literal["done", "cached", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step. `candidate` is "" where all candidates share it; `message` says why it failed or was skipped.

    `seconds` of a cached step are those that it took when it ran. `figures` are name to value, in words and units.
    """

    name: str
    status: Status
    candidate: str = ""
    seconds: float = 0.0
    figures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """What the gate found of a candidate against the source. Cosines are of rows, None where none were compared."""

    passed: bool
    reasons: tuple[str, ...] = ()
    cosine_mean: float | None = None
    cosine_min: float | None = None
    batch_cosine_min: float | None = None
    deterministic: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRecord:
    """One way to run the model. `reason` says why it was refused or failed; such a one has no figures of cost.

    `precision` is what is not quantized runs in; `passes` made its file out of the source, `bytes` is its size.
    """

    name: str
    backend: str
    precision: str
    status: Literal["passed", "refused", "failed"]
    reason: str = ""
    form: str = ""
    sha256: str = ""
    bytes: int = 0
    passes: tuple[PassRecord, ...] = ()
    gate: GateRecord | None = None
    accuracy: Accuracy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run. `measurements`, `verdicts` and `accuracy` name candidates by `variant`.

    `chosen` is the candidate that is to be served and `chosen_reason` why; `front` names those that no other beats in
    both accuracy and cost, cheapest first. `published` is the version's folder, "" where nothing was.
    """

    model: str
    format_version: int = REPORT_FORMAT_VERSION
    created: str = ""
    erg_version: str = ""
    recipe: str = ""
    recipe_sha256: str = ""
    device: str = ""
    """The processor that everything was measured on."""
    source: Source | None = None
    evaluation: str = ""
    evaluation_sha256: str = ""
    calibration_sha256: str = ""
    steps: tuple[StepRecord, ...] = ()
    candidates: tuple[CandidateRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    front: tuple[str, ...] = ()
    chosen: str = ""
    chosen_reason: str = ""
    published: str = ""

    def candidate(self, name: str) -> CandidateRecord | None:
        """The candidate called so, None where there is none."""
        return next((each for each in self.candidates if each.name == name), None)


def dump_report(report: Report) -> str:
    """The report as report.json has it."""
    return encode(report)


def load_report(path: Path) -> Report:
    """Read a report.json, or the one in the folder `path`.

    Raises:
        ConversionError: it is not there, or not a report of this format.
    """
    file = path / REPORT_FILENAME if path.is_dir() else path
    try:
        return decode(read_text(file), Report, REPORT_FORMAT_VERSION)
    except ManifestFormatError as error:
        raise ConversionError(f"{file}: {error}") from None
    except ErgError as error:
        raise ConversionError(error.message) from error
