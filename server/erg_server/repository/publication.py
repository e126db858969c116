"""Publishes a built version so that nobody ever sees half of it: written aside, flushed, then renamed into place."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import tempfile
from pathlib import Path

from erg_server.errors import AlreadyExistsError, InvalidArgumentError
from erg_server.repository.layout import (
    CONFIG_FILENAMES,
    CONFIG_PBTXT,
    MANIFEST_FILENAME,
    STAGING_PREFIX,
    check_name,
    open_plain,
    versions_on_disk,
)
from erg_server.repository.manifest import Manifest, digest_files, dump_manifest, list_files

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def publish(
    root: Path,
    name: str,
    build: Path,
    manifest: Manifest,
    config: str | None = None,
    *,
    config_filename: str = CONFIG_PBTXT,
    replace_config: bool = False,
) -> int:
    """Publish the files under `build` as the next version of `name` in the repository `root`.

    The manifest is written with the digests of what was copied. `config` is written where the model has no
    configuration yet; where it has another one, only with `replace_config`.

    Returns:
        The number of the new version.

    Raises:
        AlreadyExistsError: the model has another configuration, and it was not to be replaced. Nothing is published.
        ErgError: the name is no name, or the build holds something else than files.
    """
    check_name(name)
    if config_filename not in CONFIG_FILENAMES:
        raise InvalidArgumentError(f"a configuration is called {' or '.join(CONFIG_FILENAMES)}, not {config_filename}")
    root.mkdir(parents=True, exist_ok=True)
    model = root / name
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=root))
    try:
        # mkdtemp's folder is private; what is published is for the server's user to read.
        staging.chmod(0o755)
        version = staging / "version"
        _copy(build, version)
        _write(version / MANIFEST_FILENAME, dump_manifest(dataclasses.replace(manifest, files=digest_files(version))))
        _sync_folders(version)
        writes_config = config is not None and _config_is_new(model, config, replace=replace_config)
        if config is not None and writes_config:
            _write(staging / config_filename, config)
        if model.is_dir():
            return _add_version(model, version, staging / config_filename if writes_config else None)
        return _add_model(model, version, staging, config_filename if writes_config else None)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _add_model(model: Path, version: Path, staging: Path, config_filename: str | None) -> int:
    """Bring a new model into place, configuration and version at once."""
    whole = staging / "model"
    whole.mkdir(mode=0o755)
    version.rename(whole / "1")
    if config_filename is not None:
        (staging / config_filename).rename(whole / config_filename)
    _sync(whole)
    try:
        whole.rename(model)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        # Another publication made the model in the meantime.
        config = whole / config_filename if config_filename is not None else None
        if config is not None and not _config_is_new(model, config.read_text(encoding="utf-8"), replace=False):
            config = None
        return _add_version(model, whole / "1", config)
    _sync(model.parent)
    return 1


def _add_version(model: Path, version: Path, config: Path | None) -> int:
    """Bring a version of an existing model into place, after its configuration: a server that polls sees both."""
    if config is not None:
        config.rename(model / config.name)
        for other in CONFIG_FILENAMES:
            if other != config.name:
                (model / other).unlink(missing_ok=True)
    while True:
        number = max(versions_on_disk(model), default=0) + 1
        try:
            version.rename(model / str(number))
        except OSError as error:
            # Another publication took the number; the next is free.
            if error.errno not in _TAKEN:
                raise
            continue
        _sync(model)
        return number


def _config_is_new(model: Path, config: str, *, replace: bool) -> bool:
    """Whether `config` has to be written; raises AlreadyExistsError where another one is in its place."""
    for path in (model / name for name in CONFIG_FILENAMES):
        if not path.exists():
            continue
        if path.read_text(encoding="utf-8") == config:
            return False
        if not replace:
            raise AlreadyExistsError(f"{path} differs from the configuration to publish; keep it or ask to replace it")
    return True


def _copy(build: Path, into: Path) -> None:
    into.mkdir(mode=0o755)
    files = list_files(build)
    if not files:
        raise InvalidArgumentError(f"there is nothing to publish in {build}")
    for relative in files:
        if relative == MANIFEST_FILENAME:
            raise InvalidArgumentError(f"{build} holds a {MANIFEST_FILENAME}; publication writes it")
        target = into / relative
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open_plain(build / relative) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)
            copy.flush()
            os.fsync(copy.fileno())
        target.chmod(0o644)


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        _sync(Path(folder))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
