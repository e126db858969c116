"""The file that keeps what latency models learnt over restarts. Measures and predicts nothing."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from erg_server.files import replace_text
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.latency_model import Curves

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
MAX_ENTRIES = 1024
"""Versions come and go, so the file forgets those that were written longest ago."""
_MAX_FILE_BYTES = 64 << 20


class LatencyCache:
    """Latencies by model digest and device, in one JSON file. Another server may use the same file: the last one wins.

    A file that is not ours or was cut off is told in the log and treated as empty: all it costs is measuring again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = _read(path)
        # Threads write the file: the one that read the entries last must be the last to replace it.
        self._writing = threading.Lock()

    def get(self, digest: str, device: str) -> Curves:
        """What is known of a model on a kind of device; empty for nothing."""
        stored = self._entries.get(_name(digest, device))
        try:
            return {} if stored is None else {_key(each["key"]): _curve(each) for each in stored}
        except (KeyError, TypeError, ValueError, AttributeError):
            log.warning("%s: the entry of %s on %s is damaged and ignored", self._path, digest, device)
            return {}

    def put(self, digest: str, device: str, curves: Curves) -> None:
        """Remember a model's curves; `save` writes them."""
        stored = [
            {"key": key, "means_ns": {str(rows): mean for rows, mean in each.means_ns.items()}, "spread": each.spread}
            for key, each in curves.items()
            if _storable(key)
        ]
        name = _name(digest, device)
        self._entries.pop(name, None)
        self._entries[name] = stored
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]

    def save(self) -> None:
        """Write the file at once or not at all; what the disk refuses is told in the log."""
        with self._writing:
            # Copied at once: `put` may change the table meanwhile, and changes none of its values.
            text = json.dumps({"format_version": FORMAT_VERSION, "entries": dict(self._entries)})
            try:
                replace_text(self._path, text)
            except OSError as error:
                log.warning(
                    "%s cannot be written, so latencies are measured again after a restart: %s", self._path, error
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parse(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        log.warning("%s is no latency cache and is ignored: %s", path, error)
        return {}


def _parse(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"it has more than {_MAX_FILE_BYTES} bytes")
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["format_version"] != FORMAT_VERSION:
        raise ValueError(f"its format is {stored['format_version']}, not {FORMAT_VERSION}")
    entries = stored["entries"]
    if not isinstance(entries, dict):
        raise TypeError("its entries are no table")
    return entries


def _name(digest: str, device: str) -> str:
    return f"{digest} {device}"


def _storable(key: Hashable) -> bool:
    if isinstance(key, tuple):
        return all(map(_storable, key))
    return key is None or isinstance(key, str | int)


def _key(stored: Any) -> Hashable:
    """A shape's key again: JSON has lists where it had tuples."""
    return tuple(map(_key, stored)) if isinstance(stored, list) else stored


def _curve(stored: Any) -> CurveSnapshot:
    means_ns = {int(rows): float(mean) for rows, mean in stored["means_ns"].items()}
    spread = float(stored["spread"])
    if not all(rows > 0 and 0 < mean < math.inf for rows, mean in means_ns.items()) or not 1 <= spread < math.inf:
        raise ValueError("a duration is no duration")
    return CurveSnapshot(means_ns=means_ns, spread=spread)
