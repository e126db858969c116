"""How the benchmark calls a server: gRPC for v2, plain HTTP for Mosec, behind one interface."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import numpy as np
from bench.published.grpc_client import LoadClient
from bench.published.http_client import HttpClient
from bench.published.models import BenchModel, grpc_payloads, raw_bodies
from erg_loadtest.client import SERVICE
from erg_loadtest.dispatch import Send
from erg_loadtest.errors import ServerError
from erg_loadtest.tensors import Array
from erg_server.pb import inference_pb2

TIMEOUT_S = 120
_CONNECTIONS = 2
"""As `erg load` has by default."""


class Client(Protocol):
    """Sends the prepared requests of one model. An async context manager."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def sender(self) -> Send:
        """For `dispatch.drive`."""
        ...

    async def output(self, index: int) -> Array:
        """The answer's values, of one row without the batch axis; raises ServerError."""
        ...


class GrpcClient:
    """For any v2 server."""

    def __init__(self, url: str, model: BenchModel) -> None:
        host, _, port = url.rpartition(":")
        self._client = LoadClient(
            host,
            int(port),
            method=f"/{SERVICE}/ModelInfer",
            messages=tuple(payload.body for payload in grpc_payloads(model)),
            connections=_CONNECTIONS,
            timeout_s=TIMEOUT_S,
        )
        self._model = model

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def sender(self) -> Send:
        """Over two connections, as `erg load` sends."""
        return self._client.sender()

    async def output(self, index: int) -> Array:
        """The output that is compared, by its name."""
        answer = inference_pb2.ModelInferResponse.FromString(await self._client.ask(index))
        names = [output.name for output in answer.outputs]
        if self._model.output not in names or not answer.raw_output_contents:
            raise ServerError(
                f"the answer has {', '.join(names) or 'no outputs'} instead of raw '{self._model.output}'"
            )
        return _fp32(answer.raw_output_contents[names.index(self._model.output)], self._model)


class MosecClient:
    """For Mosec's one route."""

    def __init__(self, host: str, port: int, model: BenchModel) -> None:
        bodies = raw_bodies(model)
        self._client = HttpClient(host, port, path="/inference", bodies=bodies)
        self._model = model

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def sender(self) -> Send:
        """One connection a request in flight."""
        return self._client.sender()

    async def output(self, index: int) -> Array:
        """The body is the output."""
        answer = await self._client.ask(index)
        if answer.status != 200:
            raise ServerError(f"status {answer.status}: {answer.body[:200].decode(errors='replace')}")
        return _fp32(answer.body, self._model)


def _fp32(values: bytes, model: BenchModel) -> Array:
    wanted = 4 * int(np.prod(model.output_shape))
    if len(values) != wanted:
        raise ServerError(f"'{model.output}' has {len(values)} bytes in an answer of one row, not {wanted}")
    return np.frombuffer(values, dtype="<f4").reshape(model.output_shape)
