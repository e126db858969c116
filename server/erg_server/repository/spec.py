"""What a completed model configuration means, as plain frozen values that the hot path can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Self

from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.pb import model_config_pb2 as pb

TimeoutAction = Literal["REJECT", "DELAY"]
InstanceKind = Literal["AUTO", "CPU", "GPU", "MODEL"]

DEFAULT_BUCKET_STEP: Final = 16
"""Lengths 1-16 share a batch, 17-32 the next: wide enough to fill batches, narrow enough that padding stays small."""

PRECISION_PARAMETER: Final = "INFERENCE_PRECISION_HINT"
"""The parameter that tells a backend what to run floating-point operations in: f32, bf16 or f16. OpenVINO's name."""

_INSTANCE_KINDS: Mapping[int, InstanceKind] = {
    pb.ModelInstanceGroup.KIND_AUTO: "AUTO",
    pb.ModelInstanceGroup.KIND_CPU: "CPU",
    pb.ModelInstanceGroup.KIND_GPU: "GPU",
    pb.ModelInstanceGroup.KIND_MODEL: "MODEL",
}


def datatype_from_config(value: int) -> DataType:
    """The protocol's datatype of a configuration's TYPE_…; raises InvalidArgumentError for TYPE_INVALID."""
    name = pb.DataType.Name(pb.DataType.ValueType(value)).removeprefix("TYPE_")
    return DataType.BYTES if name == "STRING" else DataType.parse(name)


def datatype_to_config(datatype: DataType) -> pb.DataType.ValueType:
    """The configuration's TYPE_… of a protocol datatype."""
    return pb.DataType.Value("TYPE_STRING" if datatype is DataType.BYTES else f"TYPE_{datatype.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output. `dims` leaves out the batch axis of a batching model; -1 is any length.

    `reshape` is what the model itself takes instead of `dims` (() for a scalar), or None. `label_filename` is relative
    to the model's folder, "" for none.
    """

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    optional: bool = False
    reshape: tuple[int, ...] | None = None
    label_filename: str = ""

    @classmethod
    def from_config(cls, tensor: pb.ModelInput | pb.ModelOutput) -> Self:
        """Read one entry of `input` or `output`."""
        return cls(
            name=tensor.name,
            datatype=datatype_from_config(tensor.data_type),
            dims=tuple(tensor.dims),
            optional=isinstance(tensor, pb.ModelInput) and tensor.optional,
            reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
            label_filename=tensor.label_filename if isinstance(tensor, pb.ModelOutput) else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """What bounds a queue. 0 stands for no timeout, and for the server's own bound of the size."""

    timeout_action: TimeoutAction = "REJECT"
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0

    @classmethod
    def from_config(cls, policy: pb.ModelQueuePolicy) -> Self:
        """Read one queue policy."""
        return cls(
            timeout_action="DELAY" if policy.timeout_action == pb.ModelQueuePolicy.DELAY else "REJECT",
            default_timeout_us=policy.default_timeout_microseconds,
            allow_timeout_override=policy.allow_timeout_override,
            max_queue_size=policy.max_queue_size,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingPolicy:
    """How requests are joined. Priority levels run from 1, the most urgent; 0 levels stands for no priorities."""

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority: int = 0
    default_queue_policy: QueuePolicy = field(default_factory=QueuePolicy)
    priority_queue_policies: Mapping[int, QueuePolicy] = field(default_factory=lambda: MappingProxyType({}))

    def policy(self, level: int) -> QueuePolicy:
        """The queue policy of one priority level."""
        return self.priority_queue_policies.get(level, self.default_queue_policy)

    @classmethod
    def from_config(cls, batching: pb.ModelDynamicBatching) -> Self:
        """Read `dynamic_batching`."""
        levels = {level: QueuePolicy.from_config(policy) for level, policy in batching.priority_queue_policy.items()}
        return cls(
            preferred_batch_sizes=tuple(sorted(set(batching.preferred_batch_size))),
            max_queue_delay_us=batching.max_queue_delay_microseconds,
            preserve_ordering=batching.preserve_ordering,
            priority_levels=batching.priority_levels,
            default_priority=batching.default_priority_level,
            default_queue_policy=QueuePolicy.from_config(batching.default_queue_policy),
            priority_queue_policies=MappingProxyType(levels),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedInput:
    """An input with an axis (of the tensor as sent) that may be filled up with `value`.

    A `mask` is 1 at real places and 0 at filled ones; where a request leaves it out, the server makes it.
    """

    name: str
    axis: int
    value: float = 0.0
    mask: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedOutput:
    """An output whose axis (of the tensor as sent) is cut back to the request's own length."""

    name: str
    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingRule:
    """How requests of different length share a batch. `max_batch_elements`, if any, bounds rows times length."""

    inputs: tuple[PaddedInput, ...]
    outputs: tuple[PaddedOutput, ...] = ()
    bucket_step: int = DEFAULT_BUCKET_STEP
    max_batch_elements: int = 0

    @classmethod
    def from_config(cls, padding: pb.Padding) -> Self:
        """Read `erg.padding`."""
        return cls(
            inputs=tuple(
                PaddedInput(name=each.name, axis=each.axis, value=each.value, mask=each.mask) for each in padding.input
            ),
            outputs=tuple(PaddedOutput(name=each.name, axis=each.axis) for each in padding.output),
            bucket_step=padding.bucket_step or DEFAULT_BUCKET_STEP,
            max_batch_elements=padding.max_batch_elements,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupInput:
    """One input of a warm-up request; `dims` leaves out the batch axis.

    Filled from `data_file`, which lies in the model's `warmup` folder, where one is named; at `random`, or with zeros.
    """

    datatype: DataType
    dims: tuple[int, ...]
    random: bool = False
    data_file: str = ""

    @classmethod
    def from_config(cls, entry: pb.ModelWarmup.Input) -> Self:
        """Read one input of a warm-up request."""
        return cls(
            datatype=datatype_from_config(entry.data_type),
            dims=tuple(entry.dims),
            random=entry.random_data,
            data_file=entry.input_data_file,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupSpec:
    """A request run `count` times on a new instance; `batch_size` 0 stands for tensors without a batch axis."""

    name: str
    inputs: Mapping[str, WarmupInput]
    batch_size: int = 0
    count: int = 1

    @classmethod
    def from_config(cls, warmup: pb.ModelWarmup) -> Self:
        """Read one entry of `model_warmup`."""
        inputs = {name: WarmupInput.from_config(each) for name, each in sorted(warmup.inputs.items())}
        return cls(
            name=warmup.name,
            inputs=MappingProxyType(inputs),
            batch_size=warmup.batch_size,
            count=warmup.count or 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGroup:
    """Instances that a model asks for: `count` on each device, 0 for the server's own choice.

    The devices are the GPUs with the indices `gpus`, () for all of them, or the cores of this machine, which are one.
    """

    kind: InstanceKind
    count: int = 0
    gpus: tuple[int, ...] = ()

    @classmethod
    def from_config(cls, group: pb.ModelInstanceGroup) -> Self:
        """Read one entry of `instance_group`."""
        return cls(kind=_INSTANCE_KINDS[group.kind], count=group.count, gpus=tuple(sorted(set(group.gpus))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model's completed configuration.

    `max_batch_size` is 0 for a model whose tensors have no batch axis of ours. `batching` is None where the server
    joins no requests. `batch_limit` caps the rows of a batch that it forms, not those of a request; 0 for no other cap
    than `max_batch_size`. `instance_groups` are all of one kind, and none where the server places the model as it sees
    fit. `objective_ns` is within what 99 of 100 requests are to be answered, 0 for no objective. A `pinned` model is
    never evicted; `weight` is its share of a device against the other models there.
    """

    name: str
    backend: str
    platform: str = ""
    max_batch_size: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batching: BatchingPolicy | None = None
    padding: PaddingRule | None = None
    decoupled: bool = False
    batch_limit: int = 0
    instance_groups: tuple[InstanceGroup, ...] = ()
    objective_ns: int = 0
    pinned: bool = False
    weight: float = 1.0
    default_model_filename: str = ""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warmup: tuple[WarmupSpec, ...] = ()

    @property
    def instance_kind(self) -> InstanceKind:
        """The kind of device that its instance groups ask for."""
        return self.instance_groups[0].kind if self.instance_groups else "AUTO"

    def wire_shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """The tensor's shape as callers send it: the batch axis, -1, leads when the model batches."""
        return (-1, *tensor.dims) if self.max_batch_size > 0 else tensor.dims

    def input(self, name: str) -> TensorSpec | None:
        """The input called `name`, if there is one."""
        return _named(self.inputs, name)

    def output(self, name: str) -> TensorSpec | None:
        """The output called `name`, if there is one."""
        return _named(self.outputs, name)

    @classmethod
    def from_config(cls, config: pb.ModelConfig) -> Self:
        """Read a completed and validated configuration."""
        groups = tuple(InstanceGroup.from_config(group) for group in config.instance_group)
        kinds = sorted({group.kind for group in groups})
        if len(kinds) > 1:
            raise InvalidArgumentError(f"model '{config.name}': instance groups of several kinds: {kinds}")
        scheduling = config.WhichOneof("scheduling_choice")
        return cls(
            name=config.name,
            backend=config.backend,
            platform=config.platform,
            max_batch_size=config.max_batch_size,
            inputs=tuple(TensorSpec.from_config(each) for each in config.input),
            outputs=tuple(TensorSpec.from_config(each) for each in config.output),
            batching=BatchingPolicy.from_config(config.dynamic_batching) if scheduling == "dynamic_batching" else None,
            padding=PaddingRule.from_config(config.erg.padding) if config.erg.HasField("padding") else None,
            decoupled=config.model_transaction_policy.decoupled,
            instance_groups=groups,
            objective_ns=round(config.erg.slo.p99_ms * 1e6),
            pinned=config.erg.pinned,
            weight=config.erg.weight or 1.0,
            default_model_filename=config.default_model_filename,
            parameters=MappingProxyType({key: entry.string_value for key, entry in sorted(config.parameters.items())}),
            warmup=tuple(WarmupSpec.from_config(each) for each in config.model_warmup),
        )


def _named(tensors: Iterable[TensorSpec], name: str) -> TensorSpec | None:
    return next((tensor for tensor in tensors if tensor.name == name), None)
