"""What an answer cost as gRPC trailers: the parameters of the same names, for callers that read metadata alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from erg_server.request import Parameter

_PREFIX: Final = "erg_"
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")


def cost_trailers(parameters: Mapping[str, Parameter]) -> tuple[tuple[str, str], ...]:
    """`erg_queue_us` as `erg-queue-us` and so on; what ASCII has no place for is percent-encoded."""
    return tuple(
        (name.replace("_", "-"), quote(str(value), safe=_PRINTABLE))
        for name, value in parameters.items()
        if name.startswith(_PREFIX)
    )
