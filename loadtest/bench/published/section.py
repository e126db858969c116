"""The generated part of a hand-written page: what is between two markers, and nothing else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

BEGIN = "<!-- make bench writes what follows, up to its end marker -->"
END = "<!-- end of what make bench writes -->"


class MarkerError(ValueError):
    """The page has no place for the generated part, or more than one."""


def replaced(page: str, section: str) -> str:
    """The page with the section between its markers; every other character stays.

    Raises:
        MarkerError: the page has not exactly one pair of markers in order, or the section has one itself.
    """
    for marker in (BEGIN, END):
        if page.count(marker) != 1:
            raise MarkerError(f"'{marker}' must be in the page once, and is there {page.count(marker)} times")
        if marker in section:
            raise MarkerError(f"'{marker}' is in the generated text")
    before, rest = page.split(BEGIN)
    if END not in rest:
        raise MarkerError(f"'{END}' comes before '{BEGIN}'")
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}"


def write_atomically(path: Path, content: str) -> None:
    """Write the file as a whole or not at all, with the mode that it had."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    aside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        aside.chmod(mode)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
