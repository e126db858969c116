"""What /readyz says: whether the server, and the models that a probe names, should get requests now, and if not why."""

from __future__ import annotations

from collections.abc import Sequence

from erg_server.dataplane.dataplane import DataPlane
from erg_server.errors import ErgError
from erg_server.models.registry import ModelRegistry


def readiness(plane: DataPlane, models: Sequence[str] = ()) -> tuple[bool, str]:
    """Whether the server and every one of `models` is ready, and a text that says it, a reason a line."""
    if plane.leaving():
        return False, "not ready: told to stop"
    if not plane.ready():
        return False, "\n".join(["not ready", *(_unready(plane.registry))])
    reasons = [reason for name in dict.fromkeys(models) if (reason := _missing(plane.registry, name))]
    return (False, "\n".join(["not ready", *reasons])) if reasons else (True, "ready")


def _unready(registry: ModelRegistry) -> list[str]:
    """Every version of the repositories that does not answer."""
    return [
        f"{entry.name} {entry.version}: {entry.state} {entry.reason}".strip()
        for entry in registry.index("", ready=False)
        if entry.state not in {"READY", ""}
    ]


def _missing(registry: ModelRegistry, name: str) -> str:
    """Why a model does not answer, "" where it does."""
    try:
        served = registry.resolve(name, "")
    except ErgError as error:
        return error.message
    return "" if served.available else f"model '{name}' is on no worker that runs"
