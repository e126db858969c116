"""An image store of the tests' own below .cache/image, and Debian in the place of the bases that the Dockerfiles name.

No registry is needed: mmdebstrap makes a base of Debian's packages with the same Python at the same minor version, and
one with a compiler for the build's stage. Only the bases' names differ from what `make image` does elsewhere.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pip

from tests.tools import tool

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "image"
BASE = "localhost/erg-stand-in:slim"
BUILD_BASE = "localhost/erg-stand-in:build"
_PACKAGES = {
    BASE: "python3,ca-certificates",
    BUILD_BASE: "python3,python3-dev,python3-pip,gcc,libc6-dev,ca-certificates",
}


def environment() -> dict[str, str]:
    """Variables for buildah and podman: plain folders as layers, and no kernel feature that a container may lack."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    settings = FOLDER / "storage.conf"
    settings.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{FOLDER / "storage"}"\nrunroot = "{FOLDER / "run"}"\n', "utf-8"
    )
    return os.environ | {"CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot", "ENGINE": "buildah"}


def run(command: Sequence[str | Path], **more: str) -> str:
    """Standard output of a program on that store; fails the test with what the program said."""
    answer = subprocess.run(
        [str(part) for part in command], env=environment() | more, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, f"{command}\n{answer.stdout[-4000:]}\n{answer.stderr[-4000:]}"
    return answer.stdout


def exists(image: str) -> bool:
    command: list[str | Path] = [tool("podman"), "image", "exists", image]
    return subprocess.run(command, env=environment(), check=False).returncode == 0


def make_bases() -> None:
    """Both stand-ins, unless the store has them; half a minute each."""
    wanted = [base for base in _PACKAGES if not exists(base)]
    making = {}
    for base in wanted:
        archive = FOLDER / f"{base.rpartition(':')[2]}.tar"
        # Like Docker's base, one with pip in it.
        hooks = [
            "--customize-hook=mkdir -p $1/usr/local/lib/python3.11/dist-packages",
            f"--customize-hook=copy-in {Path(pip.__file__).parent} /usr/local/lib/python3.11/dist-packages",
        ]
        command: list[str | Path] = [
            tool("mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged",
            f"--include={_PACKAGES[base]}", "--dpkgopt=path-exclude=/usr/share/doc/*/*",
            "--dpkgopt=force-unsafe-io", '--aptopt=APT::Install-Recommends "false"',
            "--dpkgopt=path-include=/usr/share/doc/*/copyright", *hooks, "bookworm", archive,
        ]  # fmt: skip
        making[base, archive] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for (base, archive), process in making.items():
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        run([tool("podman"), "import", archive, base])
        archive.unlink()
