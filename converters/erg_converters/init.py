"""Looks at a model and writes a recipe that works, with comments on what to change."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from erg_server.backends.registry import backend_names
from erg_server.files import replace_text

from erg_converters.errors import RecipeError, SourceError
from erg_converters.locations import PACKAGE_PREFIX, find
from erg_converters.settings import InputSettings, PublishSettings, Recipe, SourceKind, SourceSettings
from erg_converters.sources.base import InputSpec, Source
from erg_converters.sources.load import load_source

_CHECKPOINTS = frozenset({".safetensors", ".pt", ".pth", ".bin", ".ckpt"})
_NOT_FOUND = "there is no {model}: name a transformers folder, an .onnx file, or package:NAME/INSIDE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found out about a model: its source, loaded, and whether convolutions do its work."""

    settings: SourceSettings
    source: Source
    convolutional: bool


def write_recipe(
    model: str,
    output: Path | None,
    *,
    factory: str = "",
    inputs: tuple[str, ...] = (),
    name: str = "",
    repository: str = "model_repo",
    force: bool = False,
    trust: bool = False,
) -> Path:
    """Inspect `model`, by loading it, and write a recipe for it; the path of the recipe.

    Raises:
        RecipeError: the file is there already, or an input is not NAME:TYPE:DIMS.
        SourceError: the model is not there, or does not load.
    """
    chosen = name or _name_of(model or factory)
    path = output or Path(f"{chosen}.toml")
    if path.exists() and not force:
        raise RecipeError(f"{path} is there already: name another file with -o, or write over it with --force")
    settings = _source_settings(model, factory, path)
    recipe = Recipe(
        path=path,
        sha256="",
        source=settings,
        publish=PublishSettings(repository=repository, name=chosen),
        inputs=tuple(_input(item) for item in inputs),
    )
    if settings.kind == "torch" and not recipe.inputs:
        raise RecipeError(
            "a PyTorch module does not say what it takes: add --input, as --input image:FP32:-1,3,224,224"
        )
    source = load_source(recipe, trust=trust)
    found = Found(settings=settings, source=source, convolutional=_is_convolutional(source))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, recipe_text(found, repository, chosen))
    return path


def recipe_text(found: Found, repository: str, name: str) -> str:
    """The recipe, in TOML with comments."""
    specs = found.source.input_specs()
    has_length = any(axis == "length" for spec in specs for axis in spec.axes)
    sections = [
        f"# {name}: written by `erg convert init`. `erg convert explain` says what every setting means.",
        _source_text(found),
        _inputs_text(found, specs),
        _DATA
        + (_TEXT_DATA.format(tokenizer=_toml(found.settings.path)) if found.settings.kind == "transformers" else ""),
        *_candidates(convolutional=found.convolutional),
        _GATE,
        _measure_text(specs, has_length=has_length),
        '[choose]\nrule = "cheapest"          # or "most_accurate"\nmax_drop = 0.005',
        f"[publish]\nrepository = {_toml(repository)}\nname = {_toml(name)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_DATA = """# Generated inputs, because no data was named: they show how far outputs move, and nothing about the task.
# Name real samples before you rely on a verdict: those that judge must not be those that calibrate.
[calibration]
kind = "random"            # or "npz", "jsonl", "images", "python"
samples = 64
seed = 1

[evaluation]
kind = "random"
samples = 64
seed = 0"""

_TEXT_DATA = """
# kind = "jsonl"
# path = "sentences.jsonl"   # {{"text": "..."}} a line
# tokenizer = {tokenizer}"""

_GATE = """[gate]
metric = "cosine"          # with labels "top1"; of embeddings "spearman"; of classifiers "agreement"
max_drop = 0.005           # at the far end of the interval
min_cosine = 0.99"""


def _source_text(found: Found) -> str:
    settings = found.settings
    lines = ["[source]", f"kind = {_toml(settings.kind)}"]
    lines += [
        f"{key} = {_toml(getattr(settings, key))}" for key in ("path", "factory", "weights") if getattr(settings, key)
    ]
    lines.append('license = ""               # of the model; goes into the published manifest')
    if settings.kind == "transformers":
        lines += ["", "[export]", 'task = "sentence-embedding"   # or "feature-extraction": the last hidden state']
    return "\n".join(lines)


def _inputs_text(found: Found, specs: tuple[InputSpec, ...]) -> str:
    """Stated where they have to be; else as comments, for they are read from the model."""
    tables = []
    for spec in specs:
        lines = ["[[input]]", f"name = {_toml(spec.name)}", f"datatype = {_toml(spec.datatype)}"]
        lines += [f"dims = {list(spec.dims)}", f"axes = {_toml(list(spec.axes))}"]
        tables.append("\n".join(lines))
    text = "\n\n".join(tables)
    if found.settings.kind == "torch":
        return text
    commented = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return f"# The inputs, as the model has them; state them to name their axes otherwise.\n{commented}"


def _candidates(*, convolutional: bool) -> list[str]:
    openvino = "openvino" in backend_names() and importlib.util.find_spec("openvino") is not None
    sections = []
    if openvino:
        sections.append("# Half the bits while it runs, the same file.\n" + _candidate("bf16", "openvino", "bf16"))
    if convolutional:
        static = 'pass = "quantize_static", tool = "onnxruntime"'
        sections.append(
            "# Convolutions want unsigned activations and signed weights.\n"
            + _candidate("int8", "onnxruntime", passes=static)
        )
        if openvino:
            sections.append(_candidate("int8-openvino", "openvino", passes=static))
    else:
        sections.append(
            "# Activations are quantized as they come: no calibration needed.\n"
            + _candidate("int8-dynamic", "onnxruntime", passes='pass = "quantize_dynamic"')
        )
        if openvino:
            sections.append(_candidate("int8", "openvino", passes='pass = "quantize_static", tool = "nncf"'))
    return sections


def _candidate(name: str, backend: str, precision: str = "", *, passes: str = "") -> str:
    lines = ["[[candidate]]", f"name = {_toml(name)}", f"backend = {_toml(backend)}"]
    if precision:
        lines.append(f"precision = {_toml(precision)}")
    if passes:
        lines.append(f"passes = [{{ {passes} }}]")
    return "\n".join(lines)


def _measure_text(specs: tuple[InputSpec, ...], *, has_length: bool) -> str:
    batched = all(spec.dims[0] == -1 for spec in specs)
    lines = [
        "[measure]",
        f"batch_sizes = {'[1, 8, 32]' if batched else '[1]                # the model has a fixed batch'}",
    ]
    if has_length:
        lines.append("lengths = [32, 128]")
    return "\n".join([*lines, "threads = 1"])


def _source_settings(model: str, factory: str, recipe: Path) -> SourceSettings:
    if not model and not factory:
        raise SourceError("name a MODEL, or a --factory that builds one")
    location = _from_recipe(model, recipe) if model else ""
    suffix = Path(model).suffix.lower()
    if factory:
        if suffix in _CHECKPOINTS:
            return SourceSettings(kind="torch", factory=factory, weights=location)
        return SourceSettings(kind="torch", factory=factory, path=location)
    if suffix in _CHECKPOINTS:
        raise SourceError(
            f"{model} holds weights and no architecture: add --factory MODULE:FUNCTION, which builds the module, and "
            "--input NAME:TYPE:DIMS"
        )
    there = find(location, recipe.parent).exists()
    if not there and (suffix == ".onnx" or model.startswith(PACKAGE_PREFIX) or model.count("/") != 1):
        raise SourceError(_NOT_FOUND.format(model=model))
    kind: SourceKind = "onnx" if suffix == ".onnx" else "transformers"
    return SourceSettings(kind=kind, path=location if there else model)


def _from_recipe(model: str, recipe: Path) -> str:
    """The model's place as the recipe's folder sees it."""
    if model.startswith(PACKAGE_PREFIX):
        return model
    return Path(os.path.relpath(Path(model).expanduser(), recipe.parent)).as_posix()


def _input(text: str) -> InputSettings:
    name, _, rest = text.partition(":")
    datatype, _, dims = rest.partition(":")
    try:
        sizes = tuple(int(size) for size in dims.split(","))
    except ValueError:
        raise RecipeError(f"--input is NAME:TYPE:DIMS, as image:FP32:-1,3,224,224, not {text}") from None
    if not name or not datatype or sizes[0] != -1:
        raise RecipeError(f"--input is NAME:TYPE:DIMS with a batch axis of -1, as image:FP32:-1,3,224,224, not {text}")
    return InputSettings(name=name, datatype=datatype, dims=sizes)


def _is_convolutional(source: Source) -> bool:
    file = source.file()
    if file is None:
        return any(type(module).__name__.startswith("Conv") for module in source.module().modules())
    import onnx  # noqa: PLC0415

    return any(node.op_type == "Conv" for node in onnx.load(str(file), load_external_data=False).graph.node)


def _name_of(model: str) -> str:
    """A name for a served model, after its file or folder; after the package where that is called 'model'."""
    parts = [part for part in re.split(r"[/:]", model.removeprefix(PACKAGE_PREFIX)) if part not in {"", ".", ".."}]
    parts = [Path(part).stem if Path(part).suffix.lower() in {*_CHECKPOINTS, ".onnx"} else part for part in parts]
    telling = [part for part in parts if part.lower() not in {"model", "models"}] or parts or ["model"]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", telling[-1]).strip("_-") or "model"


def _toml(value: str | list[str]) -> str:
    """A TOML string or list of strings: JSON's form, and the one character besides that TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
