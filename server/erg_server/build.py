"""Which build of Erg runs: its own modules compiled (wheels), or the plain source."""

from __future__ import annotations

import importlib.util


def build_kind() -> str:
    """`compiled` or `plain Python`; the first takes about half of the CPU a request."""
    spec = importlib.util.find_spec("erg_server.scheduling.scheduler")
    return "plain Python" if spec is None or str(spec.origin).endswith(".py") else "compiled"
