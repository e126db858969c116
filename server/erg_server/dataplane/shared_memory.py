"""The shared-memory extensions: regions that clients on this host own; the server copies out of them and into them.

They are never mapped: a client that shrinks its object would kill the server at the next access (SIGBUS), and one that
writes to it later would change a tensor after it was checked.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from erg_server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnimplementedError,
)
from erg_server.pb import inference_pb2 as pb
from erg_server.tensor import Buffer

FOLDER = "/dev/shm"  # noqa: S108 (where POSIX shared memory lives on Linux)
KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}")
MAX_REGIONS = 256
MAX_BYTES = 4 << 30
"""All regions together."""


@dataclass(frozen=True, slots=True)
class Region:
    """A registered region. `file` is the open object, closed when the region is unregistered."""

    name: str
    key: str
    offset: int
    byte_size: int
    file: int


class SharedMemory:
    """Owns the registered regions. Erg's own tensor memory has no name, so no client can register it."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open `byte_size` bytes of the POSIX shared memory object `key` from `offset` on.

        Raises:
            FailedPreconditionError: the server does not allow client shared memory.
            AlreadyExistsError: the name is taken.
            InvalidArgumentError: no name, or the object does not exist, is no plain object, or is too small.
            ResourceExhaustedError: too many regions, or too large.
        """
        self._require_allowed()
        if not name:
            raise InvalidArgumentError("a shared memory region needs a name")
        if name in self._regions:
            raise AlreadyExistsError(f"shared memory region '{name}' is registered already")
        if not KEY.fullmatch(key) or key.strip("/") in {"", ".", ".."}:
            raise InvalidArgumentError(f"shared memory key '{key}' is not the name of a POSIX shared memory object")
        total = sum(region.byte_size for region in self._regions.values())
        if len(self._regions) >= MAX_REGIONS or total + byte_size > MAX_BYTES:
            raise ResourceExhaustedError(f"clients may register {MAX_REGIONS} regions of {MAX_BYTES} bytes in all")
        self._regions[name] = Region(name, key, offset, byte_size, _open(key, offset, byte_size))

    def unregister(self, name: str) -> None:
        """Forget a region, or all of them for "".

        Requests that run have their inputs; an answer that was to go into the region fails.

        Raises:
            NotFoundError: no region has that name.
        """
        if name and name not in self._regions:
            raise NotFoundError(f"no shared memory region is called '{name}'")
        for each in [name] if name else list(self._regions):
            os.close(self._regions.pop(each).file)

    def status(self, name: str) -> pb.SystemSharedMemoryStatusResponse:
        """One region, or all of them for ""."""
        if name and name not in self._regions:
            raise NotFoundError(f"no shared memory region is called '{name}'")
        response = pb.SystemSharedMemoryStatusResponse()
        for region in self._regions.values():
            if name in {"", region.name}:
                entry = response.regions[region.name]
                entry.name, entry.key = region.name, region.key
                entry.offset, entry.byte_size = region.offset, region.byte_size
        return response

    def check(self, name: str, offset: int, byte_size: int) -> None:
        """Return if the part is within a registered region; raises InvalidArgumentError otherwise."""
        self._part(name, offset, byte_size)

    def read(self, name: str, offset: int, byte_size: int) -> bytearray:
        """A copy of a part of a region.

        Raises:
            InvalidArgumentError: no such region, the part is not within it, or its object has become shorter.
        """
        region = self._part(name, offset, byte_size)
        data = bytearray(byte_size)
        left, at = memoryview(data), region.offset + offset
        while left:
            count = os.preadv(region.file, [left], at)
            if not count:
                raise _shrunk(region)
            left, at = left[count:], at + count
        return data

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Put `data` into a region; raises InvalidArgumentError as `read` does."""
        region = self._part(name, offset, len(data))
        left, at = memoryview(data), region.offset + offset
        # A write past its end would make the object grow again, at the server's expense.
        if at + len(left) > os.fstat(region.file).st_size:
            raise _shrunk(region)
        while left:
            count = os.pwrite(region.file, left, at)
            left, at = left[count:], at + count

    def _part(self, name: str, offset: int, byte_size: int) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise InvalidArgumentError(f"no shared memory region is called '{name}'")
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise InvalidArgumentError(
                f"bytes {offset} to {offset + byte_size} are not within shared memory region '{name}' of "
                f"{region.byte_size} bytes"
            )
        return region

    def _require_allowed(self) -> None:
        if not self._allowed:
            raise FailedPreconditionError(
                "this server takes no client shared memory; start it with --allow-client-shm to allow it"
            )


def cuda_unimplemented() -> UnimplementedError:
    """What every CUDA shared-memory call answers: no worker shares device memory with clients yet."""
    return UnimplementedError("CUDA shared memory is not available: this server has no GPU that clients can share")


def _shrunk(region: Region) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"shared memory object '{region.key}' has become shorter than region '{region.name}'; register it again"
    )


def _open(key: str, offset: int, byte_size: int) -> int:
    """The open object, at least `offset` + `byte_size` bytes long."""
    if byte_size <= 0 or offset < 0:
        raise InvalidArgumentError(f"a shared memory region has at least one byte; {byte_size} at {offset} was stated")
    try:
        # Non-blocking, so that a pipe put in the object's place cannot hold the server.
        file = os.open(f"{FOLDER}/{key.lstrip('/')}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidArgumentError(f"shared memory object '{key}' cannot be opened: {error.strerror}") from error
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and offset + byte_size <= status.st_size:
        return file
    os.close(file)
    if not stat.S_ISREG(status.st_mode):
        raise InvalidArgumentError(f"'{key}' is not a shared memory object")
    raise InvalidArgumentError(
        f"shared memory object '{key}' has {status.st_size} bytes; {byte_size} at {offset} were stated"
    )
