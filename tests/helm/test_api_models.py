"""The reader of API clients' classes finds what an API does not know: of Kubernetes 1.20, and of KServe."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.helm.api_models import ApiModels

RUNTIME: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ClusterServingRuntime",
    "metadata": {"name": "erg", "labels": {"a": "b"}},
    "spec": {
        "protocolVersions": ["v2", "grpc-v2"],
        "supportedModelFormats": [{"name": "onnx", "version": "1", "autoSelect": True}],
        "containers": [
            {
                "name": "kserve-container",
                "image": "erg:1",
                "ports": [{"name": "h2c", "containerPort": 8001, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": 1, "memory": "1Gi"}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def models() -> ApiModels:
    return ApiModels("kubernetes", "kserve")


def test_a_runtime_of_kserve_is_one(models: ApiModels) -> None:
    assert list(models.problems(RUNTIME, "V1alpha1ClusterServingRuntime")) == []


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (("spec", "protocolVersion"), ["v2"], ".spec.protocolVersion: V1alpha1ServingRuntimeSpec has no such field"),
        (("spec", "protocolVersions"), "v2", ".spec.protocolVersions: 'v2' is no list"),
        (("spec", "multiModel"), "yes", ".spec.multiModel: 'yes' is no bool"),
        (("spec", "replicas"), True, ".spec.replicas: True is no int"),
        (("spec", "containers"), None, ".spec.containers: V1alpha1ServingRuntimeSpec needs it"),
        (("spec", "supportedModelFormats", 0, "autoSelect"), 1, "supportedModelFormats[0].autoSelect: 1 is no bool"),
        (("metadata", "labels"), ["a"], ".metadata.labels: ['a'] is no map"),
        (("spec", "containers", 0, "lifecycle"), {"preStop": {"sleep": {}}}, "sleep: V1Handler has no such field"),
    ],
)  # fmt: skip
def test_what_the_api_does_not_know_is_told_with_its_place(
    models: ApiModels, where: tuple[Any, ...], value: Any, problem: str
) -> None:
    bad = copy.deepcopy(RUNTIME)
    *above, last = where
    inner: Any = bad
    for key in above:
        inner = inner[key]
    inner[last] = value
    (told,) = models.problems(bad, "V1alpha1ClusterServingRuntime")
    assert told.endswith(problem)
