"""What of a bucket's library reaches people: settings from the environment, errors without secrets."""

from __future__ import annotations

import builtins
import contextlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from erg_server.errors import (
    ErgError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from erg_server.storage.bucket import BucketSource, client_options
from erg_server.storage.location import parse_location
from erg_server.storage.storage_errors import disk_error, redact, storage_error

SECRET = "wJalrXUtnFEMI/K7MDENG"
ENVIRONMENT = {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "token-of-a-session", "PATH": "/usr/bin"}


class PreconditionError(Exception):
    pass


class GenericError(Exception):
    pass


def s3(status: int, code: str, message: str) -> GenericError:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    text = f"Generic S3 error: Error performing GET http://h/b?list-type=2 - status code: {status} X: {body}"
    return GenericError(f"{text}\n\nDebug source:\nGeneric {{ secret: {SECRET} }}")


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (s3(403, "SignatureDoesNotMatch", "check it"), FailedPreconditionError, "SignatureDoesNotMatch: check it"),
        (s3(404, "NoSuchBucket", "no such bucket"), NotFoundError, "NoSuchBucket: no such bucket"),
        (s3(503, "SlowDown", "reduce your rate"), UnavailableError, "SlowDown"),
        (s3(412, "PreconditionFailed", "x"), UnavailableError, "changed while it was read"),
        (PreconditionError("x"), UnavailableError, "changed while it was read"),
        (GenericError("cannot send\n\nDebug source:\nHttp { … }"), UnavailableError, "cannot send"),
        (FileNotFoundError("x"), NotFoundError, "is not there"),
        (ValueError('Error parsing Path "a/../b"'), InvalidArgumentError, "parsing Path"),
        (
            GenericError("Error performing PUT http://169.254.169.254/latest/api/token"),
            FailedPreconditionError,
            "AWS_ACCESS_KEY_ID",
        ),
        (GenericError(f"HTTP error: cannot send to http://user:{SECRET}@host/"), UnavailableError, "cannot send"),
    ],
)
def test_a_librarys_error_says_what_to_do_and_no_secret(error: Exception, kind: type[ErgError], told: str) -> None:
    result = storage_error(error, "s3://bucket/models", ENVIRONMENT)
    assert type(result) is kind
    assert result.message.startswith("s3://bucket/models: ")
    assert told in result.message
    assert SECRET not in result.message
    assert "Debug source" not in result.message


def test_an_error_of_our_own_passes() -> None:
    error = NotFoundError("x")
    assert storage_error(error, "s3://b") is error


def test_secrets_users_and_queries_are_taken_out_of_texts() -> None:
    text = f"GET https://u:p@host/a?sig=abc with {SECRET} and token-of-a-session by /usr/bin"
    assert redact(text, ENVIRONMENT) == "GET https://host/a with *** and *** by /usr/bin"
    assert len(redact("x" * 5000, ENVIRONMENT)) < 500


@pytest.mark.parametrize(
    ("number", "kind"), [(28, ResourceExhaustedError), (122, ResourceExhaustedError), (13, FailedPreconditionError)]
)
def test_a_full_disk_is_told_from_one_that_refuses(number: int, kind: type[ErgError]) -> None:
    assert type(disk_error(OSError(number, "why", "/cache"), "fetching")) is kind


def test_plain_http_is_spoken_only_where_the_environment_names_it() -> None:
    assert client_options({"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})["allow_http"] is True
    both = {"AWS_ENDPOINT_URL_S3": "http://s3:9000", "AWS_ENDPOINT_URL": "https://x"}
    assert client_options(both)["allow_http"] is True
    assert "allow_http" not in client_options({"AWS_ENDPOINT_URL": "https://127.0.0.1:9000"})
    assert "allow_http" not in client_options({})


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    for name in [name for name in sys.modules if name.startswith("obstore")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(FailedPreconditionError, match=r"pip install 'erg\[store\]'"):
        BucketSource(parse_location("s3://bucket/models"))


def test_gs_and_az_are_opened_by_the_same_library(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for uri in ("s3://bucket/a", "gs://bucket/a", "az://container/a"):
        assert BucketSource(parse_location(uri)).location.uri == uri
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(ErgError, match="Account must be specified"):
        BucketSource(parse_location("az://container/a"))


class _Bucket(BaseHTTPRequestHandler):
    """A bucket on the wire with one object, whose listing and body a test chooses."""

    key = "models/m/1/a"
    declared = 10
    sent = 10

    def do_GET(self) -> None:
        if "list-type" in self.path:
            body = (
                "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated><Contents>"
                f"<Key>{self.key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
                "<Size>10</Size></Contents></ListBucketResult>"
            ).encode()
            self._answer(len(body), body)
        else:
            self._answer(self.declared, b"x" * self.sent)

    def _answer(self, length: int, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def wire(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> Iterator[BucketSource]:
    pytest.importorskip("obstore")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bucket", (_Bucket,), attributes))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ):
        monkeypatch.setenv(name, value)
    try:
        yield BucketSource(parse_location("s3://bucket/models"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_listing_with_a_key_that_climbs_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(monkeypatch) as source:
        assert [each.key for each in await source.list_objects()] == ["m/1/a"]
    climbing = pytest.raises(ErgError, match=r'Error parsing Path "models/m/\.\./\.\./evil"')
    with wire(monkeypatch, key="models/m/../../evil") as source, climbing:
        await source.list_objects()


@pytest.mark.parametrize(
    ("attributes", "told"),
    [({"sent": 5}, "models/m/1/a: "), ({"declared": 9, "sent": 9}, "changed while it was read")],
)
async def test_a_body_that_is_not_the_listed_one_is_a_typed_error(
    monkeypatch: pytest.MonkeyPatch, attributes: dict[str, object], told: str
) -> None:
    with wire(monkeypatch, **attributes) as source:
        (stored,) = await source.list_objects()
        with pytest.raises(UnavailableError, match=told):
            async for _ in source.read(stored):
                pass
