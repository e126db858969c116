"""A prefix of a bucket, through obstore: Rust's object_store, which signs, retries and renews credentials.

Credentials, region and endpoint come from the environment alone; the library reads it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from erg_server.errors import FailedPreconditionError, UnavailableError
from erg_server.storage.location import Location
from erg_server.storage.object_source import CHUNK_BYTES, StoredObject
from erg_server.storage.storage_errors import storage_error

EXTRA = "store"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# The library's own bound on a whole request, body included, would cut large objects; silence is bounded instead.
_LONGEST_REQUEST = timedelta(days=1)
_LONGEST_SILENCE = timedelta(seconds=20)
_RETRIES = 3
_LONGEST_RETRYING = timedelta(seconds=30)


def load_library(what: str) -> Any:
    """The module obstore; raises FailedPreconditionError that names the extra where it is missing."""
    try:
        import obstore  # noqa: PLC0415 (an extra)
        import obstore.store  # noqa: PLC0415
    except ImportError:
        raise FailedPreconditionError(f"{what} needs the package obstore: pip install 'erg[{EXTRA}]'") from None
    return obstore


def client_options(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """How long connections may take, and plain HTTP where the environment names such an endpoint."""
    endpoint = next((environment[name] for name in _ENDPOINTS if environment.get(name)), "")
    return {
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": _LONGEST_SILENCE,
        "timeout": _LONGEST_REQUEST,
        **({"allow_http": True} if endpoint.startswith("http://") else {}),
    }


def retry_config() -> dict[str, Any]:
    """Few tries: who polls looks again anyway, and an operator waits for a word."""
    return {"max_retries": _RETRIES, "retry_timeout": _LONGEST_RETRYING}


class BucketSource:
    """An `ObjectSource` over s3://, gs:// or az://."""

    def __init__(self, location: Location) -> None:
        """Open nothing yet; raises FailedPreconditionError where the library or a setting of it is missing."""
        self.location = location
        self._library = load_library(location.uri)
        scheme, _, address = location.uri.partition("://")
        bucket, _, prefix = address.partition("/")
        kinds = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
        try:
            self._store = getattr(self._library.store, kinds[scheme])(
                bucket, prefix=prefix or None, client_options=client_options(), retry_config=retry_config()
            )
        except (self._library.exceptions.BaseError, ValueError) as error:
            raise storage_error(error, location.uri) from None

    async def list_objects(self, prefix: str = "") -> Sequence[StoredObject]:
        """Every object below the location, or below a folder of it."""
        found: list[StoredObject] = []
        try:
            async for batch in self._library.list(self._store, prefix or None, chunk_size=1000):
                found += [
                    StoredObject(
                        key=each["path"],
                        bytes=each["size"],
                        etag=each["e_tag"] or each["last_modified"].isoformat(),
                    )
                    for each in batch
                ]
        except (self._library.exceptions.BaseError, OSError, ValueError) as error:
            raise storage_error(error, self.location.uri) from None
        return found

    async def read(self, stored: StoredObject, offset: int = 0) -> AsyncIterator[bytes]:
        """The object's bytes from `offset` on, as long as it is the one that was listed."""
        where = f"{self.location.uri}/{stored.key}"
        options: dict[str, Any] = {"range": {"offset": offset}} if offset else {}
        if stored.etag.startswith('"'):
            options["if_match"] = stored.etag
        try:
            result = await self._library.get_async(self._store, stored.key, options=options)
            if result.meta["size"] != stored.bytes:
                raise UnavailableError(f"{where}: changed while it was read; it is read again at the next look")
            async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except (self._library.exceptions.BaseError, OSError, ValueError) as error:
            raise storage_error(error, where) from None
