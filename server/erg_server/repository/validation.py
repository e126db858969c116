"""Finds the combinations in a completed configuration that no server could honour, and settings without effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain

from erg_server.errors import InvalidArgumentError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.autocomplete import PLATFORMS
from erg_server.repository.config import ConfigDocument
from erg_server.repository.layout import check_relative
from erg_server.repository.objective_validation import check_objective
from erg_server.repository.padding_validation import check_padding
from erg_server.repository.problem import Problem, did_you_mean

_Check = Callable[[ConfigDocument], Iterator[Problem]]


def validate(document: ConfigDocument, name: str, backends: Collection[str] | None = None) -> list[Problem]:
    """Everything wrong with the completed configuration of model `name`, errors and warnings.

    `backends` are those installed; None to accept any.
    """
    problems = [*_check_name(document, name), *_check_backend(document, backends)]
    return problems + list(chain.from_iterable(check(document) for check in _CHECKS))


def _check_name(document: ConfigDocument, name: str) -> Iterator[Problem]:
    if document.config.name != name:
        message = f"the model's folder is called '{name}'"
        yield document.problem("name", message, f"use '{name}', or leave the key out")


def _check_backend(document: ConfigDocument, backends: Collection[str] | None) -> Iterator[Problem]:
    config = document.config
    if config.platform == "ensemble" or config.WhichOneof("scheduling_choice") == "ensemble_scheduling":
        return  # named by its scheduling
    if config.platform and config.platform not in PLATFORMS and document.gives("platform"):
        yield document.problem("platform", f"unknown platform '{config.platform}'", f"allowed: {', '.join(PLATFORMS)}")
    expected = PLATFORMS.get(config.platform)
    if expected is not None and config.backend != expected:
        yield document.problem("backend", f"platform '{config.platform}' is run by backend '{expected}'")
    if not config.backend:
        message = "no backend is named, and no file of the version tells which it is"
        yield document.problem("backend", message, "name one, or add a version with a model.onnx")
    elif backends is not None and config.backend not in backends:
        yield document.problem(
            "backend", f"no backend '{config.backend}' is installed", did_you_mean(config.backend, sorted(backends))
        )


def _check_unsupported(document: ConfigDocument) -> Iterator[Problem]:
    config = document.config
    scheduling = config.WhichOneof("scheduling_choice")
    if scheduling == "sequence_batching":
        yield document.problem(scheduling, "Erg does not serve sequences yet", "keep such a model on Triton")
    if scheduling == "ensemble_scheduling" or config.platform == "ensemble":
        yield document.problem("ensemble_scheduling", "Erg does not serve ensembles yet", "serve the steps as models")
    for key in ("batch_input", "batch_output"):
        if len(getattr(config, key)) > 0:
            yield document.problem(
                f"{key}[0]", "Erg computes no batch tensors", "see erg.padding for requests of any length"
            )
    if config.model_repository_agents.agents:
        yield document.problem(
            "model_repository_agents", "Erg runs no repository agents", "manifest.json holds digests"
        )
    for key, given in (
        ("response_cache.enable", config.response_cache.enable),
        ("cc_model_filenames", len(config.cc_model_filenames) > 0),
        ("model_metrics", len(config.model_metrics.metric_control) > 0),
        ("runtime", bool(config.runtime)),
    ):
        if given:
            yield document.problem(key, "has no effect in Erg", severity="warning")


def _check_tensors(document: ConfigDocument) -> Iterator[Problem]:
    config = document.config
    sides: dict[str, Sequence[pb.ModelInput | pb.ModelOutput]] = {"input": config.input, "output": config.output}
    for side, tensors in sides.items():
        scheduled = config.WhichOneof("scheduling_choice") == "ensemble_scheduling"
        if not tensors and not scheduled:
            yield document.problem(side, f"the model has no {side}", "list them, or add a version that tells")
        seen: set[str] = set()
        for index, tensor in enumerate(tensors):
            key = f"{side}[{index}]"
            if not tensor.name:
                yield document.problem(key, "has no name")
            elif tensor.name in seen:
                yield document.problem(f"{key}.name", f"there is another {side} '{tensor.name}'")
            seen.add(tensor.name)
            yield from _check_tensor(document, key, tensor)


def _check_tensor(document: ConfigDocument, key: str, tensor: pb.ModelInput | pb.ModelOutput) -> Iterator[Problem]:
    config = document.config
    if tensor.data_type == pb.TYPE_INVALID:
        yield document.problem(f"{key}.data_type", "has no data type", "name one of TYPE_FP32, TYPE_INT64, …")
    for axis, size in enumerate(tensor.dims):
        if size < 1 and size != -1:
            yield document.problem(f"{key}.dims[{axis}]", f"{size} is no length", "use -1 for any length")
    if tensor.HasField("reshape"):
        yield from _check_reshape(document, key, tensor)
    elif not tensor.dims and config.max_batch_size > 0:
        yield document.problem(f"{key}.dims", "has no dims", "use dims: [ 1 ] with reshape { shape: [ ] } for scalars")
    if tensor.is_shape_tensor and config.backend != "tensorrt":
        yield document.problem(f"{key}.is_shape_tensor", "only TensorRT has shape tensors")
    if isinstance(tensor, pb.ModelOutput):
        if tensor.label_filename:
            yield from _check_path(document, f"{key}.label_filename", tensor.label_filename)
        return
    if tensor.allow_ragged_batch:
        hint = "describe the axis in erg.padding instead"
        yield document.problem(f"{key}.allow_ragged_batch", "Erg joins no ragged batches", hint)
    if tensor.format != pb.ModelInput.FORMAT_NONE and len(tensor.dims) != 3:
        yield document.problem(f"{key}.format", "only a tensor of 3 dims has an image format")


def _check_reshape(document: ConfigDocument, key: str, tensor: pb.ModelInput | pb.ModelOutput) -> Iterator[Problem]:
    """A reshape keeps the number of elements: the same open axes in turn, the same product between them."""
    shape = tensor.reshape.shape
    if any(size < 1 and size != -1 for size in shape):
        yield document.problem(f"{key}.reshape.shape", "has a length that is neither positive nor -1")
    elif _products(shape) != _products(tensor.dims):
        message = f"{list(shape)} does not hold as many elements as dims {list(tensor.dims)}"
        yield document.problem(f"{key}.reshape.shape", message)


def _products(dims: Sequence[int]) -> list[int]:
    products = [1]
    for size in dims:
        if size == -1:
            products.append(1)
        else:
            products[-1] *= size
    return products


def _check_batching(document: ConfigDocument) -> Iterator[Problem]:
    config = document.config
    if config.max_batch_size < 0:
        yield document.problem("max_batch_size", f"{config.max_batch_size} is negative", "use 0 for no batching")
    if config.WhichOneof("scheduling_choice") != "dynamic_batching":
        return
    batching = config.dynamic_batching
    for index, size in enumerate(batching.preferred_batch_size):
        if not 1 <= size <= max(1, config.max_batch_size):
            key = f"dynamic_batching.preferred_batch_size[{index}]"
            yield document.problem(key, f"{size} is not between 1 and max_batch_size, {config.max_batch_size}")
    if batching.max_queue_delay_microseconds and config.max_batch_size <= 1:
        message = f"has no effect with max_batch_size {config.max_batch_size}"
        yield document.problem("dynamic_batching.max_queue_delay_microseconds", message, severity="warning")
    yield from _check_priorities(document)


def _check_priorities(document: ConfigDocument) -> Iterator[Problem]:
    batching = document.config.dynamic_batching
    levels = batching.priority_levels
    default = batching.default_priority_level
    if levels and not 1 <= default <= levels:
        message = f"{default} is not one of the levels 1 to {levels}"
        yield document.problem("dynamic_batching.default_priority_level", message, "name the ordinary level")
    if default and not levels:
        yield document.problem("dynamic_batching.default_priority_level", "there are no levels", "set priority_levels")
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            key = f"dynamic_batching.priority_queue_policy.{level}"
            yield document.problem(key, f"{level} is not one of the {levels} levels")
    if batching.preserve_ordering and levels > 1:
        message = "priorities change the order that this would preserve"
        yield document.problem("dynamic_batching.preserve_ordering", message, "give up one of them")


def _check_instances(document: ConfigDocument) -> Iterator[Problem]:
    groups = document.config.instance_group
    for index, group in enumerate(groups):
        key = f"instance_group[{index}]"
        if group.count < 0:
            yield document.problem(f"{key}.count", f"{group.count} is negative")
        if group.gpus and group.kind == pb.ModelInstanceGroup.KIND_CPU:
            yield document.problem(f"{key}.gpus", "instances of KIND_CPU use no GPU", "leave the key out")
        if any(gpu < 0 for gpu in group.gpus):
            yield document.problem(f"{key}.gpus", "a GPU's index is not negative")
        if group.kind != groups[0].kind:
            message = "all instances of one model are of one kind"
            yield document.problem(f"{key}.kind", message, "publish a second model for the other kind")
        for ignored in ("passive", "rate_limiter", "secondary_devices", "host_policy", "profile"):
            if document.gives(f"{key}.{ignored}"):
                yield document.problem(f"{key}.{ignored}", "has no effect in Erg", severity="warning")


def _check_sharing(document: ConfigDocument) -> Iterator[Problem]:
    """A weight is a share: zero would starve the model, and no number is no share."""
    weight = document.config.erg.weight
    if document.gives("erg.weight") and not 0 < weight < math.inf:
        yield document.problem(
            "erg.weight", f"{weight:g} is no share", "use a number above 0; 1 is every model's default"
        )


def _check_versions(document: ConfigDocument) -> Iterator[Problem]:
    policy = document.config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific" and not policy.specific.versions:
        yield document.problem("version_policy.specific.versions", "names no version")
    for index, version in enumerate(policy.specific.versions):
        if version < 1:
            yield document.problem(f"version_policy.specific.versions[{index}]", f"{version} is no version")


def _check_files(document: ConfigDocument) -> Iterator[Problem]:
    filename = document.config.default_model_filename
    if filename:
        yield from _check_path(document, "default_model_filename", filename)
    for index, library in enumerate(document.config.model_operations.op_library_filename):
        yield from _check_path(document, f"model_operations.op_library_filename[{index}]", library)


def _check_path(document: ConfigDocument, key: str, path: str) -> Iterator[Problem]:
    try:
        check_relative(path)
    except InvalidArgumentError as error:
        yield document.problem(key, error.message)


def _check_warmup(document: ConfigDocument) -> Iterator[Problem]:
    config = document.config
    inputs = {tensor.name: tensor for tensor in config.input}
    for index, sample in enumerate(config.model_warmup):
        key = f"model_warmup[{index}]"
        if not sample.name:
            yield document.problem(key, "has no name")
        if sample.batch_size > max(0, config.max_batch_size):
            message = f"{sample.batch_size} is more than max_batch_size, {config.max_batch_size}"
            yield document.problem(f"{key}.batch_size", message)
        for name in sorted(inputs.keys() - sample.inputs.keys()):
            if not inputs[name].optional:
                yield document.problem(f"{key}.inputs", f"input '{name}' is missing")
        for name, entry in sorted(sample.inputs.items()):
            here = f"{key}.inputs.{name}"
            if name not in inputs:
                yield document.problem(here, f"the model has no input '{name}'", did_you_mean(name, list(inputs)))
            elif entry.data_type != inputs[name].data_type:
                wanted = pb.DataType.Name(inputs[name].data_type)
                yield document.problem(f"{here}.data_type", f"the input is {wanted}", f"use {wanted}")
            elif any(size < 0 for size in entry.dims):
                yield document.problem(f"{here}.dims", "a sample has no open axis", "name the lengths to run")
            if entry.WhichOneof("input_data_type") is None:
                yield document.problem(here, "has no contents", "add zero_data, random_data or input_data_file")
            if entry.input_data_file:
                yield from _check_path(document, f"{here}.input_data_file", entry.input_data_file)


_CHECKS: tuple[_Check, ...] = (
    _check_unsupported,
    _check_tensors,
    _check_batching,
    _check_instances,
    _check_sharing,
    _check_versions,
    _check_files,
    _check_warmup,
    check_padding,
    check_objective,
)
