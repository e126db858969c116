"""Backends by name. Erg's own and third parties' register alike, under the entry-point group `erg.backends`."""

from __future__ import annotations

from importlib.metadata import entry_points

from erg_server.backends.base import Backend
from erg_server.errors import InvalidArgumentError, UnimplementedError
from erg_server.repository.installed import BACKEND_GROUP

_INSTALL = {"onnxruntime": "pip install 'erg[cpu]' (or 'erg[gpu]' for CUDA)", "openvino": "pip install 'erg[openvino]'"}


def backend_names() -> tuple[str, ...]:
    """The names that a configuration's `backend` may have here."""
    return tuple(sorted({point.name for point in entry_points(group=BACKEND_GROUP)}))


def create_backend(name: str) -> Backend:
    """A new backend; imported only now, so that a library nobody uses costs nothing.

    Raises:
        InvalidArgumentError: no backend of that name is installed.
        UnimplementedError: it is, and the library it runs on is not.
    """
    for point in entry_points(group=BACKEND_GROUP, name=name):
        try:
            backend: Backend = point.load()()
        except ImportError as error:
            raise UnimplementedError(
                f"backend '{name}' needs {error.name or error}, which is not installed"
                f"{f': {_INSTALL[name]}' if name in _INSTALL else ''}"
            ) from error
        return backend
    raise InvalidArgumentError(f"no backend is called '{name}'; installed are {', '.join(backend_names())}")
