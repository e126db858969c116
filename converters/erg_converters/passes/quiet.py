"""Keeps the quantization tools quiet while they work: their bars, logs and warnings, and what they send home."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from importlib import metadata

_ORT_WARNING, _ORT_ERROR = 2, 3


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nothing below an error through: the pass reports its progress and figures itself."""
    # NNCF sends usage events to its maker unless it is said to run in CI; it looks once, when it is imported.
    os.environ.setdefault("NNCF_CI", "1")
    import onnxruntime  # noqa: PLC0415

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ORT_ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_ORT_WARNING)
        logging.disable(disabled)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by name, 'none' for what is not installed."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found
