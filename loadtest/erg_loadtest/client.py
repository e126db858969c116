"""A v2 gRPC client that sends prepared bytes as they are and reads nothing of an answer unless asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc
import grpc.aio
from erg_server.pb import inference_pb2, model_config_pb2

from erg_loadtest.errors import PlanError, ServerError
from erg_loadtest.payloads import Payload
from erg_loadtest.samples import OK, WRONG_ANSWER
from erg_loadtest.tensors import InputSpec, OutputSpec, Signature

SERVICE = "inference.GRPCInferenceService"
_UNLIMITED = -1
_QUESTION_TIMEOUT_S = 30.0
_ANY_BATCH_SIZE = (1 << 31) - 1

Check = Callable[[int, bytes], bool]
"""Given a prepared request's index and the serialised answer: whether they belong together."""


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server under test and how to reach it."""

    url: str = "127.0.0.1:8001"
    connections: int = 2
    timeout_s: float = 60.0
    """Each request's gRPC deadline, which servers may honour by dropping it."""

    def __post_init__(self) -> None:
        if not self.url or "/" in self.url:
            raise PlanError(f"url '{self.url}': write HOST:PORT, without a scheme")
        if self.connections < 1:
            raise PlanError(f"at least one connection is needed, not {self.connections}")
        if not self.timeout_s > 0:
            raise PlanError(f"the time-out must be positive, not {self.timeout_s} s")


class InferClient:
    """Connections to one server, used in turn. An async context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._channels: list[grpc.aio.Channel] = []
        self._infer: list[Any] = []
        self._turn = 0

    async def __aenter__(self) -> Self:
        for _ in range(self._target.connections):
            channel = grpc.aio.insecure_channel(
                self._target.url,
                options=(
                    ("grpc.max_send_message_length", _UNLIMITED),
                    ("grpc.max_receive_message_length", _UNLIMITED),
                    # Without these, all channels would share one connection, and a proxy variable would be obeyed.
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.enable_http_proxy", 0),
                ),
            )
            self._channels.append(channel)
            self._infer.append(channel.unary_unary(f"/{SERVICE}/ModelInfer", None, None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    def start(self, body: bytes) -> Any:
        """Send a serialised ModelInferRequest; the call, which may be awaited for the answer or cancelled."""
        self._turn = (self._turn + 1) % len(self._infer)
        return self._infer[self._turn](body, timeout=self._target.timeout_s)

    def sender(self, payloads: Sequence[Payload], check: Check | None = None) -> Callable[[int], Any]:
        """What `dispatch.drive` needs: sends the prepared request of an index and returns its status."""

        async def send(index: int) -> int:
            try:
                answer = await self.start(payloads[index].body)
            except grpc.aio.AioRpcError as error:
                return status_number(error)
            return OK if check is None or check(index, answer) else WRONG_ANSWER

        return send

    async def ask(self, method: str, question: _Message, answer: Callable[[bytes], _Answer]) -> _Answer:
        """Call any unary method of the service; raises AioRpcError."""
        call: Any = self._channels[0].unary_unary(f"/{SERVICE}/{method}", None, None)
        body = await call(question.SerializeToString(), timeout=_QUESTION_TIMEOUT_S)
        return answer(body)

    async def signature(self, model: str, version: str = "", *, batch_axis: bool = False) -> Signature:
        """The model's inputs, from its metadata and, where the server tells it, its configuration.

        `batch_axis` says that the first axis of every input is the batch's, for servers that tell no configuration.
        """
        try:
            metadata = await self.ask(
                "ModelMetadata",
                inference_pb2.ModelMetadataRequest(name=model, version=version),
                inference_pb2.ModelMetadataResponse.FromString,
            )
        except grpc.aio.AioRpcError as error:
            raise ServerError(f"{self._target.url}: metadata of '{model}': {describe_error(error)}") from None
        if not metadata.inputs:
            raise ServerError(
                f"{self._target.url}: the metadata of '{model}' names no inputs, so no request can be made; "
                "declare them where the model is configured"
            )
        config = await self._config(model, version)
        if config is None:
            config = model_config_pb2.ModelConfig(max_batch_size=_ANY_BATCH_SIZE if batch_axis else 0)
        optional = {entry.name for entry in config.input if entry.optional}
        return Signature(
            model=model,
            version=version,
            max_batch_size=config.max_batch_size,
            inputs=tuple(
                InputSpec(
                    name=entry.name,
                    datatype=entry.datatype,
                    shape=tuple(entry.shape),
                    optional=entry.name in optional,
                )
                for entry in metadata.inputs
            ),
            outputs=tuple(OutputSpec(name=entry.name, datatype=entry.datatype) for entry in metadata.outputs),
        )

    async def _config(self, model: str, version: str) -> model_config_pb2.ModelConfig | None:
        try:
            response = await self.ask(
                "ModelConfig",
                inference_pb2.ModelConfigRequest(name=model, version=version),
                inference_pb2.ModelConfigResponse.FromString,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                # An extension of Triton's; without it nothing says that an axis is the batch's.
                return None
            raise ServerError(f"{self._target.url}: configuration of '{model}': {describe_error(error)}") from None
        return response.config

    async def wait_ready(self, model: str, version: str, timeout_s: float) -> None:
        """Return once the server says that the model is ready; raises ServerError after the time-out."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        question = inference_pb2.ModelReadyRequest(name=model, version=version)
        reason = "not ready"
        while asyncio.get_running_loop().time() < deadline:
            try:
                answer = await self.ask("ModelReady", question, inference_pb2.ModelReadyResponse.FromString)
            except grpc.aio.AioRpcError as error:
                reason = describe_error(error)
            else:
                if answer.ready:
                    return
            await asyncio.sleep(0.05)
        raise ServerError(f"{self._target.url}: '{model}' was not ready within {timeout_s:g} s: {reason}")


def status_number(error: grpc.aio.AioRpcError) -> int:
    """The canonical number of a failed call's status."""
    return int(error.code().value[0])


def describe_error(error: grpc.aio.AioRpcError) -> str:
    """The status and what the server said."""
    return f"{error.code().name}: {error.details()}"
