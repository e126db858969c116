"""The file that `--load` names: rates in TOML, or a recording in CSV."""

from __future__ import annotations

from pathlib import Path

from erg_server.planning.load_problem import LoadFileError
from erg_server.planning.rates_file import parse_rates
from erg_server.planning.trace_file import parse_trace
from erg_server.planning.traffic import Load
from erg_server.repository.problem import Problem


def read_load(path: Path) -> Load:
    """Read the file; its name says what it is, .toml or .csv.

    Raises:
        LoadFileError: it cannot be read, or something in it is wrong.
    """
    parse = {".toml": parse_rates, ".csv": parse_trace}.get(path.suffix.lower())
    if parse is None:
        hint = "name it rates.toml for rates, or trace.csv for recorded requests"
        raise LoadFileError([Problem(path=str(path), message="is neither .toml nor .csv", suggestion=hint)])
    try:
        # Spreadsheets write a byte order mark before the header.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = "see that the file is there and may be read"
        problem = Problem(path=str(path), message=error.strerror or str(error), suggestion=hint)
        raise LoadFileError([problem]) from error
    except UnicodeDecodeError as error:
        problem = Problem(path=str(path), message="is not UTF-8", suggestion="save it as UTF-8 text")
        raise LoadFileError([problem]) from error
    return parse(text, path)
