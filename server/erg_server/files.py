"""Writes text files so that neither a crash nor a reader finds half of one."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


def replace_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file so that readers find the old text or the new one; raises OSError with nothing changed.

    It keeps the permissions of the file that it replaces; a new one has those that any new file of the process has. Not
    `durable`, it outlives the process but perhaps not a crash of the machine, and takes no wait for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.parent / f".{path.name}-{secrets.token_hex(8)}"
    try:
        write_text(staging, text, durable=durable)
        if path.exists():
            staging.chmod(stat.S_IMODE(path.stat().st_mode))
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file that nobody reads yet; `durable`, it is on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
