"""A model repository made of units by hard links: what a server reads, or what `erg fetch` leaves. Blocking file work.

A record beside it says which models and versions the view made, and of which units; nothing else is ever touched.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erg_server.errors import FailedPreconditionError
from erg_server.files import replace_text
from erg_server.repository.layout import STAGING_PREFIX
from erg_server.storage.fetch_plan import FILES_LABEL


@dataclass(slots=True, kw_only=True)
class ShownModel:
    """What the view shows of one model: unit ids by label, "" while one is being changed, and its own files' paths."""

    location: str
    units: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @property
    def versions(self) -> set[int]:
        """The versions shown."""
        return {int(label) for label in self.units if label != FILES_LABEL}


class View:
    """One tree of models. One process changes it at a time."""

    def __init__(self, root: Path, record: Path) -> None:
        """Read the record; one that cannot be read counts as none."""
        self.root = root
        self._record = record
        self.models: dict[str, ShownModel] = _read_record(record)

    def shown(self, name: str) -> ShownModel | None:
        """What is shown of a model, if it is."""
        return self.models.get(name)

    def show(self, name: str, location: str, units: Mapping[str, tuple[str, Path]]) -> bool:
        """Show units of a model beside those that it shows, by label with id and folder; returns whether it changed.

        A model that is new here appears whole; of one that is known its own files come first, then each version at
        once.

        Raises:
            FailedPreconditionError: a folder of that name is there that this view did not make.
            OSError: the disk refuses.
        """
        known = self.models.get(name)
        place = self.root / name
        taken = [place] if known is None else [place / label for label in units if label not in known.units]
        foreign = [path for path in taken if path.name != FILES_LABEL and path.exists()]
        if foreign:
            raise FailedPreconditionError(
                f"{foreign[0]} is there and was not fetched to there; move it away, or choose another folder"
            )
        due = {label: unit for label, unit in units.items() if not self._shows(name, label, unit)}
        if not due:
            return False
        model = known or ShownModel(location=location)
        model.location = location
        self.models[name] = model
        # Before anything appears, so that what a crash leaves is known to be ours.
        model.units |= dict.fromkeys(due, "")
        self._write()
        if not place.exists():
            self._add_model(name, model, due)
        else:
            for label, (_, folder) in sorted(due.items(), key=lambda each: each[0] != FILES_LABEL):
                if label == FILES_LABEL:
                    self._replace_files(place, model, folder)
                else:
                    self._replace_version(place / label, folder)
        model.units |= {label: unit_id for label, (unit_id, _) in due.items()}
        self._write()
        return True

    def hide(self, name: str, labels: set[str] | None = None) -> None:
        """Take versions of a model out of sight, or all of it."""
        model = self.models.get(name)
        if model is None:
            return
        if labels is None or not model.units.keys() - labels - {FILES_LABEL}:
            self._discard(self.root / name)
            del self.models[name]
        else:
            for label in labels & model.units.keys():
                self._discard(self.root / name / label)
                del model.units[label]
        self._write()

    def _shows(self, name: str, label: str, unit: tuple[str, Path]) -> bool:
        model = self.models.get(name)
        unit_id, folder = unit
        if model is None or model.units.get(label) != unit_id:
            return False
        place = self.root / name if label == FILES_LABEL else self.root / name / label
        try:
            return all((place / path).stat().st_size == (folder / path).stat().st_size for path in _files(folder))
        except OSError:
            return False

    def _add_model(self, name: str, model: ShownModel, units: Mapping[str, tuple[str, Path]]) -> None:
        staging = self._staging()
        try:
            for label, (_, folder) in units.items():
                _link_all(folder, staging if label == FILES_LABEL else staging / label)
                if label == FILES_LABEL:
                    model.files = list(_files(folder))
            staging.rename(self.root / name)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _replace_files(self, place: Path, model: ShownModel, folder: Path) -> None:
        """Each of the model's own files at once; those that are no more go last."""
        new = list(_files(folder))
        for path in new:
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = target.parent / f".{target.name[:200]}-{secrets.token_hex(4)}"
            _link(folder / path, staging)
            staging.replace(target)
            # Renaming one link of a file onto another of it leaves both.
            staging.unlink(missing_ok=True)
        for path in set(model.files) - set(new):
            (place / path).unlink(missing_ok=True)
        model.files = new

    def _replace_version(self, place: Path, folder: Path) -> None:
        staging = self._staging()
        try:
            _link_all(folder, staging)
            if place.exists():
                self._discard(place)
            staging.rename(place)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _discard(self, place: Path) -> None:
        """Out of sight at once, then removed."""
        aside = self.root / f"{STAGING_PREFIX}{secrets.token_hex(8)}"
        try:
            place.rename(aside)
        except FileNotFoundError:
            return
        shutil.rmtree(aside, ignore_errors=True)

    def _staging(self) -> Path:
        folder = self.root / f"{STAGING_PREFIX}{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
        return folder

    def _write(self) -> None:
        models = {
            name: {"location": each.location, "units": each.units, "files": each.files}
            for name, each in sorted(self.models.items())
        }
        replace_text(self._record, json.dumps(models, indent=1))


def _read_record(path: Path) -> dict[str, ShownModel]:
    try:
        stated: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: ShownModel(location=each["location"], units=dict(each["units"]), files=list(each["files"]))
            for name, each in stated.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _files(folder: Path) -> Iterator[str]:
    """Relative paths of the files below, sorted."""
    found = [Path(top, name) for top, _, names in os.walk(folder) for name in names]
    return iter(sorted(path.relative_to(folder).as_posix() for path in found))


def _link_all(folder: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    for path in _files(folder):
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        _link(folder / path, into / path)


def _link(source: Path, target: Path) -> None:
    """A second name of the file; a copy where the file system or another owner does not let it have one."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
