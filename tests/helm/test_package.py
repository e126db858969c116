"""What `helm package` makes holds the chart and nothing else, and renders the same."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from erg_server import __version__

from tests.helm.chart import CHART, NAMESPACE, RELEASE, ROOT, helm, load_yaml, render

KEPT_OUT = ("examples/",)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    status, out, err = helm("package", str(CHART), "--destination", str(folder))
    assert status == 0, out + err
    return folder / f"erg-{__version__}.tgz"


def tracked() -> set[str]:
    """The chart's files that Git has, or would have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "."],
        cwd=CHART, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return {name for name in listed if (CHART / name).exists()}


def test_the_package_has_the_charts_version_and_every_file_of_it_and_nothing_else(package: Path) -> None:
    with tarfile.open(package) as archive:
        names = {member.name.removeprefix("erg/") for member in archive if member.isfile()}
        assert all(member.isfile() for member in archive)
    wanted = {name for name in tracked() if not name.startswith(KEPT_OUT) and not name.startswith(".")}
    assert names - {".helmignore"} == wanted
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "templates/NOTES.txt"} <= names


def test_the_package_renders_what_the_folder_does(package: Path) -> None:
    status, out, err = helm("template", RELEASE, str(package), "-n", NAMESPACE, "--kube-version", "1.37.0")
    assert status == 0, err
    assert load_yaml(out) == render({})


def test_the_chart_says_its_version_once() -> None:
    (chart,) = load_yaml((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
    assert chart["kubeVersion"] == ">=1.20.0-0"
    assert not (CHART / "charts").exists()
    assert (ROOT / "LICENSE").exists()
