"""Archives are unpacked with suspicion: nothing outside, nothing but files, nothing without bound."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest
from erg_server.errors import ErgError, InvalidArgumentError, ResourceExhaustedError
from erg_server.storage import archive
from erg_server.storage.archive import unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

URI = "https://host/models.tar"


def member(
    name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_plain_files_are_unpacked_with_their_digests(tmp_path: Path, mode: str) -> None:
    members = (
        member("./", kind=tarfile.DIRTYPE),
        member("./m/1/model.onnx", b"weights"),
        member("m/config.pbtxt", b""),
    )
    found = unpack(tar(tmp_path / "a.tar", *members, mode=mode), tmp_path / "out", 100, URI)
    assert [(each.key, each.bytes) for each in found] == [("m/1/model.onnx", 7), ("m/config.pbtxt", 0)]
    assert found[0].etag.startswith("9a129038")
    assert (tmp_path / "out" / "m" / "1" / "model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (member("../evil"), "'..'"),
        (member("m/../../evil"), "'..'"),
        (member("/evil"), "absolute"),
        (member("m/1/evil", kind=tarfile.SYMTYPE, link="/etc/passwd"), "a link or a device"),
        (member("m/1/evil", kind=tarfile.LNKTYPE, link="m/1/a"), "a link or a device"),
        (member("m/1/evil", kind=tarfile.FIFOTYPE), "a link or a device"),
        (member("m/1/evil", kind=tarfile.CHRTYPE), "a link or a device"),
        (member("m/1/a", b"again"), "twice"),
    ],
)
def test_an_archive_with_an_odd_member_is_refused(tmp_path: Path, odd: tuple[tarfile.TarInfo, bytes], why: str) -> None:
    path = tar(tmp_path / "a.tar", member("m/1/a"), odd)
    with pytest.raises(InvalidArgumentError, match=why):
        unpack(path, tmp_path / "in" / "out", 100, URI)
    assert not list(tmp_path.rglob("evil"))


def test_what_an_archive_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tar(tmp_path / "a.tar.gz", member("m/1/a", b"\0" * 100_000), mode="w:gz")
    assert bomb.stat().st_size < 1000
    with pytest.raises(ResourceExhaustedError, match="unpacks to more than 99999 bytes"):
        unpack(bomb, tmp_path / "out", 99_999, URI)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    with pytest.raises(ResourceExhaustedError, match="more than 1 members"):
        unpack(tar(tmp_path / "b.tar", member("a"), member("b")), tmp_path / "out2", 100, URI)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_that_was_cut_short_is_told(tmp_path: Path, mode: str) -> None:
    path = tar(tmp_path / "a.tar", member("m/1/a", bytes(range(256)) * 200), mode=mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(InvalidArgumentError, match="cut short"):
        unpack(path, tmp_path / "out", 1 << 20, URI)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600))
def test_any_bytes_are_an_archive_or_a_typed_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    with contextlib.suppress(ErgError):
        assert unpack(path, tmp_path / "out", 100, URI) == []
