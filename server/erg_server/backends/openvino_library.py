"""The `openvino` package, imported so that it reports to nobody.

Its tools send figures of their use unless the user objected somewhere; without the package that sends them they fall
back to a stub of their own.
"""

from __future__ import annotations

import sys

from erg_server.backends.signal_stack import kept_signal_stack

_TELEMETRY = "openvino_telemetry"

if _TELEMETRY in sys.modules:
    import openvino as ov
else:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino as ov
    finally:
        del sys.modules[_TELEMETRY]

__all__ = ["cause", "new_core", "ov"]

_NOISE = (
    "Exception from ", "Caught exception:", "Check '", "FrontEnd API failed", "Model wasn't fully", "Summary:",
    "To facilitate", "While validating node",
)  # fmt: skip


def new_core() -> ov.Core:
    """OpenVINO's entry, its CPU plugin loaded.

    The plugin sets a signal stack for the thread that loads it, to ask whether the CPU has AMX, and frees it with
    itself (2026.4): the next SIGTERM that Python handles would then end in SIGSEGV.
    """
    core = ov.Core()
    with kept_signal_stack():
        core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


def cause(error: BaseException) -> str:
    """What an exception of OpenVINO says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    return " ".join(telling[:2]) or next(filter(None, lines), type(error).__name__)
