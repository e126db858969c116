"""`erg fetch` against folders and a real HTTP server; against a real bucket: tests/e2e/test_buckets.py."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from erg_server.repository.check import check_paths
from erg_server.repository.manifest import Manifest
from erg_server.repository.publication import publish
from erg_server.storage.cli import fetch

from tests.server.repository.builders import IDENTITY_CONFIG

pytest.importorskip("obstore", reason="the extra 'store' is not installed")


def add_version(root: Path, name: str, data: bytes) -> int:
    build = root.parent / f"build-{name}-{len(data)}"
    build.mkdir()
    (build / "weights.bin").write_bytes(data)
    return publish(root, name, build, Manifest(model=name), IDENTITY_CONFIG)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    add_version(root, "m", b"one")
    return root


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "models"


def run(to: Path, *arguments: object, env: dict[str, str] | None = None) -> Result:
    flags = [str(each) for each in arguments]
    return CliRunner().invoke(fetch, [*flags, "--to", str(to)], env={"ERG_MODEL_REPOSITORY": None, **(env or {})})


def models(*locations: object) -> list[object]:
    return [each for location in locations for each in ("--model-repository", location)]


class ArchiveServer(ThreadingHTTPServer):
    """Serves one archive with an etag, and counts what it sent."""

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path = path
        self.etag = '"1"'
        self.sent: list[int] = []
        self.uri = f"http://127.0.0.1:{self.server_port}/models.tar"
        self.cut = 0


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        if self.path != "/models.tar":
            self.send_error(404)
            return
        if self.server.etag and self.headers["If-None-Match"] == self.server.etag:
            self.send_response(304)
            self.end_headers()
            self.server.sent.append(304)
            return
        data = self.server.path.read_bytes()
        self.server.sent.append(200)
        self.send_response(200)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) - self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(repository: Path, tmp_path: Path) -> Iterator[ArchiveServer]:
    server = ArchiveServer(pack(repository, tmp_path / "models.tar"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def pack(repository: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(repository, arcname=".")
    return path


def test_a_folder_is_fetched_verified_and_not_fetched_again(repository: Path, to: Path) -> None:
    result = run(to, *models(repository))
    assert result.exit_code == 0, result.output
    assert "m: versions 1" in result.output
    assert (to / "m" / "1" / "weights.bin").read_bytes() == b"one"
    assert all(report.ok for report in check_paths([to]))
    assert [report.name for report in check_paths([to])] == ["m"]
    assert "nothing to fetch" in run(to, *models(repository)).output
    add_version(repository, "m", b"second")
    assert "m: versions 2" in run(to, *models(repository)).output
    assert sorted(path.name for path in (to / "m").iterdir()) == ["2", "config.pbtxt"]


def test_damage_is_told_with_status_1_and_all_else_is_there(repository: Path, to: Path) -> None:
    add_version(repository, "broken", b"good")
    (repository / "broken" / "1" / "weights.bin").write_bytes(b"evil")
    result = run(to, *models(repository))
    assert result.exit_code == 1
    assert "weights.bin has sha256" in result.output
    assert (to / "m").is_dir()
    assert not (to / "broken").exists()


def test_chosen_models_alone_are_fetched_and_a_missing_one_is_told(repository: Path, to: Path) -> None:
    add_version(repository, "n", b"other")
    result = run(to, *models(repository), "--model", "n", "--model", "absent")
    assert result.exit_code == 1
    assert "there is no model 'absent'" in result.output
    assert sorted(path.name for path in to.iterdir() if path.name[0] != ".") == ["n"]


def test_one_name_in_two_repositories_is_refused(repository: Path, to: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    add_version(other, "m", b"others")
    result = run(to, *models(repository, other))
    assert result.exit_code == 1
    assert "several repositories" in result.output
    assert (to / "m" / "1" / "weights.bin").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "Missing option '--model-repository'"),
        (models("s3://key:password@bucket/a"), 2, "user or password"),
        (models("ftp://host/a"), 2, "is none of them"),
        (models("/no/such/folder"), 1, "no such folder"),
    ],
)
def test_what_cannot_be_fetched_says_why(to: Path, arguments: list[object], status: int, told: str) -> None:
    result = run(to, *arguments)
    assert result.exit_code == status
    assert told in " ".join(result.output.split())
    assert "password@" not in result.output


def test_a_folder_is_not_fetched_onto_itself(repository: Path) -> None:
    result = run(repository, *models(repository))
    assert result.exit_code == 1
    assert "both fetched from and fetched to" in result.output
    assert (repository / "m" / "1" / "weights.bin").read_bytes() == b"one"


def test_an_empty_place_is_no_success(to: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(to, *models(tmp_path / "empty"))
    assert (result.exit_code, "holds no models" in result.output) == (1, True)


def test_help_teaches() -> None:
    text = " ".join(CliRunner().invoke(fetch, ["--help"]).output.split())
    for word in ("Examples:", "manifest.json", "AWS_SECRET_ACCESS_KEY", "Exit status:", "tar -C model_repo"):
        assert word in text


def test_an_archive_is_fetched_once_and_again_when_it_changed(
    archive: ArchiveServer, repository: Path, to: Path
) -> None:
    assert run(to, *models(archive.uri)).exit_code == 0
    assert (to / "m" / "1" / "weights.bin").read_bytes() == b"one"
    assert "nothing to fetch" in run(to, *models(archive.uri)).output
    assert archive.sent == [200, 304]
    add_version(repository, "m", b"second")
    pack(repository, archive.path)
    archive.etag = '"2"'
    assert run(to, *models(archive.uri)).exit_code == 0
    assert (to / "m" / "2" / "weights.bin").read_bytes() == b"second"
    assert not list((to / ".erg-store").rglob("unpacked")), "what was unpacked is not kept twice"


def test_an_archive_without_an_etag_is_fetched_each_time(archive: ArchiveServer, to: Path) -> None:
    archive.etag = ""
    for _ in range(2):
        assert run(to, *models(archive.uri)).exit_code == 0
    assert archive.sent == [200, 200]


def test_an_archive_that_comes_short_or_is_none_leaves_what_was_there(archive: ArchiveServer, to: Path) -> None:
    assert run(to, *models(archive.uri)).exit_code == 0
    archive.etag, archive.cut = '"2"', 10
    result = run(to, *models(archive.uri))
    assert result.exit_code == 1
    archive.etag, archive.cut = '"3"', 0
    archive.path.write_bytes(b"<html>not found</html>" * 100)
    result = run(to, *models(archive.uri))
    assert (result.exit_code, "no tar archive" in result.output) == (1, True)
    assert (to / "m" / "1" / "weights.bin").read_bytes() == b"one"
    result = run(to, *models(archive.uri.replace("models.tar", "other.tar")))
    assert (result.exit_code, "is not there" in result.output) == (1, True)


def test_an_archive_that_unpacks_to_too_much_is_refused(archive: ArchiveServer, to: Path) -> None:
    result = run(to, *models(archive.uri), "--max-archive-bytes", "10")
    assert (result.exit_code, "unpacks to more than 10 bytes" in result.output) == (1, True)


def test_a_fetch_that_is_told_to_end_ends_with_143_and_the_next_one_goes_on(
    repository: Path, to: Path, tmp_path: Path
) -> None:
    to.mkdir()
    (to / ".erg-store").mkdir()
    # Another one works on the folder, so that this one waits.
    with (to / ".erg-store" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", "from erg_server.storage.cli import fetch; fetch()",
             "--model-repository", str(repository), "--to", str(to)],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert "waiting for it to end" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=20)
        assert (process.returncode, "the next run goes on" in text) == (143, True)
    assert run(to, *models(repository)).exit_code == 0
