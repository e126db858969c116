"""What names a repository, and what is refused without being repeated."""

from __future__ import annotations

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.storage.location import parse_location
from hypothesis import given
from hypothesis import strategies as st

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("text", "kind", "uri"),
    [
        ("model_repo", "folder", "model_repo"),
        ("/models", "folder", "/models"),
        ("s3://bucket", "bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "bucket", "s3://bucket/a/b"),
        ("S3://bucket//a", "bucket", "s3://bucket/a"),
        ("gs://bucket/a", "bucket", "gs://bucket/a"),
        ("az://container/a", "bucket", "az://container/a"),
        ("https://host/models.tar", "archive", "https://host/models.tar"),
        ("http://127.0.0.1:8000/a/models.tar.gz", "archive", "http://127.0.0.1:8000/a/models.tar.gz"),
    ],
)
def test_a_location_is_a_folder_a_bucket_or_an_archive(text: str, kind: str, uri: str) -> None:
    location = parse_location(text)
    assert (location.kind, location.uri) == (kind, uri)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an empty text"),
        ("ftp://host/a", "ftp:// is none of them"),
        ("file:///models", "give its path alone"),
        (f"s3://key:{SECRET}@bucket/a", "user or password"),
        (f"https://{SECRET}@host/a.tar", "user or password"),
        (f"https://host/a.tar?X-Amz-Signature={SECRET}", "query or fragment"),
        (f"s3://bucket/a?{SECRET}", "query or fragment"),
        (f"https://host/a.tar#{SECRET}", "query or fragment"),
        ("s3://", "names no bucket"),
        ("s3://host:9000/bucket", "AWS_ENDPOINT_URL"),
        ("s3://bucket/../other", "'..'"),
        ("s3://bucket/%2e%2e/other", "'..'"),
        ("https://host", "archive's address"),
        ("https://[::1/a.tar", "could not be read"),
    ],
)
def test_what_is_no_location_is_refused_without_repeating_a_secret(text: str, why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why.replace(".", r"\.")) as caught:
        parse_location(text)
    assert SECRET not in caught.value.message


@given(st.text(max_size=60).map(lambda text: f"s3://{text}"))
def test_any_text_is_a_location_or_a_typed_error(text: str) -> None:
    try:
        location = parse_location(text)
    except InvalidArgumentError:
        return
    assert location.uri.startswith("s3://")
    assert ".." not in location.uri.split("/")
    assert "/" not in location.id


def test_locations_have_folders_of_their_own() -> None:
    ids = {parse_location(text).id for text in ("s3://ab/c", "s3://ab-c", "gs://ab/c", "s3://ab/c/d")}
    assert len(ids) == 4
