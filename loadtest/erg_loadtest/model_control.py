"""Changes the configuration of a served model by the load call, and puts back what was in the repository."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from erg_server.pb import inference_pb2
from google.protobuf import json_format

from erg_loadtest.client import InferClient, Target, describe_error
from erg_loadtest.errors import ServerError
from erg_loadtest.sweep import with_changes

_CONNECTIONS = 1
_HINT = " (a sweep over --config needs a server in explicit mode: --model-control-mode explicit)"


class ModelControl:
    """One server's models; a server must be in explicit mode (`--model-control-mode explicit`)."""

    def __init__(self, target: Target) -> None:
        self._target = Target(url=target.url, connections=_CONNECTIONS, timeout_s=target.timeout_s)
        self._originals: dict[str, dict[str, Any]] = {}

    def change(self, model: str, changes: Sequence[tuple[str, str]]) -> None:
        """Load the model with changes to the configuration in its repository; raises ServerError, PlanError."""
        asyncio.run(self._change(model, changes))

    def restore(self) -> None:
        """Load every model that was changed as its repository has it; raises ServerError."""
        for model in list(self._originals):
            asyncio.run(self._load(model, None))
            del self._originals[model]

    async def _change(self, model: str, changes: Sequence[tuple[str, str]]) -> None:
        original = self._originals.get(model) or await self._config(model)
        await self._load(model, json.dumps(with_changes(original, changes)))
        # Only now: a load that the server refused left the model as it was.
        self._originals[model] = original

    async def _config(self, model: str) -> dict[str, Any]:
        async with InferClient(self._target) as client:
            try:
                answer = await client.ask(
                    "ModelConfig",
                    inference_pb2.ModelConfigRequest(name=model),
                    inference_pb2.ModelConfigResponse.FromString,
                )
            except grpc.aio.AioRpcError as error:
                raise ServerError(f"{self._target.url}: configuration of '{model}': {describe_error(error)}") from None
        return json_format.MessageToDict(answer.config, preserving_proto_field_name=True)

    async def _load(self, model: str, config: str | None) -> None:
        request = inference_pb2.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            request.parameters["config"].string_param = config
        async with InferClient(self._target) as client:
            try:
                await client.ask(
                    "RepositoryModelLoad", request, inference_pb2.RepositoryModelLoadResponse.FromString
                )  # fmt: skip
            except grpc.aio.AioRpcError as error:
                hint = "" if error.code() is grpc.StatusCode.INVALID_ARGUMENT else _HINT
                raise ServerError(f"{self._target.url}: loading '{model}': {describe_error(error)}{hint}") from None
