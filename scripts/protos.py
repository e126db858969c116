"""Generate server/erg_server/pb from protos/, or with --check say whether it is up to date.

Usage: python scripts/protos.py [--check]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("erg_server/pb")
GENERATED = ROOT / "server" / PACKAGE

# protobuf's generated code registers with the default pool; ours must not (see erg_server/pb/pool.py).
_DEFAULT_POOL = "_descriptor_pool.Default()"
_DEFAULT_POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool"
_OWN_POOL = "_descriptor_pool.POOL"
_OWN_POOL_IMPORT = "from erg_server.pb import pool as _descriptor_pool"


def generate(into: Path) -> list[Path]:
    """Write the modules and their stubs of every .proto under `into`, which is an import root; returns their paths."""
    plugin = shutil.which("protoc-gen-mypy", path=sysconfig.get_path("scripts")) or shutil.which("protoc-gen-mypy")
    if plugin is None:
        raise SystemExit("protoc-gen-mypy is missing; install the extra: pip install -e '.[dev]'")
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}", f"--plugin=protoc-gen-mypy={plugin}",
         f"--python_out={into}", f"--mypy_out=quiet:{into}", *sources],
        check=True,
    )  # fmt: skip
    written = sorted((into / PACKAGE).glob("*_pb2.py*"))
    for path in written:
        if path.suffix == ".py":
            path.write_text(_with_own_pool(path.read_text(), path.name))
    return written


def _with_own_pool(text: str, name: str) -> str:
    for old in (_DEFAULT_POOL, _DEFAULT_POOL_IMPORT):
        if text.count(old) != 1:
            raise SystemExit(f"{name}: expected '{old}' once; protoc's output changed, adapt scripts/protos.py")
    return text.replace(_DEFAULT_POOL, _OWN_POOL).replace(_DEFAULT_POOL_IMPORT, _OWN_POOL_IMPORT)


def differences(fresh: list[Path]) -> list[str]:
    """What in the committed modules is missing, changed or left over, against those just generated."""
    names = {path.name for path in fresh}
    found = [
        f"{path.name}: {'changed' if (GENERATED / path.name).exists() else 'missing'}"
        for path in fresh
        if not (GENERATED / path.name).exists() or (GENERATED / path.name).read_bytes() != path.read_bytes()
    ]
    found += [f"{path.name}: left over" for path in GENERATED.glob("*_pb2.py*") if path.name not in names]
    return sorted(found)


def main(arguments: list[str]) -> int:
    """Run the command line; returns its exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
        if arguments:
            stale = differences(fresh)
            for line in stale:
                print(line, file=sys.stderr)
            print("run `make protos` and commit the result" if stale else f"{len(fresh)} generated files up to date")
            return 1 if stale else 0
        for path in GENERATED.glob("*_pb2.py*"):
            path.unlink()
        for path in fresh:
            shutil.copyfile(path, GENERATED / path.name)
    print(f"{len(fresh)} files written to {GENERATED.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
