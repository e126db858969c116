"""Remove from a virtual environment what a server never runs, and take it out of the packages' own lists of files.

    python scripts/image/trim.py docker/trim-common.txt docker/trim-cpu.txt

Run by the environment's own Python. Each line of a list is a pattern below site-packages, `#` starts a comment.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def patterns(text: str) -> list[str]:
    """The patterns of a list, without comments and empty lines."""
    stated = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in stated if line]


def trim(site: Path, wanted_gone: Iterable[str]) -> int:
    """Delete what the patterns match below `site`, and rewrite each RECORD that lists some of it.

    Returns:
        Bytes freed.

    Raises:
        ValueError: a pattern matches nothing, and which; then nothing has been deleted.
    """
    found: set[Path] = set()
    for pattern in wanted_gone:
        matches = set(site.glob(pattern))
        if not matches:
            raise ValueError(f"{pattern} matches nothing in {site}: take it from the list, or correct it")
        found |= matches
    freed = sum(_size(path) for path in found if not any(parent in found for parent in path.parents))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for record in site.glob("*.dist-info/RECORD"):
        rows = list(csv.reader(record.read_text(encoding="utf-8").splitlines()))
        kept = [row for row in rows if row and (site / row[0]).exists()]
        if len(kept) < len(rows):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(kept)
            record.write_text(text.getvalue(), encoding="utf-8")
    return freed


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_size(child) for child in path.iterdir())


if __name__ == "__main__":
    try:
        bytes_freed = trim(
            Path(sysconfig.get_path("purelib")),
            [pattern for name in sys.argv[1:] for pattern in patterns(Path(name).read_text(encoding="utf-8"))],
        )
    except ValueError as error:
        sys.exit(f"trim: {error}")
    print(f"trimmed {bytes_freed / 1e6:.0f} MB")
