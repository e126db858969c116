"""Small builders of the frozen specifications that the scheduling tests vary."""

from __future__ import annotations

from typing import Any

from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import BatchingPolicy, ModelSpec, QueuePolicy
from google.protobuf import text_format

DEFAULT_QUEUE_POLICY = QueuePolicy(
    timeout_action="REJECT", default_timeout_us=0, allow_timeout_override=False, max_queue_size=0
)


def batching_policy(**changes: Any) -> BatchingPolicy:
    values: dict[str, Any] = {
        "preferred_batch_sizes": (),
        "max_queue_delay_us": 0,
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority": 0,
        "default_queue_policy": DEFAULT_QUEUE_POLICY,
        "priority_queue_policies": {},
    }
    return BatchingPolicy(**(values | changes))


def model_spec(text: str) -> ModelSpec:
    """The specification of a config.pbtxt."""
    return ModelSpec.from_config(text_format.Parse(text, ModelConfig()))


ECHO = """
name: "echo" backend: "identity" max_batch_size: 8
input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }
"""
