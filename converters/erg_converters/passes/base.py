"""What every pass is: a model file in, another out, and promises that are checked here and not left to the pass."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from erg_server.errors import ErgError

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import PassError, PromiseError
from erg_converters.passes import promises

if TYPE_CHECKING:
    from erg_converters.data import Dataset
    from erg_converters.sources.base import InputSpec, Source

S = TypeVar("S")

ALL_BACKENDS = frozenset({"onnxruntime", "openvino"})


def _silent(_done: int, _total: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassContext:
    """What a pass may use besides the file that it is given.

    `folder` is the pass's own, empty at first and kept through an interrupt. `progress` takes how much is done of how
    much. What a long pass puts into `resume` (values that JSON has) is on disk at once, and there again when the pass
    runs after an interrupt with the same input, settings, tools and data.
    """

    source: Source
    inputs: tuple[InputSpec, ...]
    folder: Path
    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    progress: Callable[[int, int], None] = _silent
    resume: MutableMapping[str, Any] = dataclasses.field(default_factory=dict)


class Pass(abc.ABC, Generic[S]):
    """One step of a conversion.

    A subclass states the class variables and `transform`. Heavy libraries are imported inside its methods: the class
    alone is loaded to check recipes. Classes are found by the entry points of the group `erg.passes`.
    """

    name: ClassVar[str]
    accepts: ClassVar[frozenset[Format]]
    gives: Format
    """Stated by the class; an instance may set its own where it depends on the settings."""
    Settings: ClassVar[type]
    """A frozen dataclass whose fields all have defaults; its docstring says what each means."""
    backends: frozenset[str] = ALL_BACKENDS
    """Which backends can run the result; an instance may set its own, as for `gives`."""
    needs_calibration: ClassVar[bool] = False
    cites: ClassVar[str]
    """The paper or document that the pass follows."""

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.figures: dict[str, str] = {}
        """What the last `transform` found, for the report: name to value, in words and units."""

    @abc.abstractmethod
    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Write the result into `context.folder` and return its path; fill `figures`.

        Raises:
            ConversionError: it cannot be done; the message says why and what to do instead.
        """

    def tools(self) -> dict[str, str]:
        """Name to version of the libraries whose change would change the result. Part of the cache's key."""
        return {}

    def settings_text(self) -> dict[str, str]:
        """The settings as the manifest and the cache's key have them."""
        fields = dataclasses.fields(self.settings)  # type: ignore[arg-type]  # S is a dataclass by `Settings`' contract
        return {field.name: str(getattr(self.settings, field.name)) for field in fields}

    def run(self, artifact: Artifact, context: PassContext) -> Artifact:
        """Transform, then check what every pass promises (`promises.py`).

        Raises:
            PassError: the pass does not take this format, or failed; its own words are in the message.
            PromiseError: the result breaks a promise.
        """
        if artifact.format not in self.accepts:
            taken = " or ".join(sorted(self.accepts))
            raise PassError(f"{self.name} takes {taken}, not {artifact.format}; put it elsewhere in the chain")
        if self.needs_calibration and context.calibration is None:
            raise PassError(f"{self.name} needs calibration data: add a [calibration] table to the recipe")
        self.figures = {}
        context.folder.mkdir(parents=True, exist_ok=True)
        try:
            path = self.transform(artifact, context)
        except (ErgError, OSError, MemoryError):
            # Said well already, or the machine's fault and not the pass's: a full disk ends the whole run.
            raise
        except Exception as error:
            words = str(error).strip().splitlines()
            first = words[0] if words else type(error).__name__
            raise PassError(f"{self.name} failed: {type(error).__name__}: {first}") from error
        try:
            promises.check(path, self.gives, self._promised(artifact, context))
        except PromiseError as error:
            raise PromiseError(f"{self.name} broke a promise: {error.message}") from error
        return Artifact.of(self.gives, path)

    def _promised(self, artifact: Artifact, context: PassContext) -> promises.Promised:
        """What the result has to have in common with what it was made of."""
        if artifact.format is not Format.SOURCE:
            return promises.promised_by_file(artifact.path)
        file = context.source.file()
        if file is not None:
            return promises.promised_by_file(file)
        inputs = tuple((spec.name, spec.datatype, spec.dims) for spec in context.inputs)
        return promises.Promised(inputs=inputs, output_names=tuple(context.source.output_names))
