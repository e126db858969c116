from __future__ import annotations

import json

from scripts.image.sbom import debian_components, image_document, interpreter_component

OS_RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
STATUS = """Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 1:12.2.0-14+deb12u1
Description: GNU Standard C++ Library v3
 Package: not a field
 .

Package: apt
Status: deinstall ok config-files
Architecture: amd64
Version: 2.6.1

Package: base-files
Status: install ok installed
Architecture: amd64
Version: 12.4~rc1
"""


def test_packages_that_are_installed_are_listed_and_others_are_not() -> None:
    components = debian_components(STATUS, OS_RELEASE)
    assert [(component["name"], component["version"]) for component in components] == [
        ("base-files", "12.4~rc1"),
        ("libstdc++6", "1:12.2.0-14+deb12u1"),
    ]


def test_a_package_url_escapes_what_the_specification_says() -> None:
    (_, library) = debian_components(STATUS, OS_RELEASE)
    assert library["purl"] == "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"


def test_the_image_contains_every_component_once() -> None:
    python = {"components": [{"bom-ref": "numpy==2", "name": "numpy"}], "dependencies": [{"ref": "numpy==2"}]}
    others = [interpreter_component("3.11.16"), *debian_components(STATUS, OS_RELEASE)]
    document = json.loads(image_document(python, others, "erg-cpu", "1.0"))
    assert document["metadata"]["component"] == {
        "type": "container", "bom-ref": "image", "name": "erg-cpu", "version": "1.0",
    }  # fmt: skip
    assert [component["name"] for component in document["components"]] == [
        "numpy",
        "python",
        "base-files",
        "libstdc++6",
    ]
    assert document["dependencies"][-1]["dependsOn"] == sorted(c["bom-ref"] for c in document["components"])
