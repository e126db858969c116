from __future__ import annotations

from pathlib import Path

from erg_server.build import build_kind
from erg_server.scheduling import batcher


def test_the_build_is_what_the_modules_of_the_request_path_are() -> None:
    assert build_kind() == ("plain Python" if Path(batcher.__file__).suffix == ".py" else "compiled")
