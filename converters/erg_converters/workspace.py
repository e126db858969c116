"""The cache of conversions: results by what they were made of, so that a run goes on where the last one stopped.

    ROOT/files/KEY/model.onnx, entry.json    what a pass wrote, with its digest
    ROOT/values/KEY.json                     what a check or a measurement found
    ROOT/work/KEY/                           where a pass works, kept through an interrupt; resume.json for long ones
    ROOT/runs/NAME-DIGEST/                   reports

A key is the digest of everything that the result depends on. Entries appear by one rename and are never changed; one
whose file does not have its digest any more is thrown away and made again. The idea of the key is Olive's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erg_server.errors import ErgError
from erg_server.files import replace_text, write_text
from erg_server.repository.manifest import digest_file

from erg_converters.artifact import Artifact, Format

CACHE_VARIABLE = "ERG_CONVERT_CACHE"
DEFAULT_ROOT = Path(".erg-cache") / "convert"

_ENTRY_FILENAME = "entry.json"
_FILENAME = "model.onnx"
_RESUME_FILENAME = "resume.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a pass wrote, and what it said of it when it ran."""

    artifact: Artifact
    seconds: float
    figures: Mapping[str, str]


def default_root() -> Path:
    """Where the cache is unless the command line says otherwise."""
    return Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_ROOT)


def digest_of(parts: Mapping[str, Any]) -> str:
    """The digest of named values that JSON has, whatever their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Workspace:
    """One cache folder. Several runs may use it at once: the first to finish an entry puts it there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def work_folder(self, key: str) -> Path:
        """Where the work on `key` is done; what an interrupted run left there is still in it."""
        folder = self.root / "work" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def resume_store(self, key: str) -> ResumeStore:
        """What a pass put aside for going on with `key` after an interrupt."""
        return ResumeStore(self.work_folder(key) / _RESUME_FILENAME)

    def run_folder(self, name: str, digest: str) -> Path:
        """Where the report of a recipe lies."""
        folder = self.root / "runs" / f"{name}-{digest[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, its file read through and as it was; None where it has to be made."""
        folder = self.root / "files" / key
        try:
            stated = json.loads((folder / _ENTRY_FILENAME).read_text(encoding="utf-8"))
            found = digest_file(folder / _FILENAME)
            if found.sha256 == stated["sha256"]:
                kept = Artifact(
                    format=Format(stated["format"]), path=folder / _FILENAME, sha256=found.sha256, bytes=found.bytes
                )
                return Entry(artifact=kept, seconds=float(stated["seconds"]), figures=dict(stated["figures"]))
        except FileNotFoundError:
            if not folder.exists():
                return None
        except (ErgError, OSError, ValueError, KeyError, TypeError):
            # Damaged: below.
            pass
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def put(self, key: str, artifact: Artifact, *, seconds: float, figures: Mapping[str, str]) -> Entry:
        """Keep a copy of the artifact under `key`, and clear the work on it.

        Raises:
            OSError: the disk is full, or the like; there is then no entry, and the work is kept.
        """
        parent = self.root / "files"
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=parent))
        try:
            shutil.copyfile(artifact.path, staging / _FILENAME)
            stated = {
                "format": artifact.format.value,
                "sha256": artifact.sha256,
                "seconds": seconds,
                "figures": dict(figures),
            }
            write_text(staging / _ENTRY_FILENAME, json.dumps(stated, indent=2))
            final = parent / key
            try:
                staging.rename(final)
            except OSError:
                # Another run put it there in the meantime: what it has is as good.
                if not (final / _ENTRY_FILENAME).exists():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)
        kept = Artifact(format=artifact.format, path=final / _FILENAME, sha256=artifact.sha256, bytes=artifact.bytes)
        return Entry(artifact=kept, seconds=seconds, figures=figures)

    def get_text(self, key: str) -> str | None:
        """The value kept under `key`; None where there is none."""
        try:
            return (self.root / "values" / f"{key}.json").read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    def put_text(self, key: str, text: str) -> None:
        """Keep a value under `key`; raises OSError where it cannot be written."""
        folder = self.root / "values"
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / f"{key}.json", text)


class ResumeStore(MutableMapping[str, Any]):
    """A small dictionary of JSON values in a file that every change rewrites at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        try:
            stated = json.loads(path.read_text(encoding="utf-8"))
            self._values = stated if isinstance(stated, dict) else {}
        except (OSError, ValueError):
            # Nothing was put aside, or nothing that can be read: begin anew.
            pass

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        replace_text(self._path, json.dumps(self._values))

    def __delitem__(self, key: str) -> None:
        del self._values[key]
        replace_text(self._path, json.dumps(self._values))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
