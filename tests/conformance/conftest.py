from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.endpoints import KINDS, Endpoint, Endpoints, running


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    with running(tmp_path_factory.mktemp("conformance")) as found:
        yield found


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{'tls' if kind[1] else 'plain'}")
def endpoint(request: pytest.FixtureRequest, endpoints: Endpoints) -> Endpoint:
    """Each server in turn."""
    kind: tuple[str, bool] = request.param
    return endpoints[kind]


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def pair(request: pytest.FixtureRequest, endpoints: Endpoints) -> tuple[Endpoint, Endpoint]:
    """Both transports of one kind: what one answers, the other must."""
    tls: bool = request.param
    return endpoints["erg", tls], endpoints["grpcio", tls]
