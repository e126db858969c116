"""Reads a model's configuration in any of its notations: config.pbtxt, config.toml, or the JSON of a load request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from google.protobuf import text_format

from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.binding import Binder, Notation
from erg_server.repository.layout import CONFIG_FILENAMES, CONFIG_PBTXT, CONFIG_TOML, read_text
from erg_server.repository.notation import NotationError
from erg_server.repository.pbtxt import parse_pbtxt
from erg_server.repository.problem import ConfigError, Problem, Severity
from erg_server.repository.toml_document import parse_json, parse_toml

_PARSERS = {"pbtxt": parse_pbtxt, "toml": parse_toml, "json": parse_json}
OVERRIDE_PATH = "(the load request's config)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDocument:
    """A configuration and where it was written: `lines` has the line of every key that was given, by its path.

    A key's path is as in `input[0].dims`, or `parameters.threads` for a map.
    """

    path: str
    config: pb.ModelConfig = field(default_factory=pb.ModelConfig)
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def gives(self, key: str) -> bool:
        """Whether the author wrote this key, be it with a default value."""
        return key in self.lines

    def line(self, key: str) -> int:
        """The line of a key, or of the nearest key around it that was written; 0 where there is none."""
        while key:
            if key in self.lines:
                return self.lines[key]
            cut = max(key.rfind("."), key.rfind("["))
            key = key[:cut] if cut > 0 else ""
        return 0

    def problem(self, key: str, message: str, suggestion: str = "", severity: Severity = "error") -> Problem:
        """A problem with the key of this document."""
        return Problem(
            path=self.path,
            line=self.line(key),
            key=key,
            message=message,
            suggestion=suggestion,
            severity=severity,
        )


def parse_config(text: str, path: str, notation: Notation) -> ConfigDocument:
    """Parse a configuration; `path` is what errors call it.

    Raises:
        ConfigError: every unknown key, wrong type and value out of range, with its line.
    """
    try:
        table = _PARSERS[notation](text)
    except NotationError as error:
        kind = {"pbtxt": "protobuf text", "toml": "TOML", "json": "JSON"}[notation]
        problem = Problem(path=path, line=error.line, message=f"not valid {kind}: {error.message}")
        raise ConfigError([problem]) from None
    config = pb.ModelConfig()
    binder = Binder(path, notation)
    binder.bind(table, config)
    if binder.problems:
        raise ConfigError(binder.problems)
    return ConfigDocument(path=path, config=config, lines=MappingProxyType(binder.lines))


def parse_override(config_json: str) -> ConfigDocument:
    """Parse the JSON configuration of a load request; raises ConfigError as `parse_config` does."""
    return parse_config(config_json, OVERRIDE_PATH, "json")


def find_config(model: Path) -> Path | None:
    """The configuration in a model's folder, if there is one.

    Raises:
        ConfigError: it is there in both notations.
    """
    found = [model / name for name in CONFIG_FILENAMES if (model / name).exists() or (model / name).is_symlink()]
    if len(found) > 1:
        message = f"a model has one configuration; there is a {CONFIG_PBTXT} too"
        raise ConfigError([Problem(path=str(model / CONFIG_TOML), message=message, suggestion="remove one")])
    return found[0] if found else None


def read_config(model: Path) -> ConfigDocument:
    """The configuration in a model's folder; an empty one where there is none.

    Raises:
        ConfigError: it is wrong.
        ErgError: the file cannot be read.
    """
    path = find_config(model)
    if path is None:
        return ConfigDocument(path=str(model / CONFIG_PBTXT))
    return parse_config(read_text(path), str(path), "toml" if path.name == CONFIG_TOML else "pbtxt")


def format_pbtxt(config: pb.ModelConfig) -> str:
    """The configuration as config.pbtxt has it."""
    return text_format.MessageToString(config, as_utf8=True)
