"""Which backends are here: registered by a package, and with the library that they run on. Imports none of them."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec

BACKEND_GROUP = "erg.backends"

LIBRARIES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}
"""What Erg's own backends import. They are registered with Erg itself, their libraries come by its extras."""


def installed_backends() -> frozenset[str]:
    """The names that packages here register, which a configuration's `backend` may have."""
    return frozenset(point.name for point in entry_points(group=BACKEND_GROUP))


def usable_backends() -> frozenset[str]:
    """Those of them whose library is there too."""
    return frozenset(
        name for name in installed_backends() if name not in LIBRARIES or find_spec(LIBRARIES[name]) is not None
    )
