"""Where things lie in a repository, and the walls around it: names, paths that stay inside, versions.

    ROOT/NAME/config.pbtxt or config.toml
    ROOT/NAME/VERSION/model.onnx, manifest.json, …

Names starting with a dot are no models; publication stages its work under one.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from erg_server.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError
from erg_server.pb import model_config_pb2 as pb

CONFIG_PBTXT = "config.pbtxt"
CONFIG_TOML = "config.toml"
CONFIG_FILENAMES = (CONFIG_PBTXT, CONFIG_TOML)
MANIFEST_FILENAME = "manifest.json"
STAGING_PREFIX = ".erg-staging-"

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Configurations, manifests and label files are read whole; none that a person meant is larger."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_MAX_VERSION = 2**63 - 1


def is_name(name: str) -> bool:
    """Whether `name` may name a model."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return `name`, or raise InvalidArgumentError where it may not name a model."""
    if not is_name(name):
        raise InvalidArgumentError(
            f"{name[:140]!r} cannot name a model: a name starts with a letter or digit and has at most 128 letters, "
            "digits, dots, underscores and hyphens"
        )
    return name


def parse_version(name: str) -> int | None:
    """The version that a folder or a request calls so; None for anything but a positive integer in plain digits."""
    if _VERSION.fullmatch(name) is None:
        return None
    number = int(name)
    return number if number <= _MAX_VERSION else None


def contained_path(root: Path, relative: str) -> Path:
    """The existing file or folder at `relative` below `root`, reached through no symbolic link.

    Raises:
        InvalidArgumentError: the path is absolute, climbs, or meets a link.
        NotFoundError: nothing is there.
    """
    path = root
    for part in check_relative(relative).parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"'{relative}' is not in {root}") from None
        if stat.S_ISLNK(mode):
            raise InvalidArgumentError(f"'{relative}' in {root} leads through a symbolic link, which is not followed")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidArgumentError(f"'{relative}' in {root} is neither a file nor a folder")
    return path


def check_relative(relative: str) -> PurePosixPath:
    """The path `relative`, or InvalidArgumentError where it could lead out of the folder it is relative to."""
    path = PurePosixPath(relative)
    plain = "\0" not in relative and "\\" not in relative
    if not relative or not path.parts or path.is_absolute() or ".." in path.parts or not plain:
        raise InvalidArgumentError(f"{relative[:200]!r} is not a path inside a model's folder")
    return path


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file for reading; a link or a device in its place is refused.

    Raises:
        InvalidArgumentError: something else than a plain file is there, or it cannot be read.
        NotFoundError: nothing is there.
    """
    try:
        # Non-blocking, so that a pipe put in the file's place cannot hold the server.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidArgumentError(f"{path} is not a plain file")
    return os.fdopen(descriptor, "rb")


def read_text(path: Path) -> str:
    """Read a small text file, refusing a link in its place.

    Raises:
        InvalidArgumentError: not UTF-8, or not a plain file.
        NotFoundError: nothing is there.
        ResourceExhaustedError: larger than such a file can reasonably be.
    """
    with open_plain(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise ResourceExhaustedError(f"{path} has more than the {MAX_TEXT_BYTES} bytes that are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path} is not UTF-8 at byte {error.start}") from None


def versions_on_disk(model: Path) -> tuple[int, ...]:
    """The versions in a model's folder, ascending; what is no version, or a link, is passed over."""
    try:
        with os.scandir(model) as entries:
            numbers = [parse_version(each.name) for each in entries if each.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted(number for number in numbers if number is not None))


def choose_versions(policy: pb.ModelVersionPolicy, available: tuple[int, ...]) -> tuple[int, ...]:
    """Which of the `available` versions the policy serves, ascending.

    Raises:
        NotFoundError: the policy names a version that is not there.
    """
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return tuple(sorted(available))
    if choice == "specific":
        missing = sorted(set(policy.specific.versions) - set(available))
        if missing:
            raise NotFoundError(f"version_policy names versions {missing}; there are {sorted(available)}")
        return tuple(sorted(set(policy.specific.versions)))
    return tuple(sorted(available)[-max(1, policy.latest.num_versions) :])
