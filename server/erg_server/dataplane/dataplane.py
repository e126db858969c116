"""The meaning of every RPC but shared memory: inference, health, metadata, control and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from erg_server import __version__
from erg_server.clock import Clock
from erg_server.dataplane.classification import classify
from erg_server.dataplane.shared_memory import SharedMemory
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.models.registry import ModelRegistry
from erg_server.models.served_model import ServedModel
from erg_server.money.answer_cost import AnswerCosts, asked
from erg_server.pb import inference_pb2 as pb
from erg_server.repository.spec import TensorSpec
from erg_server.request import InferenceRequest, InferenceResponse
from erg_server.telemetry.logs import LogControl
from erg_server.telemetry.meter import Meter
from erg_server.telemetry.statistics import model_statistics
from erg_server.telemetry.trace import Tracer

SERVER_NAME: Final = "erg"
EXTENSIONS: Final = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
_LOG_SETTINGS: Mapping[str, tuple[str, type]] = {
    "log_file": ("file", str),
    "log_info": ("info", bool),
    "log_warning": ("warning", bool),
    "log_error": ("error", bool),
    "log_verbose_level": ("verbose_level", int),
    "log_format": ("format", str),
}


class DataPlane:
    """What a transport calls. Its messages are protobuf's, which every transport can read; tensors are not."""

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        meter: Meter,
        tracer: Tracer,
        logs: LogControl,
        memory: SharedMemory,
        clock: Clock,
        leaving: Callable[[], bool],
        strict_readiness: bool,
        trace_folder: Path = Path(),
        costs: AnswerCosts | None = None,
    ) -> None:
        self.registry = registry
        self.memory = memory
        self.clock = clock
        self._meter = meter
        self._tracer = tracer
        self._logs = logs
        self.leaving = leaving
        self._strict_readiness = strict_readiness
        self._trace_folder = trace_folder
        self._costs = costs or AnswerCosts()

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Answer one request; raises ErgError with the cause."""
        served = self.registry.resolve(request.model_name, request.model_version)
        traced = self._sampled(request)
        costed = bool(request.parameters) and asked(request.parameters)
        response = await served.infer(request)
        if request.outputs or traced or costed:
            self._complete(served, request, response, traced=traced, costed=costed)
        return response

    def submit(
        self, request: InferenceRequest, on_done: Callable[[InferenceResponse | ErgError], None]
    ) -> Callable[[], None]:
        """Start one request; `on_done` is called once, later. Returns what cancels it.

        Raises:
            ErgError: it was not accepted; `on_done` is then never called.
        """
        served = self.registry.resolve(request.model_name, request.model_version)
        traced = self._sampled(request)
        costed = bool(request.parameters) and asked(request.parameters)
        if not request.outputs and not traced and not costed:
            return served.submit(request, on_done)

        def complete(answer: InferenceResponse | ErgError) -> None:
            if not isinstance(answer, ErgError):
                try:
                    self._complete(served, request, answer, traced=traced, costed=costed)
                except ErgError as error:
                    answer = error
            on_done(answer)

        return served.submit(request, complete)

    def _sampled(self, request: InferenceRequest) -> bool:
        return self._tracer.enabled and self._tracer.sample(request.model_name)

    def _complete(
        self,
        served: ServedModel,
        request: InferenceRequest,
        response: InferenceResponse,
        *,
        traced: bool,
        costed: bool,
    ) -> None:
        if request.outputs:
            _classify(served, request, response)
        if costed:
            rows = request.inputs[0].shape[0] if served.spec.max_batch_size > 0 and request.inputs else 1
            cost = self._costs.of(response.phases, rows=rows, variant=served.variant)
            response.parameters = {**response.parameters, **cost}
        if traced:
            self._tracer.record(
                model=served.name, version=str(served.version), request_id=request.id, phases=response.phases
            )

    def live(self) -> bool:
        """Whether the server runs: it answers, so it does."""
        return True

    def ready(self) -> bool:
        """Whether the server should get requests."""
        return not self.leaving() and (not self._strict_readiness or self.registry.ready())

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a request for this version would be served now."""
        return not self.leaving() and self.registry.model_ready(name, version)

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """Name, version and extensions."""
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    def model_metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """A model's tensors as callers send them: with the batch axis of a batching model."""
        served = self.registry.resolve(name, version)

        def describe(tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
            return pb.ModelMetadataResponse.TensorMetadata(
                name=tensor.name, datatype=tensor.datatype.value, shape=served.spec.wire_shape(tensor)
            )

        return pb.ModelMetadataResponse(
            name=name,
            versions=(version,) if version else self.registry.versions(name),
            platform=served.spec.platform or served.spec.backend,
            inputs=[describe(tensor) for tensor in served.spec.inputs],
            outputs=[describe(tensor) for tensor in served.spec.outputs],
        )

    def model_config(self, name: str, version: str) -> pb.ModelConfigResponse:
        """A model's completed configuration."""
        return pb.ModelConfigResponse(config=self.registry.resolve(name, version).config)

    def model_statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """Statistics of one version, of every version of a model, or of everything that answers.

        Raises:
            NotFoundError: no such model or version.
        """
        if name:
            first = self.registry.resolve(name, version)
            numbers = [str(first.version)] if version else sorted(self.registry.versions(name), key=int)
            chosen = [self.registry.resolve(name, number) for number in numbers]
        else:
            chosen = sorted(self.registry.served(), key=lambda served: (served.name, served.version))
        return pb.ModelStatisticsResponse(model_stats=[self._statistics(served) for served in chosen])

    def repository_index(self, repository_name: str, ready: bool) -> pb.RepositoryIndexResponse:
        """Every model of the repositories and the state of its versions."""
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
                )
                for entry in self.registry.index(repository_name, ready)
            ]
        )

    async def load_model(self, request: pb.RepositoryModelLoadRequest) -> None:
        """Load or reload a model, with the configuration and files that the request carries in place of those on disk.

        Raises:
            InvalidArgumentError: a parameter is unknown or of the wrong type.
            ErgError: the model does not load; what served before still does.
        """
        config: str | None = None
        files: dict[str, bytes] = {}
        for key, value in request.parameters.items():
            kind = value.WhichOneof("parameter_choice")
            if key == "config" and kind == "string_param":
                config = value.string_param
            elif key.startswith("file:") and kind == "bytes_param":
                files[key] = value.bytes_param
            else:
                raise InvalidArgumentError(
                    f"load parameter '{key}' of type {kind} is not one of config (string), file:VERSION/PATH (bytes)"
                )
        await self.registry.load(request.model_name, config, files)

    async def unload_model(self, name: str) -> None:
        """Stop serving a model; what it accepted finishes."""
        await self.registry.unload(name)

    def trace_settings(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Change, where the request states any, and tell the trace settings, global or of one model.

        Raises:
            InvalidArgumentError: an unknown setting, a value it cannot have, or a file outside of --trace-folder.
        """
        if request.model_name:
            self.registry.resolve(request.model_name, "")
        stated = {name: tuple(value.value) for name, value in request.settings.items()}
        if stated.get("trace_file"):
            stated["trace_file"] = (self._trace_file(stated["trace_file"][0]),)
        settings = (
            self._tracer.update(stated, request.model_name) if stated else self._tracer.settings(request.model_name)
        )
        response = pb.TraceSettingResponse()
        for name, values in settings.as_wire().items():
            response.settings[name].value.extend(values)
        return response

    def log_settings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Change, where the request states any, and tell the log settings.

        Raises:
            InvalidArgumentError: an unknown setting, a value of the wrong type, or another log file: a client could
                otherwise have the server write wherever it may.
        """
        changes: dict[str, Any] = {}
        for name, value in request.settings.items():
            if name not in _LOG_SETTINGS:
                raise InvalidArgumentError(f"unknown log setting '{name}'; there are {', '.join(_LOG_SETTINGS)}")
            field, kind = _LOG_SETTINGS[name]
            choice = value.WhichOneof("parameter_choice")
            stated: Any = None if choice is None else getattr(value, choice)
            if type(stated) is not kind:
                raise InvalidArgumentError(f"log setting '{name}' takes a {kind.__name__}")
            if field == "file" and stated != self._logs.settings.file:
                raise InvalidArgumentError("log_file is the server's to choose: start it with --log-file")
            changes[field] = stated
        settings = self._logs.update(**changes) if changes else self._logs.settings
        response = pb.LogSettingsResponse()
        for name, (field, kind) in _LOG_SETTINGS.items():
            told = getattr(settings, field)
            if kind is bool:
                response.settings[name].bool_param = told
            elif kind is int:
                response.settings[name].uint32_param = told
            else:
                response.settings[name].string_param = told
        return response

    def _trace_file(self, stated: str) -> str:
        folder = self._trace_folder.resolve()
        path = (folder / stated).resolve()
        if folder not in path.parents:
            raise InvalidArgumentError(
                f"trace_file '{stated}' is not in the folder where clients may have traces written; "
                "the server's --trace-folder says which that is"
            )
        return str(path)

    def _statistics(self, served: ServedModel) -> pb.ModelStatistics:
        message = model_statistics(served.meter)
        for worker in served.workers:
            nbytes = worker.memory().models.get(served.handle)
            if nbytes:
                message.memory_usage.add(type=worker.device.kind.upper(), id=worker.device.id, byte_size=nbytes)
        return message


def _classify(served: ServedModel, request: InferenceRequest, response: InferenceResponse) -> None:
    for number, wanted in enumerate(request.outputs):
        if wanted.classification > 0:
            response.outputs[number] = classify(
                response.outputs[number],
                wanted.classification,
                served.labels.get(wanted.name, ()),
                batched=served.spec.max_batch_size > 0,
            )
