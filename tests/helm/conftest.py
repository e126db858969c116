from __future__ import annotations

import pytest

from tests.helm.chart import example_names


@pytest.fixture(params=["defaults", *example_names()])
def example_name(request: pytest.FixtureRequest) -> str:
    """The defaults and each example in turn."""
    name: str = request.param
    return name
