"""A run as one document: what was asked, what it ran on, every figure with its interval, and how it went by the second.

Terminal, CSV, JSON and HTML all show a `RunDocument`, and `erg load compare` reads them back from files. The format's
number is raised whenever a reader of the old one would misread the new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from erg_loadtest.blocks import Bucket, timeline
from erg_loadtest.consumption import Account, Consumption, Use
from erg_loadtest.errors import PlanError
from erg_loadtest.figure import DocumentError, Figure
from erg_loadtest.indices import Parts
from erg_loadtest.load import LoadPlan
from erg_loadtest.machine import machine, versions
from erg_loadtest.quality import Quality
from erg_loadtest.report import warnings
from erg_loadtest.result import LoadResult
from erg_loadtest.run_figures import run_consumption, run_figures
from erg_loadtest.tail import latency_tail

FORMAT = 1
_MAX_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDocument:
    """One run. Mappings hold plain JSON values."""

    label: str
    """What the run is called beside others: the model, or a point of a sweep."""
    variant: str
    """The model under one configuration: what the points of one line in a picture share."""
    model: str
    version: str
    url: str
    load: str
    """The arrivals in words."""
    plan: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    server_software: Mapping[str, Any]
    command: str
    started: str
    """ISO 8601, UTC."""
    validity: Mapping[str, Any] | None
    """The client's verdict on itself; None where it gave none."""
    warnings: tuple[str, ...]
    figures: Mapping[str, Figure]
    missing: Mapping[str, str]
    """Why a figure that could have been there is not."""
    timeline: tuple[Bucket, ...]
    tail: tuple[tuple[float, float], ...]
    """Latency by share of answers: (share within it, milliseconds), dense towards 1."""
    batches: Mapping[int, int]
    """Executions by their rows, as the server counted them."""
    energy: Use | None
    money: Use | None
    quality: Quality = field(default_factory=Quality)
    result: Mapping[str, Any] = field(default_factory=dict)
    """All further figures of the run, as `LoadResult.to_json` writes them."""

    @property
    def valid(self) -> bool:
        """Whether the client was not the bottleneck, as far as it can tell."""
        return self.validity is None or bool(self.validity.get("valid", True))

    @property
    def power_source(self) -> str:
        """Where joules come from."""
        return "none" if self.energy is None else f"{', '.join(self.energy.sources)} ({self.energy.counter})"

    def parts(self) -> Parts:
        """What the two indices are made of."""
        power, memory, time = (self.figures.get(name) for name in ("watts", "memory_bytes", "latency_mean_us"))
        return Parts(
            name=self.label,
            power=None if power is None else power.value,
            power_source="measured" if power is None else power.source,
            memory=None if memory is None else memory.value,
            time=None if time is None else time.value,
            performance=self.quality.performance,
            training_s=self.quality.training_s,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"format": FORMAT, "kind": "run", **plain(self), "quality": self.quality.to_json()}

    @staticmethod
    def from_json(document: object, where: str) -> RunDocument:
        """The counterpart of `to_json`; raises DocumentError that names `where`."""
        if not isinstance(document, Mapping):
            raise DocumentError(f"{where}: not a document of `erg load`")
        check_format(document, where)
        if document.get("kind") != "run":
            raise DocumentError(f"{where}: a document of kind '{document.get('kind')}', not a run")
        names = {entry.name for entry in fields(RunDocument)}
        values = {name: value for name, value in document.items() if name in names}
        try:
            return RunDocument(
                **values
                | {
                    "figures": _figures(values["figures"], where),
                    "warnings": tuple(str(text) for text in values["warnings"]),
                    "timeline": tuple(Bucket(**entry) for entry in values["timeline"]),
                    "tail": tuple((float(share), float(ms)) for share, ms in values["tail"]),
                    "batches": {int(size): int(count) for size, count in values["batches"].items()},
                    "energy": _use(values["energy"], where),
                    "money": _use(values["money"], where),
                    "quality": Quality(**values["quality"]),
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DocumentError(f"{where}: not a whole run: {error!r}") from None


def run_document(
    plan: LoadPlan,
    result: LoadResult,
    *,
    command: str,
    label: str = "",
    variant: str = "",
    quality: Quality | None = None,
) -> RunDocument:
    """The document of a run that `run_load` made."""
    if result.record is None:
        raise PlanError("only a result of run_load has what a document needs")
    spent = run_consumption(result)
    figures, missing = run_figures(plan, result, spent)
    figures_json = result.to_json()
    return RunDocument(
        label=label or result.model,
        variant=variant or result.model,
        model=result.model,
        version=result.version,
        url=result.url,
        load=figures_json["description"],
        plan=plain(plan),
        machine=machine(),
        versions=versions(),
        server_software=plain(result.record.software),
        command=command,
        started=datetime.fromtimestamp(result.record.started_unix_s, UTC).isoformat(timespec="seconds"),
        validity=_validity(result),
        warnings=tuple(warnings(result)),
        figures=figures,
        missing=missing,
        timeline=timeline(result.record.samples),
        tail=latency_tail(result.latencies_ns),
        batches={} if isinstance(result.server, str) else dict(result.server.batches),
        energy=_known(spent, "energy"),
        money=_known(spent, "money"),
        quality=quality or Quality(),
        result=figures_json,
    )


def _validity(result: LoadResult) -> dict[str, Any]:
    reasons = list(result.validity.reasons)
    if result.mlperf is not None and not result.mlperf.valid:
        reasons += [f"LoadGen: {reason}" for reason in result.mlperf.reasons]
    return {**result.validity.to_json(), "valid": not reasons, "reasons": reasons}


def plain(value: Any) -> Any:
    """A value as JSON writes it: bytes by their digest, sets in order, paths as text."""
    match value:
        case bytes():
            found: Any = f"sha256:{hashlib.sha256(value).hexdigest()}"
        case Path():
            found = str(value)
        case Mapping():
            found = {str(key): plain(entry) for key, entry in value.items()}
        case frozenset() | set():
            found = sorted(plain(entry) for entry in value)
        case list() | tuple():
            found = [plain(entry) for entry in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            known = isinstance(value, RunDocument | Figure | Bucket | Use | Account)
            found = {} if known else {"kind": type(value).__name__}
            found |= {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
        case _:
            found = value
    return found


def digest(value: object) -> str:
    """Of a value's plain form; equal values have equal digests in every process."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True, default=str).encode()).hexdigest()


def check_format(document: Mapping[str, Any], where: str) -> None:
    """Raises DocumentError unless this version can read the document."""
    if document.get("format") != FORMAT:
        raise DocumentError(
            f"{where}: format {document.get('format')!r}, and this version reads {FORMAT}: "
            "write it again with `erg load ... --output`"
        )


def read_json(path: Path) -> Mapping[str, Any]:
    """A document's file, its format checked; raises DocumentError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DocumentError(f"{path}: larger than {_MAX_BYTES} bytes")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path}: not JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise DocumentError(f"{path}: not a document of `erg load`")
    check_format(document, str(path))
    return document


def _figures(entries: Mapping[str, object], where: str) -> dict[str, Figure]:
    return {str(name): Figure.from_json(entry, f"{where}: figure '{name}'") for name, entry in entries.items()}


def _use(entry: Mapping[str, Any] | None, where: str) -> Use | None:
    if entry is None:
        return None
    accounts = tuple(
        Account(**each | {"per_1000": Figure.from_json(each["per_1000"], f"{where}: account")})
        for each in entry["accounts"]
    )
    own = entry["own"]
    return Use(
        accounts=accounts,
        own=None if own is None else Figure.from_json(own, f"{where}: own use"),
        whole=Figure.from_json(entry["whole"], f"{where}: whole use"),
        counter=str(entry["counter"]),
        sources=tuple(str(source) for source in entry["sources"]),
    )


def _known(spent: Consumption, name: str) -> Use | None:
    found = getattr(spent, name)
    return found if isinstance(found, Use) else None


def labelled(documents: Sequence[RunDocument]) -> list[RunDocument]:
    """The same with labels that differ, so that a legend tells them apart."""
    seen: dict[str, int] = {}
    result = []
    for document in documents:
        count = seen[document.label] = seen.get(document.label, 0) + 1
        label = document.label if count == 1 else f"{document.label} ({count})"
        result.append(replace(document, label=label))
    return result
