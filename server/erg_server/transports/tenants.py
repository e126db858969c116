"""Who pays for a call, as its metadata says."""

from __future__ import annotations

from typing import Final

from erg_server.errors import InvalidArgumentError

MAX_TENANTS: Final = 1000
MAX_NAME: Final = 64
OTHER: Final = "other"


class Tenants:
    """Reads the tenant of a call. Owns the names that are told apart: the first `MAX_TENANTS`, the rest are `OTHER`.

    Each becomes accounts and metrics that are never forgotten, and callers may invent names.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._known = {OTHER}

    def of(self, metadata: tuple[tuple[str, str | bytes], ...]) -> str:
        """The tenant that pays for a call, "" where it names none.

        Raises:
            InvalidArgumentError: it names several, or none that could be shown.
        """
        found = ""
        for key, value in metadata:
            if key == self._key:
                if found:
                    raise InvalidArgumentError(f"metadata '{key}' is there more than once; a call has one tenant")
                found = self._checked(value)
        if found in self._known or not found:
            return found
        if len(self._known) > MAX_TENANTS:
            return OTHER
        self._known.add(found)
        return found

    def _checked(self, value: str | bytes) -> str:
        if not isinstance(value, str) or len(value) > MAX_NAME or not (value.isascii() and value.isprintable()):
            raise InvalidArgumentError(
                f"metadata '{self._key}' takes a tenant's name: at most {MAX_NAME} printable ASCII characters"
            )
        return value
