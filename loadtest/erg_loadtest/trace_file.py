"""Reads recorded arrivals: a CSV with a column of seconds, or perf_analyzer's file of request intervals."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from erg_loadtest.arrivals import NS_PER_S, Replay
from erg_loadtest.errors import PlanError

_TIME_COLUMNS = ("time_s", "timestamp_s", "time", "timestamp")
_MODEL_COLUMN = "model"
_MAX_FILE_BYTES = 256 << 20
_MAX_S = 366 * 86400.0
_NS_PER_US = 1000


def read_trace(path: Path, *, speed: float = 1.0, model: str = "") -> Replay:
    """The arrivals of a file, `speed` times as fast as recorded; raises PlanError that names line and fix.

    Two forms are told apart by the first line. A whole number: perf_analyzer's request intervals, microseconds between
    a request and the one before it, one a line; the first is waited for as well. Anything else: the header of a CSV
    with a column `time_s` (or `timestamp_s`, `time`, `timestamp`) in seconds, in order; the first request is at
    second 0, whatever the times count from. Where such a file has a column `model`, only lines of `model` count.
    """
    if not 0 < speed < math.inf:
        raise PlanError(f"the replay speed must be positive and finite, not {speed:g}")
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise PlanError(f"{path}: larger than {_MAX_FILE_BYTES >> 20} MiB: cut it into parts")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise PlanError(f"{path}: empty; write a header with time_s and one request a line")
    if lines[0][1].isdecimal():
        due_s: Iterator[float] = itertools.accumulate(_interval_s(path, number, line) for number, line in lines)
        times_s = list(due_s)
    else:
        times_s = _csv_times_s(path, lines, model)
    return Replay(
        offsets_ns=tuple(round(time_s / speed * NS_PER_S) for time_s in times_s), source=path.name, speed=speed
    )


def _interval_s(path: Path, number: int, line: str) -> float:
    # ASCII digits only: str.isdecimal takes other scripts' digits as well.
    if not (line.isascii() and line.isdecimal()):
        raise PlanError(f"{path}:{number}: '{_short(line)}' is not a whole number of microseconds")
    # By length first: Python refuses to parse very long numbers with an error of its own.
    interval_s = math.inf if len(line) > 18 else int(line) * _NS_PER_US / NS_PER_S
    if interval_s > _MAX_S:
        raise PlanError(f"{path}:{number}: an interval of more than a year; intervals are in microseconds")
    return interval_s


def _csv_times_s(path: Path, lines: Sequence[tuple[int, str]], model: str) -> list[float]:
    header_line, header = lines[0]
    columns = [name.strip().lower() for name in _cells(path, header_line, header)]
    named = [name for name in _TIME_COLUMNS if name in columns]
    if not named:
        raise PlanError(
            f"{path}:{header_line}: neither a CSV header with a column time_s (seconds) nor a whole number of "
            f"microseconds; found '{_short(header)}'"
        )
    time_at = columns.index(named[0])
    model_at = columns.index(_MODEL_COLUMN) if _MODEL_COLUMN in columns else None
    times_s: list[float] = []
    models: set[str] = set()
    for number, line in lines[1:]:
        cells = _cells(path, number, line)
        if len(cells) != len(columns):
            raise PlanError(f"{path}:{number}: {len(cells)} columns where the header has {len(columns)}")
        if model_at is not None and model:
            models.add(cells[model_at].strip())
            if cells[model_at].strip() != model:
                continue
        time_s = _time_s(path, number, cells[time_at])
        if times_s and time_s < times_s[-1]:
            raise PlanError(f"{path}:{number}: {time_s:g} s is before the request above it; sort the file by time")
        times_s.append(time_s)
    if not times_s and models:
        raise PlanError(f"{path}: no line is of model '{model}'; the file has {', '.join(sorted(models)[:8])}")
    if not times_s:
        raise PlanError(f"{path}: a header but no request; write one request a line")
    if times_s[-1] - times_s[0] > _MAX_S:
        raise PlanError(f"{path}: longer than a year; times are in seconds: are these milliseconds?")
    return [time_s - times_s[0] for time_s in times_s]


def _time_s(path: Path, number: int, cell: str) -> float:
    try:
        time_s = float(cell)
    except ValueError:
        time_s = math.nan
    if not math.isfinite(time_s):
        raise PlanError(f"{path}:{number}: '{_short(cell)}' is not a number of seconds")
    return time_s


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except (csv.Error, StopIteration) as error:
        raise PlanError(f"{path}:{number}: not a line of CSV ({error})") from None


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
