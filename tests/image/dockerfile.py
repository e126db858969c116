"""A Dockerfile as its instructions, stage by stage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stage:
    """What stands between two FROMs: the base, the stage's name, and instructions as (word, arguments)."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, word: str) -> list[str]:
        return [arguments for found, arguments in self.instructions if found == word]


@dataclass
class Dockerfile:
    arguments: dict[str, str]
    """What stands before the first FROM."""
    stages: list[Stage]


def parse(flavor: str) -> Dockerfile:
    text = (ROOT / "docker" / f"Dockerfile.{flavor}").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    parsed = Dockerfile({}, [])
    for statement in re.sub(r"\\\n\s*", " ", lines).splitlines():
        word, _, arguments = statement.strip().partition(" ")
        if word == "FROM":
            base, _, name = arguments.partition(" AS ")
            parsed.stages.append(Stage(base, name))
        elif word == "ARG" and not parsed.stages:
            name, _, default = arguments.partition("=")
            parsed.arguments[name] = default
        elif word:
            parsed.stages[-1].instructions.append((word, arguments))
    return parsed
