"""Client regions: refused unless allowed, bounded, and harmless whatever their owner does to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from erg_server.dataplane import shared_memory
from erg_server.dataplane.shared_memory import SharedMemory, cuda_unimplemented
from erg_server.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnimplementedError,
)
from erg_server.workers.slab import Slab


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(shared_memory, "FOLDER", str(folder))
    (folder / "obj").write_bytes(bytes(range(100)))
    return folder


@pytest.fixture
def memory(shm: Path) -> Iterator[SharedMemory]:
    subject = SharedMemory(allowed=True)
    yield subject
    subject.unregister("")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_registered_unless_the_server_allows_it(shm: Path) -> None:
    memory = SharedMemory(allowed=False)
    with pytest.raises(FailedPreconditionError, match="--allow-client-shm"):
        memory.register("r", "/obj", 0, 10)
    # perf_analyzer asks for both before it starts, whatever the server allows.
    memory.unregister("")
    assert not memory.status("").regions


def test_a_part_is_read_from_and_written_to_the_object(memory: SharedMemory, shm: Path) -> None:
    memory.register("r", "/obj", 10, 20)
    memory.check("r", 5, 15)
    assert bytes(memory.read("r", 5, 3)) == bytes([15, 16, 17])
    memory.write("r", 18, b"ab")
    assert (shm / "obj").read_bytes()[26:32] == bytes([26, 27]) + b"ab" + bytes([30, 31])
    assert bytes(memory.read("r", 20, 0)) == b""


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 21), (20, 1), (-1, 2), (0, -1), (1 << 64, 1), (1, (1 << 64) - 1), (21, 0)]
)
def test_a_part_outside_of_the_region_is_refused(memory: SharedMemory, offset: int, size: int) -> None:
    memory.register("r", "obj", 10, 20)
    with pytest.raises(InvalidArgumentError, match="not within shared memory region 'r' of 20 bytes"):
        memory.read("r", offset, size)
    with pytest.raises(InvalidArgumentError, match="not within"):
        memory.check("r", offset, size)


def test_a_write_past_the_region_is_refused_and_writes_nothing(memory: SharedMemory, shm: Path) -> None:
    memory.register("r", "obj", 0, 20)
    with pytest.raises(InvalidArgumentError, match="not within"):
        memory.write("r", 15, b"x" * 6)
    assert (shm / "obj").read_bytes() == bytes(range(100))


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "/..", "../secret", "/../secret", "a/b", "/a/../b", "//obj", "a\0b", "x" * 201, "a\nb"]
)
def test_a_key_that_could_lead_elsewhere_is_refused(memory: SharedMemory, shm: Path, key: str) -> None:
    (shm.parent / "secret").write_bytes(bytes(100))
    with pytest.raises(InvalidArgumentError, match="is not the name"):
        memory.register("r", key, 0, 10)


def test_links_folders_pipes_and_missing_objects_are_refused(memory: SharedMemory, shm: Path) -> None:
    (shm.parent / "secret").write_bytes(bytes(100))
    (shm / "link").symlink_to(shm.parent / "secret")
    (shm / "folder").mkdir()
    os.mkfifo(shm / "pipe")
    for key in ("link", "folder", "pipe", "missing"):
        with pytest.raises(InvalidArgumentError, match=key):
            memory.register("r", key, 0, 10)


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        (0, 101, "has 100 bytes; 101 at 0"),
        (100, 1, "has 100 bytes"),
        (1 << 63, 1, "has 100 bytes"),
        ((1 << 64) - 1, 1, "has 100 bytes"),
        (0, 0, "at least one byte"),
        (-1, 2, "at least one byte"),
    ],
)
def test_a_region_must_lie_within_its_object(memory: SharedMemory, offset: int, size: int, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        memory.register("r", "obj", offset, size)


def test_regions_are_bounded_in_number_and_size(memory: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "MAX_REGIONS", 2)
    monkeypatch.setattr(shared_memory, "MAX_BYTES", 50)
    memory.register("a", "obj", 0, 30)
    with pytest.raises(ResourceExhaustedError, match="2 regions of 50 bytes"):
        memory.register("b", "obj", 0, 21)
    memory.register("b", "obj", 0, 20)
    memory.unregister("a")
    memory.register("c", "obj", 0, 1)
    with pytest.raises(ResourceExhaustedError):
        memory.register("d", "obj", 0, 1)
    with pytest.raises(ResourceExhaustedError):
        memory.register("d", "obj", 0, (1 << 64) - 1)


def test_a_name_is_taken_once_and_cannot_be_empty(memory: SharedMemory) -> None:
    memory.register("r", "obj", 0, 10)
    with pytest.raises(AlreadyExistsError, match="'r'"):
        memory.register("r", "obj", 0, 10)
    with pytest.raises(InvalidArgumentError, match="needs a name"):
        memory.register("", "obj", 0, 10)


def test_status_tells_one_or_all(memory: SharedMemory) -> None:
    memory.register("a", "/obj", 1, 2)
    memory.register("b", "obj", 3, 4)
    assert set(memory.status("").regions) == {"a", "b"}
    (entry,) = memory.status("a").regions.values()
    assert (entry.name, entry.key, entry.offset, entry.byte_size) == ("a", "/obj", 1, 2)
    with pytest.raises(NotFoundError, match="'c'"):
        memory.status("c")


def test_unregistered_regions_are_gone_and_their_files_closed(memory: SharedMemory) -> None:
    before = open_files()
    for name in ("a", "b", "c"):
        memory.register(name, "obj", 0, 10)
    memory.unregister("a")
    with pytest.raises(NotFoundError, match="'a'"):
        memory.unregister("a")
    with pytest.raises(InvalidArgumentError, match="no shared memory region is called 'a'"):
        memory.read("a", 0, 1)
    with pytest.raises(InvalidArgumentError):
        memory.write("a", 0, b"x")
    memory.unregister("")
    assert open_files() == before


def test_what_was_read_is_the_servers_own(memory: SharedMemory, shm: Path) -> None:
    memory.register("r", "obj", 0, 3)
    data = memory.read("r", 0, 3)
    (shm / "obj").write_bytes(b"changed!")
    memory.unregister("r")
    assert bytes(data) == bytes([0, 1, 2])


def test_an_owner_that_shrinks_its_object_gets_an_error_and_the_server_lives(memory: SharedMemory, shm: Path) -> None:
    memory.register("r", "obj", 0, 100)
    os.truncate(shm / "obj", 10)
    with pytest.raises(InvalidArgumentError, match="has become shorter than region 'r'"):
        memory.read("r", 0, 100)
    with pytest.raises(InvalidArgumentError, match="shorter"):
        memory.write("r", 50, b"x")
    assert (shm / "obj").stat().st_size == 10, "the server must not pay for what the owner gave back"
    assert bytes(memory.read("r", 0, 10)) == bytes(range(10))


def test_the_servers_own_tensor_memory_has_no_name_to_register() -> None:
    slab = Slab.create(slots=1, slot_bytes=4096)
    try:
        target = Path(f"/proc/self/fd/{slab.fd}").readlink()
        assert str(target) == "/memfd:erg-slab (deleted)"
        assert not Path(shared_memory.FOLDER, "erg-slab").exists()
    finally:
        slab.close()


def test_cuda_regions_are_told_to_need_a_gpu() -> None:
    error = cuda_unimplemented()
    assert isinstance(error, UnimplementedError)
    assert "no GPU" in error.message
