"""Where a repository lies, as a setting or an argument names it. Locations never hold credentials."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from erg_server.errors import InvalidArgumentError

BUCKET_SCHEMES = ("s3", "gs", "az")
ARCHIVE_SCHEMES = ("http", "https")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")

Kind = Literal["folder", "bucket", "archive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """`uri` is what messages may show; of a folder it is its path as given."""

    kind: Kind
    uri: str

    @property
    def id(self) -> str:
        """A name for a folder that is this location's own, readable and distinct."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self.uri).strip("-.")[:60]
        return f"{words}-{hashlib.sha256(self.uri.encode()).hexdigest()[:12]}"


def parse_location(text: str) -> Location:
    """Read a location: a path, `s3://bucket/prefix` (or gs, az), or the `https://` address of an archive.

    Raises:
        InvalidArgumentError: another scheme, no bucket, or credentials in it; these are not repeated in the message.
    """
    match = _SCHEME.match(text)
    if match is None:
        if not text:
            raise InvalidArgumentError("a model repository is a folder or s3://bucket/prefix, not an empty text")
        return Location(kind="folder", uri=text)
    scheme = match.group(1).lower()
    if scheme == "file":
        raise InvalidArgumentError(f"{scheme}:// names a file of this machine; give its path alone")
    if scheme not in (*BUCKET_SCHEMES, *ARCHIVE_SCHEMES):
        known = ", ".join(f"{each}://" for each in (*BUCKET_SCHEMES, *ARCHIVE_SCHEMES))
        raise InvalidArgumentError(f"a model repository is a folder or one of {known}; {scheme}:// is none of them")
    return _parse_address(text, scheme)


def _parse_address(text: str, scheme: str) -> Location:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidArgumentError(f"a {scheme}:// address could not be read; write {scheme}://NAME/PATH") from None
    # What is refused may be a secret, so that no message repeats it.
    if "@" in parts.netloc:
        raise InvalidArgumentError(
            f"the {scheme}:// address of '{host}' has a user or password in it; give credentials in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …)"
        )
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise InvalidArgumentError(
            f"the {scheme}:// address of '{host}' has a query or fragment, where credentials are often put; leave it "
            "out and give credentials in the environment"
        )
    path = unquote(parts.path)
    segments = [segment for segment in path.split("/") if segment]
    if ".." in segments or "." in segments or "\\" in path or not path.isprintable():
        raise InvalidArgumentError(f"the path of the {scheme}:// address of '{host}' has '..' or an odd character")
    if scheme in ARCHIVE_SCHEMES:
        if not host or not segments:
            raise InvalidArgumentError(f"an archive's address is {scheme}://host/models.tar, not '{text}'")
        return Location(kind="archive", uri=text)
    if port is not None or _BUCKET.fullmatch(parts.netloc) is None:
        raise InvalidArgumentError(
            f"{scheme}://{parts.netloc} names no bucket; write {scheme}://BUCKET/PREFIX, and the server's address in "
            "AWS_ENDPOINT_URL"
        )
    return Location(kind="bucket", uri="/".join((f"{scheme}://{parts.netloc}", *segments)))
