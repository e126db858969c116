"""Keep the chart's files in step: what is said in one place is written to the others, or with --check compared.

    version                        server/erg_server/__init__.py  ->  Chart.yaml
    settings of `erg serve`        server/erg_server/settings.py  ->  values.schema.json, under config
    values, defaults and words     values.schema.json             ->  values.yaml, README.md

Usage: python scripts/chart.py [--check]
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from erg_server import __version__
from erg_server.errors import InvalidArgumentError
from erg_server.settings import is_repeatable, merge, setting_fields, setting_type

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "erg"
WIDTH = 118
LARGEST = (1 << 63) - 1

# Settings that follow from other values of the chart; templates/_checks.tpl refuses them with the same words.
OWNED = {
    "model_repository": "models",
    "model_cache": "cache",
    "require_digests": "models.requireDigests",
    "price_file": "prices",
    "grpc_use_ssl": "tls.enabled",
    "grpc_use_ssl_mutual": "tls.mutual.enabled",
    "grpc_server_cert": "tls",
    "grpc_server_key": "tls",
    "grpc_root_cert": "tls.mutual",
    "drain_delay_secs": "drain.drainDelaySeconds",
    "exit_timeout_secs": "drain.exitTimeoutSeconds",
}

# Where the chart's default is not the server's: what the image's read-only root file system leaves to be written.
CHART_DEFAULTS = {
    "latency_cache": "/var/cache/erg/latency.json",
    "trace_folder": "/tmp",  # noqa: S108 (an emptyDir of the pod's own)
    "log_format": "json",
}

Schema = dict[str, Any]


def config_schema() -> Schema:
    """JSON schema of the settings a user may state, by the server's own types, choices, bounds and words."""
    properties: Schema = {}
    for item in setting_fields():
        if item.name in OWNED:
            properties[item.name] = {"description": f"Set by {OWNED[item.name]}; refused here.", "readOnly": True}
        else:
            properties[item.name] = _setting_schema(item)
    return properties


def _setting_schema(item: dataclasses.Field[Any]) -> Schema:
    kind = setting_type(item.name)
    text = {"description": item.metadata["help"]}
    server_default: Any = item.default_factory() if callable(item.default_factory) else item.default
    # An absent setting takes the server's default, which is told and not repeated in erg.toml.
    default = {"default": CHART_DEFAULTS[item.name]} if item.name in CHART_DEFAULTS else {"examples": [server_default]}
    if is_repeatable(item.name):
        return {**text, "type": "array", "items": {"type": "string"}, **default}
    if item.metadata["choices"]:
        return {**text, "type": "string", "enum": list(item.metadata["choices"]), **default}
    if kind is bool:
        return {**text, "type": "boolean", **default}
    if kind is str:
        return {**text, "type": "string", "pattern": "^[^\\x00-\\x1f\\x7f]*$", **default}
    return {
        **text,
        "type": "integer" if kind is int else "number",
        **_bounds(item.name, kind, server_default),
        **default,
    }


def _bounds(name: str, kind: type, default: float) -> Schema:
    """What the server's own check of a number takes, found by asking it."""

    def taken(value: float) -> bool:
        try:
            merge({"model_repository": ("models",), name: kind(value)})
        except InvalidArgumentError:
            return False
        return True

    if kind is float:
        return {"minimum": 0} if taken(0) else {"exclusiveMinimum": 0} if not taken(-1) else {}
    bounds: Schema = {}
    if not taken(-LARGEST):
        bounds["minimum"] = _edge(taken, inside=int(default), outside=-LARGEST)
    if not taken(LARGEST):
        bounds["maximum"] = _edge(taken, inside=int(default), outside=LARGEST)
    if name.endswith("_port"):
        bounds["minimum"] = 1  # A service needs to know the port: none that the kernel picks.
    return bounds


def _edge(taken: Callable[[int], bool], *, inside: int, outside: int) -> int:
    """The value nearest to `outside` that is taken, by halving."""
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if taken(middle) else (inside, middle)
    return inside


def leaves(properties: Mapping[str, Schema], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every value that a user may state with its schema, in the schema's order."""
    for name, schema in properties.items():
        if "properties" in schema and "default" not in schema:
            yield from leaves(schema["properties"], (*path, name))
        elif not schema.get("readOnly"):
            yield (*path, name), schema


def schema_text(value: object, indent: int = 0) -> str:
    """JSON in which what fits on a line stands on one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= WIDTH - 8 or not isinstance(value, dict | list) or not value:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{pad}{json.dumps(key)}: {schema_text(each, indent + 2)}" for key, each in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(f"{pad}{schema_text(each, indent + 2)}" for each in value) + "\n" + " " * indent + "]"


def values_text(properties: Mapping[str, Schema]) -> str:
    """values.yaml: every default with what it is for."""
    head = (
        "Values of the chart erg with their defaults. Written by scripts/chart.py from values.schema.json: edit that."
    )
    blocks = [
        "\n".join(_values_lines({name: schema}, 0))
        for name, schema in properties.items()
        if name != "global"
    ]  # fmt: skip
    return f"# {head}\n\n" + "\n\n".join(blocks) + "\n"


def _values_lines(properties: Mapping[str, Schema], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, schema in properties.items():
        if schema.get("readOnly"):
            continue
        yield from (
            f"{pad}# {line}" for line in textwrap.wrap(_words(schema), WIDTH - len(pad) - 2, break_on_hyphens=False)
        )
        if "properties" in schema and "default" not in schema:
            yield f"{pad}{name}:"
            yield from _values_lines(schema["properties"], depth + 1)
        elif "default" in schema:
            yield from _yaml(name, schema["default"], pad)
            for example in schema.get("examples", ()):
                yield f"{pad}# for example:"
                yield from _yaml(name, example, f"{pad}# ")
        else:
            yield from _yaml(name, schema["examples"][0], f"{pad}# ")


def _words(schema: Schema) -> str:
    choices = f" One of {', '.join(schema['enum'])}." if "enum" in schema else ""
    return f"{schema['description']}{choices}"


def _yaml(key: str, value: object, pad: str) -> Iterator[str]:
    """`key: value` in YAML: tables and lists in blocks, all else as JSON has it, which is YAML too."""
    if isinstance(value, dict) and value:
        yield f"{pad}{key}:"
        for name, each in value.items():
            yield from _yaml(name, each, f"{pad}  ")
    elif isinstance(value, list | tuple) and value:
        yield f"{pad}{key}:"
        for each in value:
            lines = list(_block(each))
            yield f"{pad}  - {lines[0]}"
            yield from (f"{pad}    {line}" for line in lines[1:])
    else:
        yield f"{pad}{key}: {json.dumps(value, ensure_ascii=False)}"


def _block(value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _yaml(name, each, "")
    else:
        yield json.dumps(value, ensure_ascii=False)


def readme_table(properties: Mapping[str, Schema]) -> str:
    """A Markdown table of all values."""
    rows = ["| value | default | is |", "|---|---|---|"]
    for path, schema in leaves(properties):
        if path == ("global",):
            continue
        server = "server's: " if "default" not in schema else ""
        default = schema["default"] if "default" in schema else schema["examples"][0]
        shown = (
            "" if default in ("", [], {}, ()) else f"`{json.dumps(default, ensure_ascii=False)}`".replace("|", "\\|")
        )
        words = " ".join(_words(schema).split()).replace("|", "\\|")
        rows.append(f"| `{'.'.join(path)}` | {server}{shown or 'empty'} | {words} |")
    return "\n".join(rows)


def fresh() -> dict[Path, str]:
    """Every file that is written here, as it should be."""
    schema_path, readme_path, chart_path = CHART / "values.schema.json", CHART / "README.md", CHART / "Chart.yaml"
    schema: Schema = json.loads(schema_path.read_text(encoding="utf-8"))
    properties: dict[str, Schema] = schema["properties"]
    properties["config"]["properties"] = config_schema()
    before, mark, rest = readme_path.read_text(encoding="utf-8").partition("<!-- values -->\n")
    _, end_mark, after = rest.partition("<!-- end of values -->\n")
    if not (mark and end_mark):
        raise SystemExit(f"{readme_path}: the marks around the table of values are gone")
    chart = chart_path.read_text(encoding="utf-8")
    chart = re.sub(r"(?m)^version: .*$", f"version: {__version__}", chart)
    chart = re.sub(r"(?m)^appVersion: .*$", f'appVersion: "{__version__}"', chart)
    return {
        schema_path: schema_text(schema) + "\n",
        CHART / "values.yaml": values_text(properties),
        readme_path: f"{before}{mark}{readme_table(properties)}\n{end_mark}{after}",
        chart_path: chart,
    }


def stale() -> list[Path]:
    """Files that are not as they should be."""
    return [path for path, text in fresh().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """Write, or with --check compare; the exit status."""
    if "--check" in sys.argv[1:]:
        found = stale()
        print("\n".join(f"{path.relative_to(ROOT)} is stale: run python scripts/chart.py" for path in found)
              or "chart: schema, values, README and version agree")  # fmt: skip
        return bool(found)
    for path, text in fresh().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
