from __future__ import annotations

import configparser
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image import storage
from tests.tools import missing, tool

SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class BuiltImage:
    """The CPU image on stand-in bases, and what was secret while it was built."""

    name: str
    folder: Path
    """The image as a registry would hold it: a manifest, a configuration and layers."""
    canary: str
    """Random text, in pip's configuration and among the roots that it trusted."""
    sbom: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """Built once for its inputs: two minutes when something that goes into it has changed, else a few seconds."""
    for name in ("buildah", "mmdebstrap", "podman"):
        tool(name)
    if os.geteuid() != 0:
        missing("image", "root, for building an image without an engine,")
    key = hashlib.sha256()
    for path in _context():
        key.update(f"{path}\0".encode() + (storage.ROOT / path).read_bytes())
    # The mark is written in the store, so that the two go together.
    mark = storage.FOLDER / "storage" / f"built-{key.hexdigest()[:16]}"
    if not (mark.is_file() and storage.exists("erg:test-cpu")):
        canary = secrets.token_hex(16)
        _build(tmp_path_factory.mktemp("secrets"), canary)
        for old in mark.parent.glob("built-*"):
            old.unlink()
        mark.write_text(canary, encoding="utf-8")
    folder = tmp_path_factory.mktemp("image") / "pushed"
    storage.run([tool("buildah"), "push", "--disable-compression", "erg:test-cpu", f"dir:{folder}"])
    return BuiltImage("erg:test-cpu", folder, mark.read_text(encoding="utf-8"), storage.FOLDER / "sbom.json")


def _context() -> list[str]:
    """What .dockerignore lets into a build, as Git knows it, and .dockerignore itself."""
    lines = (storage.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", ".dockerignore", *allowed]
    listed = subprocess.run(command, cwd=storage.ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(path for path in listed.splitlines() if (storage.ROOT / path).is_file())


def _build(folder: Path, canary: str) -> None:
    """`make image` with other bases and secrets; its bill of materials goes beside the store."""
    storage.make_bases()
    conf, roots = folder / "pip.conf", folder / "roots.crt"
    conf.write_text(f"# {canary}\n[global]\n{_indexes()}[{canary}]\nuser = {canary}\n", encoding="utf-8")
    trusted = Path(os.environ.get("PIP_CERT") or SYSTEM_ROOTS)
    roots.write_text((trusted.read_text(encoding="utf-8") if trusted.is_file() else "") + f"# {canary}\n", "utf-8")
    said = storage.run(
        [sys.executable, "scripts/image/build.py", "cpu", "--allow-unpinned-base"],
        BASE=storage.BASE,
        BUILD_BASE=storage.BUILD_BASE,
        PIP_CONFIG_FILE=str(conf),
        PIP_CERT=str(roots),
        SOURCE_DATE_EPOCH="1700000000",
        IMAGE_SOURCE="https://erg.example/source",
    )
    built = re.search(r"==> (erg:\S+) is built; its bill of materials is (\S+)", said)
    assert built is not None, said[-2000:]
    shutil.move(storage.ROOT / built[2], storage.FOLDER / "sbom.json")
    storage.run([tool("podman"), "tag", built[1], "erg:test-cpu"])


def _indexes() -> str:
    """The indexes that pip uses on this machine and a build can reach: by HTTP."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    stated = configparser.ConfigParser(delimiters="=", interpolation=None)
    stated.read_string("[all]\n" + listed.stdout)
    kept = {}
    for name, value in stated["all"].items():
        setting = name.rpartition(".")[2]
        if setting in {"index-url", "extra-index-url", "trusted-host"} and "file:" not in value:
            kept[setting] = value.strip("'")
    return "".join(f"{setting} = {value}\n" for setting, value in kept.items())
