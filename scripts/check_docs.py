"""Check what prose claims: links of the Markdown files lead somewhere, and the version is stated once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_PATH = re.compile(r"`((?:server|converters|loadtest|docs|scripts|protos|tests|model_repo)/[\w./-]+\.\w+)`")


def tracked(pattern: str) -> list[Path]:
    """Files that Git tracks or would track."""
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", pattern],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / line for line in out.splitlines()]


def broken_links() -> list[str]:
    """Links and file names in Markdown that lead nowhere."""
    problems = []
    for page in tracked("*.md"):
        text = page.read_text(encoding="utf-8")
        for target in LINK.findall(text):
            if "://" in target or target.startswith(("#", "mailto:")):
                continue
            if not (page.parent / target.split("#")[0]).exists():
                problems.append(f"{page.relative_to(ROOT)}: link to {target}, which does not exist")
        problems += [
            f"{page.relative_to(ROOT)}: names {path}, which does not exist"
            for path in CODE_PATH.findall(text)
            if not (ROOT / path).exists()
        ]
    return problems


def version_problems() -> list[str]:
    """The version in the package must be the installed one, and the changelog must speak of it or of what is next."""
    from importlib.metadata import version  # noqa: PLC0415

    from erg_server import __version__  # noqa: PLC0415

    problems = []
    if version("erg") != __version__:
        problems.append(f"installed version {version('erg')} is not the source's {__version__}: run make test again")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if "## Unreleased" not in changelog and f"## {__version__}" not in changelog:
        problems.append(f"CHANGELOG.md has neither 'Unreleased' nor {__version__}")
    return problems


if __name__ == "__main__":
    found = broken_links() + version_problems()
    print("\n".join(found) or "docs: links and version hold")
    sys.exit(bool(found))
