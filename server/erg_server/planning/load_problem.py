"""What is wrong with a load file, said so that its author can fix it."""

from __future__ import annotations

from collections.abc import Sequence

from erg_server.errors import InvalidArgumentError
from erg_server.repository.problem import Problem

MAX_TOLD = 10
"""A column that is wrong in every line of a trace is told once or twice, not a million times."""


class LoadFileError(InvalidArgumentError):
    """A load file that cannot be simulated; `problems` has its faults, with file, line, key and fix."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MAX_TOLD])
        super().__init__("\n".join(str(problem) for problem in self.problems))
