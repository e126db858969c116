"""Build an image by whichever engine is here, and write its bill of materials to dist/.

    python scripts/image/build.py cpu            # `make image`
    python scripts/image/build.py cuda           # `make image FLAVOR=cuda`
    python scripts/image/build.py --lock         # `make image-lock`: the digests that the bases' tags have today

BASE and BUILD_BASE name other bases, ENGINE the engine, IMAGE_SOURCE the address for the label. pip's own variables
PIP_CONFIG_FILE and PIP_CERT are handed to the build as secrets, of which nothing stays in the image.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("docker", "podman", "buildah")
FLAVORS = ("cpu", "cuda")
SBOM = "/usr/share/doc/erg/sbom.json"
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
_BASE_LINE = re.compile(r"^ARG (BASE|BUILD_BASE)=(\S+)$", re.MULTILINE)


class BuildError(Exception):
    """Why no image was built, and what to do."""


@dataclass(frozen=True)
class Build:
    """What goes into an image's name, labels and secrets.

    `created_s` is in seconds since the epoch: the commit's, so that one commit makes one image.
    """

    flavor: str
    version: str
    revision: str
    created_s: int
    source: str
    bases: Mapping[str, str]
    secrets: Mapping[str, Path]

    @property
    def name(self) -> str:
        """The image's name and tag."""
        return f"erg:{self.version}-{self.flavor}"

    def arguments(self) -> dict[str, str]:
        """The build arguments of the Dockerfile."""
        created = dt.datetime.fromtimestamp(self.created_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "VERSION": self.version,
            "REVISION": self.revision,
            "CREATED": created,
            "SOURCE": self.source,
            "SOURCE_DATE_EPOCH": str(self.created_s),
            **self.bases,
        }


def stated_bases(dockerfile: str) -> dict[str, str]:
    """The defaults of the two bases in a Dockerfile."""
    return dict(_BASE_LINE.findall(dockerfile))


def check_pinned(bases: Mapping[str, str]) -> None:
    """Raises BuildError for a base without a digest."""
    for name, reference in bases.items():
        if not PINNED.fullmatch(reference):
            raise BuildError(
                f"{name}={reference} has no digest, so the same commit would make another image tomorrow: append "
                "@sha256:… (skopeo inspect --format '{{.Digest}}' docker://NAME:TAG prints it), or give "
                "--allow-unpinned-base"
            )


def build_command(engine: str, build: Build) -> list[str]:
    """The engine's command line, to run in the repository's root."""
    command = [engine, "build", "--file", f"docker/Dockerfile.{build.flavor}", "--tag", build.name]
    if engine != "docker":
        # BuildKit takes the same from SOURCE_DATE_EPOCH.
        command += ["--timestamp", str(build.created_s)]
    for name, value in build.arguments().items():
        command += ["--build-arg", f"{name}={value}"]
    for name, path in build.secrets.items():
        command += ["--secret", f"id={name},src={path}"]
    return [*command, "."]


def relocked(dockerfile: str, digests: Mapping[str, str]) -> str:
    """The Dockerfile with each base's digest as `digests` has it by name and tag."""

    def line(match: re.Match[str]) -> str:
        tag = match[2].partition("@")[0]
        return f"ARG {match[1]}={tag}@{digests[tag]}"

    return _BASE_LINE.sub(line, dockerfile)


def find_engine(wish: str) -> str:
    """The first engine that answers; raises BuildError where none does."""
    tried = []
    for engine in [wish] if wish else ENGINES:
        if shutil.which(engine) is None:
            tried.append(f"{engine} is not installed")
            continue
        # The client alone is no engine: `info` asks the daemon, or the storage.
        answer = subprocess.run([engine, "info"], check=False, capture_output=True, text=True)
        if answer.returncode == 0:
            return engine
        last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        tried.append(f"{engine} does not work ({last})")
    raise BuildError(
        "no engine builds images here: " + "; ".join(tried) + ". Install one (Debian: apt install buildah)"
    )


def read_sbom(engine: str, image: str) -> bytes:
    """The bill of materials that lies in an image."""
    if engine != "buildah":
        return _output([engine, "run", "--rm", "--network=none", "--entrypoint=/bin/cat", image, SBOM])
    container = _output(["buildah", "from", "--pull-never", image]).decode().strip()
    try:
        return Path(_output(["buildah", "mount", container]).decode().strip() + SBOM).read_bytes()
    finally:
        _output(["buildah", "rm", container])


def make(flavor: str, environment: Mapping[str, str], *, allow_unpinned: bool) -> None:
    """Build, and write the bill of materials beside the wheels.

    Raises:
        BuildError: no engine, a base without a digest, a secret that does not exist, or a failed build.
    """
    dockerfile = (ROOT / f"docker/Dockerfile.{flavor}").read_text(encoding="utf-8")
    bases = {name: environment.get(name) or default for name, default in stated_bases(dockerfile).items()}
    if not allow_unpinned:
        check_pinned(bases)
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "server/erg_server/__init__.py").read_text("utf-8"))
    assert version is not None
    revision, commit_s = _commit()
    build = Build(
        flavor=flavor,
        version=version[1],
        revision=revision,
        created_s=int(environment.get("SOURCE_DATE_EPOCH") or commit_s),
        source=environment.get("IMAGE_SOURCE", ""),
        bases=bases,
        secrets=_secrets(environment),
    )
    engine = find_engine(environment.get("ENGINE", ""))
    print(f"==> building {build.name} by {engine} on {bases['BASE']}", flush=True)
    command = build_command(engine, build)
    status = subprocess.run(command, cwd=ROOT, check=False, env=os.environ | {"DOCKER_BUILDKIT": "1"}).returncode
    if status != 0:
        raise BuildError(f"{engine} ended with status {status}; its last lines above say why")
    target = ROOT / "dist" / f"erg-{build.version}-{flavor}.sbom.json"
    target.parent.mkdir(exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(read_sbom(engine, build.name))
    partial.replace(target)
    print(f"==> {build.name} is built; its bill of materials is {target.relative_to(ROOT)}")


def lock() -> None:
    """Write today's digests of the bases' tags into the Dockerfiles; needs skopeo and a way to the registry."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docker").glob("Dockerfile.*"))}
    tags = {reference.partition("@")[0] for text in pages.values() for reference in stated_bases(text).values()}
    digests = {}
    for tag in sorted(tags):
        try:
            digests[tag] = _output(["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{tag}"]).decode().strip()
        except FileNotFoundError:
            raise BuildError("skopeo is not installed (Debian: apt install skopeo)") from None
        print(f"{tag} {digests[tag]}")
    for path, text in pages.items():
        path.write_text(relocked(text, digests), encoding="utf-8")


def _secrets(environment: Mapping[str, str]) -> dict[str, Path]:
    secrets = {}
    for name, variable in (("pip_conf", "PIP_CONFIG_FILE"), ("ca_bundle", "PIP_CERT")):
        if stated := environment.get(variable):
            if not Path(stated).is_file():
                raise BuildError(f"{variable}={stated} is no file: correct it or unset it")
            secrets[name] = Path(stated)
    return secrets


def _commit() -> tuple[str, int]:
    """The commit and its time in seconds; "unknown" and 0 outside a checkout."""
    git: Sequence[str] = ["git", "-C", str(ROOT)]
    try:
        commit, _, when = _output([*git, "log", "-1", "--format=%H %ct"]).decode().strip().partition(" ")
        changed = _output([*git, "status", "--porcelain"])
    except (BuildError, FileNotFoundError):
        return "unknown", 0
    return commit + ("-dirty" if changed else ""), int(when)


def _output(command: Sequence[str]) -> bytes:
    answer = subprocess.run(command, check=False, capture_output=True)
    if answer.returncode != 0:
        raise BuildError(f"{' '.join(command)}: {answer.stderr.decode(errors='replace').strip()}")
    return answer.stdout


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("flavor", nargs="?", choices=FLAVORS, default="cpu")
    parser.add_argument("--allow-unpinned-base", action="store_true", help="take a base without a digest")
    parser.add_argument("--lock", action="store_true", help="renew the digests in the Dockerfiles, and build nothing")
    stated = parser.parse_args()
    try:
        if stated.lock:
            lock()
        else:
            make(stated.flavor, os.environ, allow_unpinned=stated.allow_unpinned_base)
    except BuildError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    main()
