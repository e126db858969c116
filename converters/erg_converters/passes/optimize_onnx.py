"""Simplifies the graph where that measures better, and passes it on as it is where not.

On CPUs the runtimes simplify at load time themselves, and most rewriting buys nothing (a few per cent less, on BERT);
so each tool's result is timed beside the input and the best is taken only where it gains a stated share. Tools:
onnxslim (https://github.com/inisis/OnnxSlim), and ONNX Runtime's own optimiser at its basic level, which writes
standard operators only (https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import ParityError, PassError, PromiseError
from erg_converters.passes import promises
from erg_converters.passes.base import Pass, PassContext
from erg_converters.passes.export_onnx import versions
from erg_converters.passes.parity import Array, check_parity, open_session, parity_sizes
from erg_converters.sources.base import random_feed

TOOLS = ("onnxslim", "onnxruntime")
MIN_CALLS_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeSettings:
    """`tool`: auto tries all and takes the best; none passes the input on.

    `min_gain` is the share of CPU time that the result has to save, geometric mean over the shapes; `rounds` how often
    each is timed, in turns, the least counting; `max_absolute_difference` bounds any output element's change.
    """

    tool: Literal["auto", "onnxslim", "onnxruntime", "none"] = "auto"
    min_gain: float = 0.03
    rounds: int = 5
    max_absolute_difference: float = 1e-4


class OptimizeOnnx(Pass[OptimizeSettings]):
    """Canonical ONNX to canonical ONNX of fewer nodes, or the same."""

    name = "optimize_onnx"
    accepts = frozenset({Format.ONNX})
    gives = Format.ONNX
    Settings = OptimizeSettings
    cites = "https://github.com/inisis/OnnxSlim; ONNX Runtime, Graph Optimizations"

    def tools(self) -> dict[str, str]:
        """Both optimisers."""
        return versions(*TOOLS, "onnx")

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Try the tools, time what they give in turns with the input, keep the best that gains enough."""
        tried = TOOLS if self.settings.tool == "auto" else () if self.settings.tool == "none" else (self.settings.tool,)
        feeds = [
            random_feed(context.inputs, sizes, seed)
            for seed, sizes in enumerate(parity_sizes(context.inputs, context.source.max_sizes))
        ]
        paths = {"none": artifact.path}
        for tool in tried:
            path = self._try(tool, artifact, context, feeds)
            if path is not None:
                paths[tool] = path
        chosen, ratio = "none", 1.0
        if len(paths) > 1:
            ratios = self._measure(paths, feeds, context)
            for tool, value in ratios.items():
                self.figures[f"{tool}, CPU time over the input's"] = f"{1 / value:.3f}"
            best = max(ratios, key=lambda tool: ratios[tool])
            if 1 - 1 / ratios[best] >= self.settings.min_gain:
                chosen, ratio = best, ratios[best]
        self.figures["kept"] = f"{chosen}, {1 / ratio:.3f} of the input's CPU time" if chosen != "none" else "the input"
        result = context.folder / "model.onnx"
        shutil.copyfile(paths[chosen], result)
        return result

    def _try(
        self, tool: str, artifact: Artifact, context: PassContext, feeds: Sequence[Mapping[str, Array]]
    ) -> Path | None:
        """The tool's result where it keeps every promise and every answer; else None, and the figures say why."""
        path = context.folder / f"{tool}.onnx"
        try:
            _slim(artifact.path, path) if tool == "onnxslim" else _fold(artifact.path, path)
            promises.check(path, Format.ONNX, promises.promised_by_file(artifact.path))
            session = open_session(artifact.path)
            bound = self.settings.max_absolute_difference
            check_parity(path, lambda feed: session.run(None, dict(feed)), feeds, bound, context.progress)
        except (PromiseError, ParityError) as error:
            self.figures[tool] = f"dropped: {error.message}"
            return None
        return path

    def _measure(
        self, paths: Mapping[str, Path], feeds: Sequence[Mapping[str, Array]], context: PassContext
    ) -> dict[str, float]:
        """CPU time of the input over each tool's, geometric mean over the feeds; above 1 the tool gains."""
        sessions = {tool: open_session(path, threads=1) for tool, path in paths.items()}
        logs = dict.fromkeys(sessions, 0.0)
        for number, feed in enumerate(feeds):
            context.progress(number, len(feeds))
            calls = _calls(sessions["none"], feed)
            least = dict.fromkeys(sessions, math.inf)
            for _ in range(self.settings.rounds):
                for tool, session in sessions.items():
                    least[tool] = min(least[tool], _cpu_seconds(session, feed, calls))
            for tool, seconds in least.items():
                logs[tool] += math.log(least["none"] / seconds) / len(feeds)
        return {tool: math.exp(value) for tool, value in logs.items() if tool != "none"}


def _calls(session: Any, feed: Mapping[str, Array]) -> int:
    """How many calls make a span that the CPU clock can tell from another."""
    _cpu_seconds(session, feed, 1)
    return max(1, math.ceil(MIN_CALLS_SECONDS / max(_cpu_seconds(session, feed, 1), 1e-6)))


def _cpu_seconds(session: Any, feed: Mapping[str, Array], calls: int) -> float:
    began_ns = time.process_time_ns()
    for _ in range(calls):
        session.run(None, feed)
    return max(time.process_time_ns() - began_ns, 1) / 1e9


def _slim(given: Path, result: Path) -> None:
    import onnxslim  # noqa: PLC0415  # recipes are checked without it

    slimmed = onnxslim.slim(onnx.load(str(given)))
    if slimmed is None:
        raise PassError("onnxslim gave no model")
    result.write_bytes(slimmed.SerializeToString())


def _fold(given: Path, result: Path) -> None:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(result)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(given), options, providers=["CPUExecutionProvider"])
