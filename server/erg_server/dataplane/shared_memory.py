"""The shared-memory extensions: regions that clients on this host own and the server maps."""

from __future__ import annotations

import mmap
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

FOLDER = "/dev/shm"  # noqa: S108 (where POSIX shared memory lives on Linux)
KEY = re.compile(r"/?[A-Za-z0-9_.-]{1,200}")
MAX_REGIONS = 256
MAX_BYTES = 4 << 30
"""All regions together: address space, not memory, but a client must not exhaust it."""


@dataclass(frozen=True, slots=True)
class Region:
    """A registered region. `view` keeps the mapping alive for every request that reads it, whoever unregisters it."""

    name: str
    key: str
    offset: int
    byte_size: int
    view: memoryview


class SharedMemory:
    """Owns the registered regions. Erg's own tensor memory has no name, so no client can register it."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map `byte_size` bytes of the POSIX shared memory object `key` from `offset` on.

        Raises:
            FailedPreconditionError: the server does not allow client shared memory.
            AlreadyExistsError: the name is taken.
            InvalidArgumentError: the object does not exist, is no plain object, or is smaller than stated.
            ResourceExhaustedError: too many regions, or too large.
        """
        self._require_allowed()
        if not name or name in self._regions:
            raise AlreadyExistsError(f"shared memory region '{name}' is registered already")
        if not KEY.fullmatch(key) or key.strip("/") in {"", ".", ".."}:
            raise InvalidArgumentError(f"shared memory key '{key}' is not the name of a POSIX shared memory object")
        total = sum(region.byte_size for region in self._regions.values())
        if len(self._regions) >= MAX_REGIONS or total + byte_size > MAX_BYTES:
            raise ResourceExhaustedError(f"clients may register {MAX_REGIONS} regions of {MAX_BYTES} bytes in all")
        view = _map(key, offset, byte_size)
        self._regions[name] = Region(name, key, offset, byte_size, view)

    def unregister(self, name: str) -> None:
        """Forget a region, or all of them for ""; requests that use one keep it until they end."""
        if not name:
            self._regions.clear()
        elif self._regions.pop(name, None) is None:
            raise NotFoundError(f"no shared memory region is called '{name}'")

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

    def view(self, name: str, offset: int, byte_size: int) -> memoryview:
        """A part of a region, writable.

        Raises:
            InvalidArgumentError: no such region, or the part is not within it.
        """
        region = self._regions.get(name)
        if region is None:
            raise InvalidArgumentError(f"no shared memory region is called '{name}'")
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise InvalidArgumentError(
                f"bytes {offset} to {offset + byte_size} are not within shared memory region '{name}' of "
                f"{region.byte_size} bytes"
            )
        return region.view[offset : offset + byte_size]

    def _require_allowed(self) -> None:
        if not self._allowed:
            raise FailedPreconditionError(
                "this server takes no client shared memory; start it with --allow-client-shm to allow it"
            )


def cuda_unimplemented() -> UnimplementedError:
    """What every CUDA shared-memory call answers: no worker shares device memory with clients yet."""
    return UnimplementedError("CUDA shared memory is not available: this server has no GPU that clients can share")


def _map(key: str, offset: int, byte_size: int) -> memoryview:
    if byte_size <= 0 or offset < 0:
        raise InvalidArgumentError(f"a shared memory region has at least one byte; {byte_size} at {offset} was stated")
    try:
        fd = os.open(f"{FOLDER}/{key.lstrip('/')}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgumentError(f"shared memory object '{key}' cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgumentError(f"'{key}' is not a shared memory object")
        if offset + byte_size > status.st_size:
            raise InvalidArgumentError(
                f"shared memory object '{key}' has {status.st_size} bytes; {byte_size} at {offset} were stated"
            )
        skipped = offset % mmap.ALLOCATIONGRANULARITY
        mapping = mmap.mmap(fd, byte_size + skipped, offset=offset - skipped)
        return memoryview(mapping)[skipped:]
    except (OSError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"shared memory object '{key}' cannot be mapped: {error}") from error
    finally:
        os.close(fd)
