"""Bad values are refused before anything is rendered, with a word that says where and what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import OLDEST, SCHEMA, RefusedError, nested, render_text

_FETCH: dict[str, Any] = {"models.fetch.from": ["s3://a/b"]}

# By the schema: the value, and what the message says of it.
BY_SCHEMA: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("replicaCount", -1, ("/replicaCount", "minimum")),
    ("replicaCount", "two", ("/replicaCount", "got string, want null or integer")),
    ("replicas", 2, ("additional properties 'replicas' not allowed",)),
    ("image.tag", "a b", ("/image/tag", "pattern")),
    ("image.tag", 7, ("/image/tag", "want string")),
    ("image.digest", "sha256:1", ("/image/digest", "pattern")),
    ("image.pullPolicy", "Sometimes", ("/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'")),
    ("image.repository", "", ("/image/repository", "minLength")),
    ("config.grpc_prot", 8001, ("/config", "'grpc_prot' not allowed")),
    ("config.grpc_port", "8001", ("/config/grpc_port", "want integer")),
    ("config.grpc_port", 70000, ("/config/grpc_port", "maximum")),
    ("config.log_format", "xml", ("/config/log_format", "'json'")),
    ("config.max_queue_requests", 0, ("/config/max_queue_requests", "minimum")),
    ("prices.usd_per_kw", 1, ("/prices", "'usd_per_kw' not allowed")),
    ("models.fetch.from", ["/models"], ("/models/fetch/from/0", "pattern")),
    ("models.totalSizeBytes", "1Gi", ("/models/totalSizeBytes", "want integer")),
    ("cache.sizeLimit", "1 GB", ("/cache/sizeLimit", "pattern")),
    ("resources.limits.cpu", "two", ("/resources/limits/cpu",)),
    ("gpu.mig.profile", "1g10gb", ("/gpu/mig/profile", "pattern")),
    ("podAntiAffinity", "always", ("/podAntiAffinity", "'none', 'preferred', 'required'")),
    ("podSecurityContext.runAsUser", 0, ("/podSecurityContext/runAsUser", "minimum")),
    ("podSecurityContext.runAsGroup", 0, ("/podSecurityContext/runAsGroup", "minimum")),
    ("podSecurityContext.privileged", True, ("/podSecurityContext", "'privileged' not allowed")),
    ("commonLabels", {"team": 7}, ("/commonLabels/team", "want string")),
    ("service.type", "ExternalName", ("/service/type", "'LoadBalancer'")),
    ("service.port", 0, ("/service/port", "minimum")),
    ("drain.exitTimeoutSeconds", -1, ("/drain/exitTimeoutSeconds", "minimum")),
    ("probes.liveness.failureThreshold", 0, ("/probes/liveness/failureThreshold", "minimum")),
    ("probes.readiness.models", ["../a"], ("/probes/readiness/models/0", "pattern")),
    ("networkPolicy.grpc.from", [{"ipBlock": {"cidr": "anywhere"}}], ("/networkPolicy/grpc/from/0/ipBlock/cidr",)),
    ("networkPolicy.grpc.from", [{}], ("/networkPolicy/grpc/from/0", "minProperties")),
    ("autoscaling.maxReplicas", 0, ("/autoscaling/maxReplicas", "minimum")),
    ("monitoring.serviceMonitor.interval", "15 s", ("/monitoring/serviceMonitor/interval", "pattern")),
    ("extraEnv", [{"name": "A-B"}], ("/extraEnv/0/name", "pattern")),
    ("test.models", ["a/b"], ("/test/models/0", "pattern")),
)

# By templates/_checks.tpl: values that exclude each other, and what the message says.
BY_CHECKS: tuple[tuple[dict[str, Any], str], ...] = (
    (
        _FETCH | {"models.persistentVolumeClaim.claimName": "a"},
        "one source, not from models.persistentVolumeClaim.claimName and models.fetch.from",
    ),
    ({"models.credentialsSecret": "a"}, "models.credentialsSecret is for models.fetch.from or models.repositories"),
    ({"models.requireDigests": True}, "models.requireDigests is for"),
    ({"config.metrics_port": 8001}, "the same port"),
    ({"config.load_model": ["a"]}, "config.load_model needs config.model_control_mode: explicit"),
    ({"prices": {"pue": 1.2}}, "prices names no price"),
    ({"prices": {"usd_per_kwh": 0.1}, "config.metering": False}, "prices needs config.metering"),
    ({"gpu.count": 1, "gpu.mig.profile": "1g.10gb"}, "whole GPUs or MIG instances, not both"),
    ({"guaranteed": True, "resources.limits.cpu": "1500m"}, "guaranteed takes a whole number of CPUs"),
    ({"guaranteed": True, "resources.limits.memory": None}, "guaranteed needs resources.limits.memory"),
    ({"podAntiAffinity": "required", "affinity": {"podAntiAffinity": {"a": 1}}}, "state one of them"),
    ({"rollout.maxSurge": 0}, "no pod could ever be replaced"),
    ({"podDisruptionBudget.minAvailable": 1, "podDisruptionBudget.maxUnavailable": 1}, "state one of them"),
    (
        {"probes.readiness.grpc": True, "tls.enabled": True, "tls.secretName": "a"},
        "the kubelet's gRPC probe speaks no TLS",
    ),
    ({"probes.readiness.grpc": True, "probes.readiness.models": ["a", "b"]}, "asks for one model"),
    (
        {
            "autoscaling.hpa.enabled": True,
            "autoscaling.keda.enabled": True,
            "autoscaling.keda.serverAddress": "http://a:1",
        },
        "two would fight",
    ),
    ({"autoscaling.hpa.enabled": True, "replicaCount": 2}, "replicaCount is fixed while autoscaling is on"),
    ({"autoscaling.minReplicas": 20}, "autoscaling.minReplicas 20 is above autoscaling.maxReplicas 10"),
    ({"autoscaling.keda.enabled": True}, "needs autoscaling.keda.serverAddress"),
    (
        {
            "autoscaling.keda.enabled": True,
            "autoscaling.keda.serverAddress": "http://a:1",
            "autoscaling.keda.scaleToZero.enabled": True,
        },
        "a server that does not run cannot tell of its first caller",
    ),
    ({"monitoring.serviceMonitor.enabled": True, "monitoring.podMonitor.enabled": True}, "there twice"),
    ({"tls.enabled": True}, "tls.enabled needs a certificate"),
    ({"tls.secretName": "a"}, "the server would answer in the clear"),
    ({"tls.enabled": True, "tls.secretName": "a", "tls.certManager.enabled": True}, "comes from one of them"),
    ({"tls.enabled": True, "tls.certManager.enabled": True}, "tls.certManager needs tls.certManager.issuerRef.name"),
    ({"gateway.enabled": True}, "gateway.enabled needs gateway.parentRefs"),
    ({"ingress.enabled": True}, "ingress.enabled needs ingress.hosts"),
)

# On an API server that is too old for them.
BY_VERSION: tuple[tuple[dict[str, Any], str], ...] = (
    ({"models.image.reference": "a:1"}, "models.image needs Kubernetes 1.31, and this is v1.20.0"),
    ({"autoscaling.hpa.enabled": True}, "autoscaling.hpa needs Kubernetes 1.23 (autoscaling/v2), and this is v1.20.0"),
    ({"probes.readiness.grpc": True}, "probes.readiness.grpc needs Kubernetes 1.24, and this is v1.20.0"),
)


# Settings that follow from other values.
OWNED = sorted(name for name, schema in SCHEMA["properties"]["config"]["properties"].items() if schema.get("readOnly"))


def refusal(values: dict[str, Any], **version: str) -> str:
    """What the user reads."""
    with pytest.raises(RefusedError) as refused:
        render_text(nested(values), **version)
    return str(refused.value)


@pytest.mark.parametrize(("path", "value", "words"), BY_SCHEMA, ids=lambda part: str(part)[:60])
def test_the_schema_refuses_a_bad_value_and_says_where(path: str, value: Any, words: tuple[str, ...]) -> None:
    message = refusal({path: value})
    for word in words:
        assert word in message


@pytest.mark.parametrize(("values", "words"), BY_CHECKS, ids=lambda part: str(part)[:80])
def test_values_that_exclude_each_other_are_refused_with_the_reason(values: dict[str, Any], words: str) -> None:
    message = refusal(values)
    assert "These values do not fit together:" in message
    assert words in message


@pytest.mark.parametrize(("values", "words"), BY_VERSION, ids=lambda part: str(part)[:60])
def test_what_the_api_server_is_too_old_for_is_refused_with_the_version(values: dict[str, Any], words: str) -> None:
    assert words in refusal(values, version=OLDEST)


def test_all_that_is_wrong_is_told_at_once() -> None:
    message = refusal({"gateway.enabled": True, "ingress.enabled": True, "tls.enabled": True})
    assert all(word in message for word in ("gateway.parentRefs", "ingress.hosts", "tls.enabled needs a certificate"))


@pytest.mark.parametrize("name", OWNED)
def test_a_setting_that_the_chart_owns_is_refused_in_config_with_the_value_to_state(name: str) -> None:
    assert f"config.{name} is set by the chart; state " in refusal({f"config.{name}": "x"})
