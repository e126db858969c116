"""The chart, rendered by helm: once for each set of values and version of Kubernetes."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "erg"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
EXAMPLES = CHART / "examples"
RELEASE, NAMESPACE = "infer", "serving"
FULLNAME = f"{RELEASE}-erg"
OLDEST, NEWEST = "1.20.0", "1.37.0"
VERSIONS = ("1.29.0", "1.34.0", NEWEST)
HELM_S = 60

Object = dict[str, Any]
Values = Mapping[str, Any]

_STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]]+)\]")


class RefusedError(Exception):
    """Helm refused the values; its message is what a user reads."""


class _Loader(yaml.CSafeLoader):
    """YAML as Helm reads it, which refuses a key that is there twice; Python's reader would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> list[Any]:
    """The documents that are not empty."""
    return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]


def example_names() -> list[str]:
    """The examples beside the chart, by name."""
    return sorted(path.stem for path in EXAMPLES.glob("*.yaml"))


@functools.cache
def example(name: str) -> Values:
    """An example's values; `defaults` has none."""
    if name == "defaults":
        return {}
    (values,) = load_yaml((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


def nested(dotted: Values) -> dict[str, Any]:
    """Values by dotted path, nested as a values file has them."""
    values: dict[str, Any] = {}
    for path, value in dotted.items():
        *above, last = path.split(".")
        table = values
        for name in above:
            table = table.setdefault(name, {})
        table[last] = value
    return values


def render(values: Values, version: str = NEWEST) -> list[Object]:
    """Every object, hooks included, in the order of their kinds, to read and not to change; raises RefusedError."""
    return _parsed(render_text(values, version))


@functools.cache
def _parsed(text: str) -> list[Object]:
    return load_yaml(text)


def render_text(values: Values, version: str = NEWEST) -> str:
    """What `helm template` prints; raises RefusedError."""
    answer = _render(json.dumps(values, sort_keys=True, ensure_ascii=False), version)
    if isinstance(answer, RefusedError):
        raise answer
    return answer


@functools.cache
def _render(values: str, version: str) -> str | RefusedError:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as stated:
        stated.write(values)
        stated.flush()
        arguments = ["template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", stated.name, "--kube-version", version]
        status, out, err = helm(*arguments)
    return RefusedError(err) if status else out


def helm(*arguments: str) -> tuple[int, str, str]:
    """Run helm; its exit status, what it printed and what it complained of."""
    done = subprocess.run(
        [tool("helm"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=HELM_S,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


def find(objects: Sequence[Object], kind: str, name: str | None = None) -> Object | None:
    """The object of that kind, by name where there are more of the kind."""
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(found) < 2, f"{kind}: say which of {[one['metadata']['name'] for one in found]}"
    return found[0] if found else None


def at(value: Any, path: str) -> Any:
    """What stands at a path as in `spec.containers[erg].image`: an item of a list by its name or number, else None."""
    for match in _STEP.finditer(path):
        key, item = match.groups()
        item = item.strip("'") if item else item
        if value is None:
            return None
        if item is None:
            value = value.get(key) if isinstance(value, dict) else None
        elif isinstance(value, dict):
            value = value.get(item)
        elif item.isdigit():
            value = value[int(item)] if int(item) < len(value) else None
        else:
            value = next((one for one in value if one.get("name") == item), None)
    return value


def pod_templates(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod that the objects make, with what makes it: metadata and spec."""
    for one in objects:
        label = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield label, one
        elif one["kind"] in {"Deployment", "StatefulSet", "DaemonSet"} or one["kind"] == "Job":
            yield label, one["spec"]["template"]


def containers(pod: Object) -> Iterator[Object]:
    """Every container of a pod, those that start it included."""
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]
