"""Brings a source into the canonical form, plain fp32 ONNX in one file, and proves that it computes the same.

A module is exported by PyTorch (torch.onnx.export, https://pytorch.org/docs/stable/onnx_export.html). A source that is
ONNX already is copied, and brought to the canonical opset by ONNX's version converter
(https://onnx.ai/onnx/api/version_converter.html) where that keeps its answers.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from erg_server.repository.onnx_safety import check_external_data, read_onnx

from erg_converters.artifact import Artifact, Format
from erg_converters.errors import ParityError, PassError, PromiseError
from erg_converters.passes import promises
from erg_converters.passes.base import Pass, PassContext
from erg_converters.passes.parity import Array, Parity, check_parity, parity_sizes
from erg_converters.sources.base import random_feed

if TYPE_CHECKING:
    from erg_converters.sources.base import InputSpec

EXAMPLE_SIZE = 16
EXAMPLE_OTHER_SIZE = 64
MAX_SIZE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """`opset` to write a module in; `max_absolute_difference` of any output element from the source's."""

    opset: int = promises.CANONICAL_OPSET
    max_absolute_difference: float = 1e-4


class ExportOnnx(Pass[ExportSettings]):
    """Source to canonical ONNX."""

    name = "export_onnx"
    accepts = frozenset({Format.SOURCE})
    gives = Format.ONNX
    Settings = ExportSettings
    cites = "torch.onnx.export, https://pytorch.org/docs/stable/onnx_export.html"

    def tools(self) -> dict[str, str]:
        """PyTorch's exporter and what it is written with, ONNX and ONNX Runtime."""
        return versions("torch", "transformers", "onnx", "onnxscript", "onnxruntime")

    def transform(self, artifact: Artifact, context: PassContext) -> Path:
        """Export or copy, then compare with the source over `parity_sizes`."""
        feeds = _feeds(context)
        path = context.folder / "model.onnx"
        file = context.source.file()
        if file is None:
            _export(context, self.settings.opset, path)
            parity = self._compare(path, context, feeds)
        else:
            parity = self._copy(file, path, context, feeds)
        self.figures |= {
            "size": f"{path.stat().st_size / 1e6:.1f} MB",
            "largest difference": f"{parity.max_absolute_difference:.2g}",
            "shapes compared": str(parity.shapes),
        }
        return path

    def _promised(self, artifact: Artifact, context: PassContext) -> promises.Promised:
        promised = super()._promised(artifact, context)
        return promised if context.source.file() else dataclasses.replace(promised, opset=self.settings.opset)

    def _compare(self, path: Path, context: PassContext, feeds: Sequence[Mapping[str, Array]]) -> Parity:
        bound = self.settings.max_absolute_difference
        return check_parity(path, _answers(context, feeds), feeds, bound, context.progress)

    def _copy(self, file: Path, path: Path, context: PassContext, feeds: Sequence[Mapping[str, Array]]) -> Parity:
        """Write the file as one file, at the canonical opset where that is newer and changes no answer."""
        model = read_onnx(file)
        check_external_data(model, file)
        onnx.load_external_data_for_model(model, str(file.parent))
        _strip(model)
        opset = promises.opset_of(model)
        path.write_bytes(model.SerializeToString())
        # Before any runtime loads it: what it is must be known to be sound.
        try:
            promises.check(path, Format.ONNX, promises.promised_by_file(path))
        except PromiseError as error:
            raise PassError(f"{file} has no place here: {error.message}") from error
        self.figures["opset"] = str(opset)
        if opset < promises.CANONICAL_OPSET:
            converted = path.with_name("converted.onnx")
            try:
                newer = onnx.version_converter.convert_version(model, promises.CANONICAL_OPSET)
                converted.write_bytes(newer.SerializeToString())
                promises.check(converted, Format.ONNX, promises.promised_by_file(path))
                parity = self._compare(converted, context, feeds)
            except (RuntimeError, ParityError, PassError) as error:
                self.figures["opset"] = f"{opset}, kept: {str(error).strip().splitlines()[0]}"
                converted.unlink(missing_ok=True)
            else:
                converted.replace(path)
                self.figures["opset"] = f"{promises.CANONICAL_OPSET}, from {opset}"
                return parity
        return self._compare(path, context, feeds)


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages, those that are not installed left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _feeds(context: PassContext) -> list[Mapping[str, Array]]:
    sizes = parity_sizes(context.inputs, context.source.max_sizes)
    feeds: list[Mapping[str, Array]] = [random_feed(context.inputs, each, seed) for seed, each in enumerate(sizes)]
    if context.evaluation is not None and len(context.evaluation):
        feeds.append(context.evaluation.samples[0])
    return feeds


def _answers(
    context: PassContext, feeds: Sequence[Mapping[str, Array]]
) -> Callable[[Mapping[str, Array]], Sequence[Array]]:
    """The source's answers, each computed once however often it is compared with."""
    known: dict[int, Sequence[Array]] = {}

    def answer(feed: Mapping[str, Array]) -> Sequence[Array]:
        index = next(number for number, each in enumerate(feeds) if each is feed)
        if index not in known:
            known[index] = context.source.run(feed)
        return known[index]

    return answer


def _export(context: PassContext, opset: int, path: Path) -> None:
    import torch  # noqa: PLC0415  # recipes are checked without it

    specs, limits = context.inputs, context.source.max_sizes
    sizes, dims = _example(specs, limits, torch.export.Dim)
    feed = random_feed(specs, sizes, seed=0)
    example = tuple(torch.from_numpy(feed[spec.name]) for spec in specs)
    shapes = tuple({axis: dims[name] for axis, name in spec.dynamic.items()} for spec in specs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                context.source.module(), example, str(path), input_names=[spec.name for spec in specs],
                output_names=list(context.source.output_names), opset_version=opset, dynamo=True,
                dynamic_shapes=shapes, external_data=False, verbose=False,
            )  # fmt: skip
    except OSError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:600]
        raise PassError(f"torch.onnx.export cannot export the module: {words}") from error
    model = read_onnx(path)
    _strip(model)
    path.write_bytes(model.SerializeToString())


def _example(
    specs: Sequence[InputSpec], limits: Mapping[str, int], dim: Callable[..., Any]
) -> tuple[dict[str, int], dict[str, Any]]:
    """Sizes of the example by axis, and the axes as the exporter wants them."""
    sizes: dict[str, int] = {}
    dims: dict[str, Any] = {}
    for spec in specs:
        for axis, name in spec.dynamic.items():
            limit = limits.get(name, MAX_SIZE)
            usual = 2 if axis == 0 else EXAMPLE_SIZE if name == "length" else EXAMPLE_OTHER_SIZE
            sizes[name] = min(usual, limit)
            # The exporter turns an axis of size 1 into a constant, but for the batch axis.
            dims[name] = dim(name, min=1 if axis == 0 else 2, max=limit)
    return sizes, dims


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes beside the graph: stack traces with paths, which make equal models differ."""
    del model.graph.metadata_props[:]
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
