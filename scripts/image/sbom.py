"""Write the bill of materials of an image: its Python packages, Debian's packages and the interpreter, as CycloneDX.

    python scripts/image/sbom.py --name erg-cpu --version 0.1.0 /opt/erg/bin/python FOLDER

cyclonedx-py describes the environment of that interpreter; what Debian installed is read from dpkg's `status` and
`os-release` in FOLDER. The document is checked against CycloneDX's schema before it goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

SPEC = "1.6"


def debian_components(status: str, os_release: str) -> list[dict[str, Any]]:
    """A component for each package that dpkg's `status` calls installed, sorted by name."""
    release = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    distro = f"{release['ID']}-{release['VERSION_ID']}".replace('"', "")
    components = []
    for paragraph in status.split("\n\n"):
        # Continued lines start with a space, and none of these fields is continued.
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            name, version = quote(fields["Package"], safe=""), quote(fields["Version"], safe="")
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}&distro={distro}"
            components.append(
                {
                    "type": "library",
                    "bom-ref": purl,
                    "name": fields["Package"],
                    "version": fields["Version"],
                    "purl": purl,
                }
            )
    return sorted(components, key=lambda component: component["name"])


def interpreter_component(version: str) -> dict[str, Any]:
    """CPython itself, which Docker's base builds from source, so that no package list has it."""
    purl = f"pkg:generic/python@{version}"
    return {
        "type": "platform",
        "bom-ref": purl,
        "name": "python",
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def image_document(python_document: dict[str, Any], others: list[dict[str, Any]], name: str, version: str) -> str:
    """The environment's document with the other components in it, as one of a container image."""
    document = python_document | {"components": [*python_document["components"], *others]}
    document["metadata"] = document.get("metadata", {}) | {
        "component": {"type": "container", "bom-ref": "image", "name": name, "version": version}
    }
    document["dependencies"] = [
        *document.get("dependencies", []),
        {"ref": "image", "dependsOn": sorted(component["bom-ref"] for component in document["components"])},
    ]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Describe the environment, add the rest, check and print."""
    # Beside cyclonedx-py in the build's environment of tools, and nowhere else.
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("python", type=Path)
    parser.add_argument("debian", type=Path)
    stated = parser.parse_args()
    command = ["-m", "cyclonedx_py", "environment", "--sv", SPEC, "--output-reproducible", str(stated.python)]
    described = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout
    python_version = subprocess.run(
        [stated.python, "-c", "import platform; print(platform.python_version())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    debian = debian_components(
        (stated.debian / "status").read_text(encoding="utf-8"),
        (stated.debian / "os-release").read_text(encoding="utf-8"),
    )
    text = image_document(
        json.loads(described), [interpreter_component(python_version), *debian], stated.name, stated.version
    )
    if problem := JsonStrictValidator(SchemaVersion.from_version(SPEC)).validate_str(text):
        sys.exit(f"sbom: not CycloneDX {SPEC}: {problem}")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
