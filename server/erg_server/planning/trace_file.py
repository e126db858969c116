"""Reads `trace.csv`: recorded requests, one a line, as `time_s,model[,rows]`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erg_server.planning.load_problem import MAX_TOLD, LoadFileError
from erg_server.planning.traffic import Load, ModelTraffic, RecordedArrivals
from erg_server.repository.problem import Problem, did_you_mean

_COLUMNS = ("time_s", "model", "rows")
_HEADER = "the first line is time_s,model or time_s,model,rows"
_MAX_ROWS = 1_000_000


@dataclass(slots=True)
class _Recording:
    """One model's requests, and the line of the first one."""

    line: int
    requests: list[tuple[float, int]] = field(default_factory=list)


class _LineError(Exception):
    """One line is wrong: the column, what is wrong, and the fix."""

    def __init__(self, column: str, message: str, suggestion: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message
        self.suggestion = suggestion


def parse_trace(text: str, path: Path) -> Load:
    """The load that a recording has. Its first request is at second 0, whatever its times count from.

    Raises:
        LoadFileError: the header or a line is wrong; the first faults are told, each with its line and column.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    problems: list[Problem] = []
    recordings: dict[str, _Recording] = {}
    columns: list[str] | None = None
    while len(problems) < MAX_TOLD:
        try:
            cells = [cell.strip() for cell in next(reader)]
            if columns is None:
                columns = _header(cells)
            elif any(cells):
                name, at_s, rows = _request(cells, columns)
                recordings.setdefault(name, _Recording(reader.line_num)).requests.append((at_s, rows))
        except StopIteration:
            break
        except csv.Error as error:
            problems.append(Problem(path=str(path), line=reader.line_num, message=str(error), suggestion=_HEADER))
            break
        except _LineError as error:
            line = reader.line_num
            told = Problem(
                path=str(path), line=line, key=error.column, message=error.message, suggestion=error.suggestion
            )
            problems.append(told)
            if columns is None:
                break
    if problems:
        raise LoadFileError(problems)
    if not recordings:
        hint = f"{_HEADER}, and each line below it one request"
        raise LoadFileError([Problem(path=str(path), message="has no requests", suggestion=hint)])
    return _load(recordings, path)


def _header(cells: Sequence[str]) -> list[str]:
    for name in cells:
        if name not in _COLUMNS:
            raise _LineError(
                "", f"'{name[:80]}' is no column of a trace", f"{did_you_mean(name, _COLUMNS)} ({_HEADER})"
            )
        if cells.count(name) > 1:
            raise _LineError(name, "is there twice", _HEADER)
    for name in ("time_s", "model"):
        if name not in cells:
            raise _LineError(name, "is missing", _HEADER)
    return list(cells)


def _request(cells: Sequence[str], columns: Sequence[str]) -> tuple[str, float, int]:
    if len(cells) != len(columns):
        raise _LineError("", f"has {len(cells)} cells", f"write one for each of {','.join(columns)}")
    by_column = dict(zip(columns, cells, strict=True))
    name = by_column["model"]
    if not name:
        raise _LineError("model", "is empty", "write the name of a model of the repository")
    try:
        at_s = float(by_column["time_s"])
    except ValueError:
        at_s = math.nan
    if not math.isfinite(at_s):
        raise _LineError("time_s", f"cannot be '{by_column['time_s'][:80]}'", "write seconds as a number, 12.345")
    stated = by_column.get("rows", "1")
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 7 and 1 <= int(stated) <= _MAX_ROWS):
        raise _LineError("rows", f"cannot be '{stated[:80]}'", f"write a whole number from 1 to {_MAX_ROWS}")
    return name, at_s, int(stated)


def _load(recordings: Mapping[str, _Recording], path: Path) -> Load:
    first_s = min(at_s for each in recordings.values() for at_s, _ in each.requests)
    last_s = max(at_s for each in recordings.values() for at_s, _ in each.requests)
    models: list[ModelTraffic] = []
    for name, recording in sorted(recordings.items()):
        # Stable: requests of the same instant keep the order of their lines, and so their rows.
        requests = sorted(recording.requests, key=lambda request: request[0])
        arrivals = RecordedArrivals(
            times_s=tuple(at_s - first_s for at_s, _ in requests), rows=tuple(rows for _, rows in requests)
        )
        models.append(ModelTraffic(name=name, arrivals=arrivals, place=f"{path}:{recording.line}"))
    # One request at an instant has no rate; over a second it has.
    return Load(models=tuple(models), span_s=max(1.0, last_s - first_s))
