"""Logging as the log-settings RPC may change it while the server runs."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from erg_server.errors import InvalidArgumentError

FORMATS = ("default", "ISO8601", "json")
ROOT = "erg_server"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Triton's log settings. `file` is "" for standard error; `verbose_level` above 0 adds debug lines."""

    file: str = ""
    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0
    format: str = "default"


class LogControl:
    """Owns the handler of Erg's loggers and the settings it obeys."""

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self._handler: logging.Handler = logging.StreamHandler(sys.stderr)
        self._logger = logging.getLogger(ROOT)
        self._logger.propagate = False
        self._install(settings)

    def update(self, **changes: Any) -> LogSettings:
        """Change settings now; raises InvalidArgumentError for a value that means nothing, and changes nothing then."""
        changed = replace(self.settings, **changes)
        if changed.format not in FORMATS:
            raise InvalidArgumentError(f"log_format '{changed.format}' is not one of {', '.join(FORMATS)}")
        self._install(changed)
        self.settings = changed
        return changed

    def close(self) -> None:
        """Close the log file, if there is one."""
        self._logger.removeHandler(self._handler)
        self._handler.close()

    def _install(self, settings: LogSettings) -> None:
        handler: logging.Handler
        if settings.file:
            try:
                handler = logging.FileHandler(settings.file, encoding="utf-8")
            except OSError as error:
                raise InvalidArgumentError(f"log_file '{settings.file}': {error.strerror}") from error
        else:
            handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter() if settings.format == "json" else _LineFormatter(settings.format))
        handler.addFilter(_LevelFilter(settings))
        self._logger.addHandler(handler)
        self._logger.removeHandler(self._handler)
        self._handler.close()
        self._handler = handler
        self._logger.setLevel(logging.DEBUG if settings.verbose_level > 0 else logging.INFO)


class _LevelFilter(logging.Filter):
    """Triton switches levels one by one instead of by a threshold."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return self._settings.error
        if record.levelno >= logging.WARNING:
            return self._settings.warning
        return self._settings.info if record.levelno >= logging.INFO else self._settings.verbose_level > 0


# A message may hold what a client sent: no part of it may pass for a line of ours or steer a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) != "\t"} | {
    ord("\n"): "\n    "
}


class _LineFormatter(logging.Formatter):
    """`I1123 21:15:02.123456 message` as Triton's default, or with an ISO 8601 time in UTC."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self._iso = style == "ISO8601"

    def format(self, record: logging.LogRecord) -> str:
        micros = int(record.created % 1 * 1e6)
        moment = time.gmtime(record.created)
        if self._iso:
            prefix = f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{micros:06d}Z {record.levelname[0]}"
        else:
            prefix = f"{record.levelname[0]}{time.strftime('%m%d %H:%M:%S', moment)}.{micros:06d}"
        text = f"{prefix} {record.name.removeprefix('erg_server.')}: {record.getMessage().translate(_CONTROLS)}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 6),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
