"""What of a bucket's library reaches people: settings from the environment, errors without secrets."""

from __future__ import annotations

import builtins
import sys

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
