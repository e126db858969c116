"""Request traces: which requests are sampled is pure, and their phases go to a JSON file as Triton writes it."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from erg_server.errors import InvalidArgumentError
from erg_server.request import Phases

log = logging.getLogger(__name__)

LEVELS = ("OFF", "TIMESTAMPS")
MAX_KEPT = 10_000
"""Traces kept in memory for one file, about 1 KB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """Triton's trace settings. Of every `rate` requests one is traced, until `count` were (-1: without end).

    `log_frequency` traces go into one numbered file; 0 collects them all in one file, written when the settings change,
    when the server ends, and whenever `MAX_KEPT` wait.
    """

    level: str = "OFF"
    rate: int = 1000
    count: int = -1
    log_frequency: int = 0
    file: str = "erg_trace.json"
    mode: str = "triton"

    def as_wire(self) -> dict[str, list[str]]:
        """The settings under the protocol's names."""
        return {
            "trace_level": [self.level],
            "trace_rate": [str(self.rate)],
            "trace_count": [str(self.count)],
            "log_frequency": [str(self.log_frequency)],
            "trace_file": [self.file],
            "trace_mode": [self.mode],
        }


WIRE_NAMES = {
    "trace_level": "level",
    "trace_rate": "rate",
    "trace_count": "count",
    "log_frequency": "log_frequency",
    "trace_file": "file",
    "trace_mode": "mode",
}


def parse_settings(stated: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Fields from the protocol's names; an empty value clears a setting (None).

    Raises:
        InvalidArgumentError: an unknown setting or a value it cannot have.
    """
    changes: dict[str, Any] = {}
    for name, values in stated.items():
        field = WIRE_NAMES.get(name)
        if field is None:
            raise InvalidArgumentError(f"unknown trace setting '{name}'; there are {', '.join(WIRE_NAMES)}")
        if not values:
            changes[field] = None
        elif field == "level":
            unknown = [value for value in values if value not in LEVELS]
            if unknown:
                raise InvalidArgumentError(
                    f"trace_level '{unknown[0]}' is not supported; there are {', '.join(LEVELS)}"
                )
            changes[field] = "TIMESTAMPS" if "TIMESTAMPS" in values else "OFF"
        elif field in {"rate", "count", "log_frequency"}:
            changes[field] = _number(name, values[0], -1 if field == "count" else int(field == "rate"))
        elif field == "mode" and values[0] != "triton":
            raise InvalidArgumentError(f"trace_mode '{values[0]}' is not supported; there is triton")
        else:
            changes[field] = values[0]
    return changes


def _number(name: str, text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise InvalidArgumentError(f"{name} takes a whole number of at least {least}, not '{text}'")
    return value


class _Sampler:
    """Counts one model's requests against its settings."""

    def __init__(self) -> None:
        self.seen = 0
        self.taken = 0

    def sample(self, settings: TraceSettings) -> bool:
        if settings.level == "OFF" or 0 <= settings.count <= self.taken:
            return False
        self.seen += 1
        if self.seen % settings.rate:
            return False
        self.taken += 1
        return True


class Tracer:
    """Owns the settings, global and by model, the counts, and the traces not written yet."""

    def __init__(self, settings: TraceSettings | None = None) -> None:
        self._defaults = settings or TraceSettings()
        self._settings = self._defaults
        self._overrides: dict[str, dict[str, Any]] = {}
        self._samplers: dict[str, _Sampler] = {}
        # By file, and whether it is numbered.
        self._traces: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        self._numbers: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self.enabled = self._settings.level != "OFF"
        """Whether anything is traced at all: what a request looks at first."""

    def settings(self, model: str = "") -> TraceSettings:
        """The settings of a model, or the global ones."""
        return replace(self._settings, **self._overrides.get(model, {}))

    def update(self, stated: Mapping[str, Sequence[str]], model: str = "") -> TraceSettings:
        """Change settings; a cleared one follows the global setting (a model's) or the server's default (a global one).

        Raises:
            InvalidArgumentError: see `parse_settings`; nothing is changed then.
        """
        changes = parse_settings(stated)
        if model:
            override = self._overrides.setdefault(model, {})
            for field, value in changes.items():
                if value is None:
                    override.pop(field, None)
                else:
                    override[field] = value
            if not override:
                del self._overrides[model]
            self._samplers.pop(model, None)
        else:
            cleared = {item.name: getattr(self._defaults, item.name) for item in fields(TraceSettings)}
            stated_or_cleared = {field: cleared[field] if value is None else value for field, value in changes.items()}
            self._settings = replace(self._settings, **stated_or_cleared)
            self._samplers.clear()
        self.enabled = any(self.settings(name).level != "OFF" for name in ("", *self._overrides))
        self.flush()
        return self.settings(model)

    def sample(self, model: str) -> bool:
        """Whether this request of `model` is traced; call it once a request, and only while `enabled`."""
        # Models without settings of their own share the global rate and count.
        key = model if model in self._overrides else ""
        sampler = self._samplers.get(key)
        if sampler is None:
            sampler = self._samplers[key] = _Sampler()
        return sampler.sample(self.settings(model))

    def record(self, *, model: str, version: str, request_id: str, phases: Phases) -> None:
        """Keep a sampled request's phases, and write them when the settings say so."""
        settings = self.settings(model)
        trace_id = next(self._ids)
        compute_ns = phases.compute_input_ns + phases.compute_infer_ns + phases.compute_output_ns
        compute_start_ns = max(phases.dispatched_ns, phases.completed_ns - compute_ns)
        stamps = (
            ("REQUEST_START", phases.arrival_ns),
            ("QUEUE_START", phases.queued_ns),
            ("COMPUTE_START", compute_start_ns),
            ("COMPUTE_INPUT_END", compute_start_ns + phases.compute_input_ns),
            ("COMPUTE_OUTPUT_START", compute_start_ns + phases.compute_input_ns + phases.compute_infer_ns),
            ("COMPUTE_END", compute_start_ns + compute_ns),
            ("REQUEST_END", phases.completed_ns),
        )
        key = settings.file, settings.log_frequency > 0
        pending = self._traces.setdefault(key, [])
        pending.append({"id": trace_id, "model_name": model, "model_version": int(version), "request_id": request_id})
        times = [{"name": name, "ns": min(at_ns, phases.completed_ns)} for name, at_ns in stamps]
        pending.append({"id": trace_id, "timestamps": times})
        if len(pending) >= 2 * (settings.log_frequency or MAX_KEPT):
            self._write(*key)

    def flush(self) -> None:
        """Write every trace that is kept."""
        for key in list(self._traces):
            self._write(*key)

    def _write(self, file: str, numbered: bool) -> None:
        traces = self._traces.pop((file, numbered))
        path = Path(f"{file}.{self._numbers[file]}" if numbered else file)
        if numbered:
            self._numbers[file] += 1
        try:
            _append(path, json.dumps(traces))
        except (OSError, ValueError) as error:
            log.error("%d traces were not written to %s: %s", len(traces) // 2, path, error)  # noqa: TRY400


def _append(path: Path, array: str) -> None:
    """Join a JSON array to the one that a file ends with, without reading what it holds."""
    with path.open("a+b") as file:
        if size := file.tell():
            file.seek(0)
            first = file.read(1)
            file.seek(max(0, size - 2))
            if first != b"[" or file.read() != b"}]":
                raise ValueError("the file that is there holds no traces")
            file.truncate(size - 1)
            array = f", {array[1:]}"
        file.write(array.encode())
