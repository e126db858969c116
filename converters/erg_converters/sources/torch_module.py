"""A PyTorch module that a factory of the recipe builds, with weights from safetensors or a checkpoint of tensors."""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from erg_converters.errors import ConversionError, SourceError, TrustError
from erg_converters.locations import find, find_function
from erg_converters.settings import SourceSettings
from erg_converters.sources.base import Array, Feed, InputSpec, random_feed

_EXAMPLE_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSource:
    """A module in evaluation mode, taking `inputs` in order and returning a tensor or a sequence of tensors."""

    kind: str
    location: str
    license: str
    network: torch.nn.Module
    inputs: tuple[InputSpec, ...]
    output_names: tuple[str, ...]
    max_sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def digest(self) -> str:
        """Of the weights, the structure, and the code of the modules that are not PyTorch's own."""
        digest = hashlib.sha256(repr(self.network).encode())
        for file in _code_of(self.network):
            digest.update(file.read_bytes())
        for name, tensor in [*self.network.named_parameters(), *self.network.named_buffers()]:
            array = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs, in the order of the module's arguments."""
        return self.inputs

    def file(self) -> Path | None:
        """None: there is a module to export."""
        return None

    def module(self) -> torch.nn.Module:
        """The module, in evaluation mode."""
        # Again each time: some exporters leave a module in training mode, and dropout then looks like a wrong export.
        return self.network.eval()

    def run(self, feed: Feed) -> list[Array]:
        """PyTorch's answer."""
        # Copied: PyTorch warns of arrays that it may not write to.
        arguments = [torch.from_numpy(np.array(feed[spec.name])) for spec in self.inputs]
        with torch.no_grad():
            return [tensor.numpy() for tensor in outputs_of(self.network.eval()(*arguments))]


def outputs_of(result: Any) -> Sequence[torch.Tensor]:
    """A module's result as tensors; raises SourceError where it is anything but a tensor or a sequence of them."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, list | tuple) and result and all(isinstance(item, torch.Tensor) for item in result):
        return list(result)
    raise SourceError(
        f"the module returns a {type(result).__name__}; let the factory wrap it in a module that returns a tensor or a "
        "tuple of tensors"
    )


def load_torch(settings: SourceSettings, inputs: tuple[InputSpec, ...], base: Path, *, trust: bool) -> TorchSource:
    """Build the module, load its weights and try it once.

    Raises:
        TrustError: `weights` is a pickle of more than tensors, and `trust` is not given.
        SourceError: the factory fails, the weights do not fit, or the module does not take `inputs`.
    """
    network = _build(settings, base, trust=trust)
    if settings.factory and settings.weights:
        _load_weights(network, _read_weights(find(settings.weights, base), trust=trust), settings.weights)
    source = TorchSource(
        kind="torch",
        location=settings.weights or settings.path or settings.factory,
        license=settings.license,
        network=network.eval().requires_grad_(requires_grad=False),
        inputs=inputs,
        output_names=(),
    )
    sizes = {axis: _EXAMPLE_SIZE for spec in inputs for axis in spec.dynamic.values()} | {"batch": 2}
    try:
        answers = source.run(random_feed(inputs, sizes, seed=0))
    except SourceError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{spec.name} {spec.datatype} {list(spec.dims)}" for spec in inputs)
        raise SourceError(f"the module does not run on the recipe's inputs ({shapes}): {error}") from error
    names = ("output",) if len(answers) == 1 else tuple(f"output_{index}" for index in range(len(answers)))
    return TorchSource(
        kind=source.kind, location=source.location, license=source.license, network=source.network, inputs=inputs,
        output_names=names,
    )  # fmt: skip


def _build(settings: SourceSettings, base: Path, *, trust: bool) -> torch.nn.Module:
    if not settings.factory:
        loaded = _read_weights(find(settings.weights, base), trust=trust)
        if not isinstance(loaded, torch.nn.Module):
            raise SourceError(f"{settings.weights} holds weights and no module: state source.factory, which builds it")
        return loaded
    factory = find_function(settings.factory, base, "source.factory", SourceError)
    arguments = [find(settings.path, base)] if settings.path else []
    if arguments and not _takes_argument(factory):
        raise SourceError(f"source.factory = '{settings.factory}' takes no argument: leave source.path out")
    try:
        network = factory(*arguments)
    except ConversionError:
        raise
    except Exception as error:
        raise SourceError(f"source.factory = '{settings.factory}' failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, torch.nn.Module):
        raise SourceError(f"source.factory = '{settings.factory}' returned a {type(network).__name__}, no torch module")
    return network


def _takes_argument(factory: Callable[..., Any]) -> bool:
    try:
        inspect.signature(factory).bind("checkpoint")
    except TypeError:
        return False
    return True


def _read_weights(path: Path, *, trust: bool) -> Any:
    if not path.is_file():
        raise SourceError(f"source.weights: there is no file {path}")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise SourceError(f"{path} is no safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise TrustError(
                f"{path} is a pickle of more than tensors, and loading it runs whatever code is inside. Save its "
                "state_dict as safetensors; or, if you trust whoever made it, run again with --trust"
            ) from error
    except Exception as error:
        raise SourceError(f"{path} is no checkpoint that PyTorch reads: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise SourceError(f"{path} does not load: {type(error).__name__}: {error}") from error


def _load_weights(network: torch.nn.Module, loaded: Any, name: str) -> None:
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise SourceError(f"{name} holds a {type(loaded).__name__}, no state dict")
    try:
        network.load_state_dict(loaded, strict=True)
    except (RuntimeError, TypeError) as error:
        raise SourceError(f"{name} does not fit the factory's module: {' '.join(str(error).split())[:400]}") from error


def _code_of(network: torch.nn.Module) -> list[Path]:
    """The files that define the network's classes, PyTorch's own left out: its version is part of the cache's key."""
    files: set[Path] = set()
    for kind in {type(module) for module in network.modules()}:
        if not kind.__module__.startswith("torch."):
            try:
                files.add(Path(inspect.getfile(kind)))
            except (OSError, TypeError):
                continue
    return sorted(file for file in files if file.is_file())
