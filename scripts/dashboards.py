"""Generate the chart's Grafana dashboards, or with --check say whether they are up to date.

Usage: python -m scripts.dashboards [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from erg_server.files import replace_text

from scripts.dashboard_cost import cost
from scripts.dashboard_serving import serving

FOLDER = Path(__file__).resolve().parent.parent / "helm/erg/files/dashboards"


def dashboards() -> dict[str, str]:
    """Every dashboard's JSON by its file's name."""
    return {"erg-cost.json": cost(), "erg-serving.json": serving()}


def differences(fresh: dict[str, str], folder: Path) -> list[str]:
    """What in the folder is missing, changed or left over."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    found = [f"{name}: {'changed' if name in there else 'missing'}" for name in fresh if there.get(name) != fresh[name]]
    return sorted(found + [f"{name}: left over" for name in there.keys() - fresh.keys()])


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Run the command line; returns its exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    fresh = dashboards()
    if arguments:
        stale = differences(fresh, folder)
        for line in stale:
            print(line, file=sys.stderr)
        print("run `make dashboards` and commit the result" if stale else f"{len(fresh)} dashboards up to date")
        return 1 if stale else 0
    for path in folder.glob("*.json"):
        if path.name not in fresh:
            path.unlink()
    for name, text in fresh.items():
        replace_text(folder / name, text)
    print(f"{len(fresh)} dashboards written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
