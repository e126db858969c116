"""What is wrong with a configuration, said so that its author can fix it without reading our source."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from erg_server.errors import InvalidArgumentError

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault: where (`line` 0 where there is none to name), which key, what is wrong, what to do.

    An error keeps the model from being served; a warning marks a setting that has no effect.
    """

    path: str
    message: str
    line: int = 0
    key: str = ""
    suggestion: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        parts = [place, self.key, self.message] if self.key else [place, self.message]
        text = ": ".join(part for part in parts if part)
        return f"{text}; {self.suggestion}" if self.suggestion else text


class ConfigError(InvalidArgumentError):
    """A configuration that cannot be served; `problems` lists every fault found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A suggestion out of `known` for a word that is not among them, or all of them where none is near."""
    by_folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_folded), n=1, cutoff=0.6)
    ending = [name for name in known if name.lower().endswith(f"_{word.lower()}")]
    best = ending[:1] or [by_folded[name] for name in near]
    if best:
        return f"did you mean '{best[0]}'?"
    return f"allowed: {', '.join(sorted(known))}" if known else "nothing is allowed here"
