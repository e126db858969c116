"""What each value of the chart changes: the value, and what then stands where. `config` is tested on its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

POD: Final = "spec.template.spec"
ERG: Final = f"{POD}.containers[erg]"
FETCH: Final = f"{POD}.initContainers[fetch]"
SERVER: Final = {"app.kubernetes.io/name": "erg", "app.kubernetes.io/instance": "infer"}
TEAM: Final = {"team": "search"}
NOTE: Final = {"example.com/note": "kept"}
SMALL: Final = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "50m", "memory": "64Mi"}}
PEER: Final = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}}]


@dataclass(frozen=True)
class Row:
    """One claim. Without the value something else has to stand there."""

    path: str
    value: Any
    kind: str
    """The object's kind, and after a slash what its name has after the release's where there are more of the kind."""
    where: str
    expected: Any
    also: dict[str, Any] = field(default_factory=dict)
    otherwise: dict[str, Any] | None = None
    """The values without this one, where they are not `also` alone."""


def row(path: str, value: Any, kind: str, where: str, expected: Any, **also: Any) -> Row:
    """A row in the table; `also` has the other values that it needs, with __ for the dots of their paths."""
    otherwise = also.pop("otherwise", None)
    dotted, other = (
        None if values is None else {name.replace("__", "."): stated for name, stated in values.items()}
        for values in (also, otherwise)
    )
    return Row(path, value, kind, where, expected, dotted or {}, other)


_FETCH: Final[dict[str, Any]] = {"models__fetch__from": ["s3://models/production"]}
_CLAIM: Final[dict[str, Any]] = {"models__persistentVolumeClaim__claimName": "models"}
_OCI: Final[dict[str, Any]] = {"models__image__reference": "registry.example/models:1"}
_KEEP: Final[dict[str, Any]] = {"cache__persistence__enabled": True}
_TLS: Final[dict[str, Any]] = {"tls__enabled": True, "tls__secretName": "certificate"}
_ISSUED: Final[dict[str, Any]] = {
    "tls__enabled": True, "tls__certManager__enabled": True, "tls__certManager__issuerRef__name": "ca"
}  # fmt: skip
_HPA: Final[dict[str, Any]] = {"autoscaling__hpa__enabled": True}
_KEDA: Final[dict[str, Any]] = {
    "autoscaling__keda__enabled": True, "autoscaling__keda__serverAddress": "http://prometheus:9090"
}  # fmt: skip
_TRIGGER: Final = {"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *", "end": "0 9 * * *"}}
_ZERO: Final[dict[str, Any]] = _KEDA | {
    "autoscaling__keda__scaleToZero__enabled": True,
    "autoscaling__keda__scaleToZero__activationTriggers": [_TRIGGER],
}
_ROUTE: Final[dict[str, Any]] = {"gateway__enabled": True, "gateway__parentRefs": [{"name": "public"}]}
_INGRESS: Final[dict[str, Any]] = {"ingress__enabled": True, "ingress__hosts": ["erg.example.com"]}
_BEHAVIOR: Final = "spec.behavior"
_TRIGGER0: Final = "spec.triggers[replicas-needed]"
_RELABELINGS: Final = [{"action": "drop", "sourceLabels": ["pod"], "regex": "x"}]
_TOLERATION: Final = {"key": "pool", "operator": "Exists", "effect": "NoSchedule"}
_GPU_TOLERATION: Final = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
_SPREAD: Final = [{"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}]
_RULE_IN: Final = {"from": PEER, "ports": [{"port": 9999, "protocol": "TCP"}]}
_RULE_OUT: Final = {"to": PEER, "ports": [{"port": 9999, "protocol": "TCP"}]}
_SIDECAR: Final = {"name": "beside", "image": "beside:1"}
_VOLUME: Final = {"name": "more", "configMap": {"name": "more"}}
_MOUNT: Final = {"name": "more", "mountPath": "/more"}


def _monitor(kind: str, value: str, endpoint: str) -> list[Row]:
    on = {f"monitoring__{value}__enabled": True}
    return [
        row(f"monitoring.{value}.enabled", True, kind, "kind", kind),
        row(f"monitoring.{value}.labels", {"release": "stack"}, kind, "metadata.labels.release", "stack", **on),
        row(f"monitoring.{value}.interval", "60s", kind, f"spec.{endpoint}[0].interval", "60s", **on),
        row(f"monitoring.{value}.scrapeTimeout", "3s", kind, f"spec.{endpoint}[0].scrapeTimeout", "3s", **on),
        row(
            f"monitoring.{value}.relabelings", _RELABELINGS,
            kind, f"spec.{endpoint}[0].relabelings", _RELABELINGS, **on,
        ),
        row(
            f"monitoring.{value}.metricRelabelings", _RELABELINGS,
            kind, f"spec.{endpoint}[0].metricRelabelings", _RELABELINGS, **on,
        ),
    ]  # fmt: skip


# fmt: off
ROWS: Final[tuple[Row, ...]] = (
    # Names, image
    row("nameOverride", "serving", "Deployment", "metadata.labels['app.kubernetes.io/name']", "serving"),
    row("nameOverride", "serving", "Deployment", "metadata.name", "infer-serving"),
    row("fullnameOverride", "other", "Deployment", "metadata.name", "other"),
    row("commonLabels", TEAM, "Service/-headless", "metadata.labels.team", "search"),
    row("commonLabels", TEAM, "Deployment", "spec.template.metadata.labels.team", "search"),
    row("replicaCount", 3, "Deployment", "spec.replicas", 3),
    row("replicaCount", 0, "StatefulSet", "spec.replicas", 0, **_KEEP),
    row("image.repository", "registry.example/erg", "Deployment", f"{ERG}.image", "registry.example/erg:{version}-cpu"),
    row("image.tag", "7", "Deployment", f"{ERG}.image", "erg:7"),
    row("image.digest", f"sha256:{'a' * 64}", "Deployment", f"{ERG}.image", f"erg@sha256:{'a' * 64}", image__tag="7"),
    row("image.pullPolicy", "Always", "Deployment", f"{ERG}.imagePullPolicy", "Always"),
    row("imagePullSecrets", [{"name": "reg"}], "Deployment", f"{POD}.imagePullSecrets", [{"name": "reg"}]),
    # Models
    row("models.totalSizeBytes", 10_000_000_000, "Deployment", f"{ERG}.startupProbe.failureThreshold", 137),
    row(
        "models.totalSizeBytes", 10_000_000_000, "Deployment", f"{POD}.volumes[models].emptyDir.sizeLimit",
        str(20_000_000_000 + (1 << 30)), **_FETCH
    ),
    row(
        "models.persistentVolumeClaim.claimName", "models", "Deployment",
        f"{POD}.volumes[models].persistentVolumeClaim", {"claimName": "models", "readOnly": True}
    ),
    row(
        "models.persistentVolumeClaim.subPath", "a/b", "Deployment", f"{ERG}.volumeMounts[models].subPath", "a/b",
        **_CLAIM
    ),
    row("models.image.reference", "r:1", "Deployment", f"{POD}.volumes[models].image.reference", "r:1"),
    row("models.image.pullPolicy", "Never", "Deployment", f"{POD}.volumes[models].image.pullPolicy", "Never", **_OCI),
    row("models.image.subPath", "a", "Deployment", f"{ERG}.volumeMounts[models].subPath", "a", **_OCI),
    row(
        "models.fetch.from", ["s3://a/b", "https://c/d.tar"], "Deployment", f"{FETCH}.args",
        ["fetch", "--model-repository", "s3://a/b", "--model-repository", "https://c/d.tar", "--to", "/models"]
    ),
    row(
        "models.fetch.models", ["minilm"], "Deployment", f"{FETCH}.args",
        ["fetch", "--model-repository", "s3://models/production", "--model", "minilm", "--to", "/models"], **_FETCH
    ),
    row(
        "models.requireDigests", True, "Deployment", f"{FETCH}.args",
        ["fetch", "--model-repository", "s3://models/production", "--require-digests", "--to", "/models"], **_FETCH
    ),
    row("models.requireDigests", True, "settings", "require_digests", True, models__repositories=["s3://a/b"]),
    row("models.fetch.resources", SMALL, "Deployment", f"{FETCH}.resources", SMALL, **_FETCH),
    row("models.repositories", ["s3://a/b"], "settings", "model_repository", ["s3://a/b"]),
    row(
        "models.credentialsSecret", "bucket", "Deployment", f"{FETCH}.envFrom", [{"secretRef": {"name": "bucket"}}],
        **_FETCH
    ),
    row(
        "models.credentialsSecret", "bucket", "Deployment", f"{ERG}.envFrom", [{"secretRef": {"name": "bucket"}}],
        models__repositories=["s3://a/b"]
    ),
    row("prices", {"device_hour_usd": {"gpu": 2.5}}, "prices", "device_hour_usd", {"gpu": 2.5}),
    row("prices", {"usd_per_kwh": 0.2}, "settings", "price_file", "/etc/erg/prices.toml"),
    # Folders
    row("cache.sizeLimit", "9Gi", "Deployment", f"{POD}.volumes[cache].emptyDir.sizeLimit", "9Gi"),
    row("cache.persistence.enabled", True, "StatefulSet", "spec.volumeClaimTemplates[0].metadata.name", "cache"),
    row(
        "cache.persistence.size", "7Gi", "StatefulSet",
        "spec.volumeClaimTemplates[0].spec.resources.requests.storage", "7Gi", **_KEEP
    ),
    row(
        "cache.persistence.storageClassName", "fast", "StatefulSet",
        "spec.volumeClaimTemplates[0].spec.storageClassName", "fast", **_KEEP
    ),
    row(
        "cache.persistence.whenDeleted", "Delete", "StatefulSet",
        "spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Delete", **_KEEP
    ),
    row("tmp.sizeLimit", "9Gi", "Deployment", f"{POD}.volumes[tmp].emptyDir.sizeLimit", "9Gi"),
    row(
        "sharedMemory.sizeLimit", "1Gi", "Deployment", f"{POD}.volumes[shared-memory].emptyDir",
        {"medium": "Memory", "sizeLimit": "1Gi"}
    ),
    row("sharedMemory.sizeLimit", "1Gi", "Deployment", f"{ERG}.volumeMounts[shared-memory].mountPath", "/dev/shm"),
    # Resources and placement
    row("resources", SMALL, "Deployment", f"{ERG}.resources", SMALL),
    row("guaranteed", True, "Deployment", f"{ERG}.resources.requests", {"cpu": "2", "memory": "2Gi"}),
    row("gpu.count", 2, "Deployment", f"{ERG}.resources.limits['nvidia.com/gpu']", 2),
    row("gpu.count", 1, "Deployment", f"{ERG}.image", "erg:{version}-cuda"),
    row(
        "gpu.resourceName", "nvidia.com/gpu.shared", "Deployment",
        f"{ERG}.resources.limits['nvidia.com/gpu.shared']", 1, gpu__count=1
    ),
    row("gpu.mig.profile", "1g.10gb", "Deployment", f"{ERG}.resources.limits['nvidia.com/mig-1g.10gb']", 1),
    row(
        "gpu.mig.count", 3, "Deployment", f"{ERG}.resources.limits['nvidia.com/mig-1g.10gb']", 3,
        gpu__mig__profile="1g.10gb"
    ),
    row("gpu.toleration", False, "Deployment", f"{POD}.tolerations", None, gpu__count=1),
    row("runtimeClassName", "nvidia", "Deployment", f"{POD}.runtimeClassName", "nvidia"),
    row("nodeSelector", {"pool": "gpu"}, "Deployment", f"{POD}.nodeSelector", {"pool": "gpu"}),
    row("tolerations", [_TOLERATION], "Deployment", f"{POD}.tolerations", [_TOLERATION]),
    row("tolerations", [_TOLERATION], "Deployment", f"{POD}.tolerations", [_GPU_TOLERATION, _TOLERATION], gpu__count=1),
    row(
        "podAntiAffinity", "required", "Deployment",
        f"{POD}.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey",
        "kubernetes.io/hostname"
    ),
    row(
        "affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "Deployment", f"{POD}.affinity.nodeAffinity",
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    ),
    row("topologySpread", _SPREAD, "Deployment", f"{POD}.topologySpreadConstraints[0].topologyKey", "rack"),
    row("topologySpread", [], "Deployment", f"{POD}.topologySpreadConstraints", None),
    row("priorityClassName", "high", "Deployment", f"{POD}.priorityClassName", "high"),
    # Pods
    row("podLabels", TEAM, "Deployment", "spec.template.metadata.labels.team", "search"),
    row("podAnnotations", NOTE, "Deployment", "spec.template.metadata.annotations['example.com/note']", "kept"),
    row("podSecurityContext.runAsUser", 5, "Deployment", f"{POD}.securityContext.runAsUser", 5),
    row("podSecurityContext.runAsUser", None, "Deployment", f"{POD}.securityContext.runAsUser", None),
    row("podSecurityContext.runAsGroup", 5, "Deployment", f"{POD}.securityContext.runAsGroup", 5),
    row("podSecurityContext.fsGroup", 5, "Deployment", f"{POD}.securityContext.fsGroup", 5),
    row(
        "podSecurityContext.supplementalGroups", [5, 6], "Deployment", f"{POD}.securityContext.supplementalGroups",
        [5, 6]
    ),
    row("extraEnv", [{"name": "A", "value": "b"}], "Deployment", f"{ERG}.env", [{"name": "A", "value": "b"}]),
    row(
        "extraEnvFrom", [{"configMapRef": {"name": "a"}}], "Deployment", f"{ERG}.envFrom",
        [{"configMapRef": {"name": "a"}}]
    ),
    row("extraVolumes", [_VOLUME], "Deployment", f"{POD}.volumes[more]", _VOLUME),
    row("extraVolumeMounts", [_MOUNT], "Deployment", f"{ERG}.volumeMounts[more]", _MOUNT, extraVolumes=[_VOLUME]),
    row("extraContainers", [_SIDECAR], "Deployment", f"{POD}.containers[beside]", _SIDECAR),
    row("serviceAccount.create", False, "ServiceAccount", "kind", None),
    row("serviceAccount.create", False, "Deployment", f"{POD}.serviceAccountName", "default"),
    row("serviceAccount.name", "robot", "ServiceAccount", "metadata.name", "robot"),
    row("serviceAccount.name", "robot", "Deployment", f"{POD}.serviceAccountName", "robot"),
    row("serviceAccount.annotations", NOTE, "ServiceAccount", "metadata.annotations", NOTE),
    # Services
    row("service.type", "LoadBalancer", "Service/", "spec.type", "LoadBalancer"),
    row("service.port", 443, "Service/", "spec.ports[grpc].port", 443),
    row("service.appProtocol", "grpc", "Service/", "spec.ports[grpc].appProtocol", "grpc"),
    row("service.annotations", NOTE, "Service/", "metadata.annotations", NOTE),
    row("service.labels", TEAM, "Service/", "metadata.labels.team", "search"),
    row("service.metrics.port", 9100, "Service/-metrics", "spec.ports[metrics].port", 9100),
    row("service.metrics.annotations", NOTE, "Service/-metrics", "metadata.annotations", NOTE),
    row("service.headless.enabled", False, "Service/-headless", "kind", None),
    row("service.headless.annotations", NOTE, "Service/-headless", "metadata.annotations", NOTE),
    # TLS
    row("tls.enabled", True, "settings", "grpc_use_ssl", True, tls__secretName="a", otherwise={}),
    row(
        "tls.secretName", "a", "Deployment", f"{POD}.volumes[tls].secret.secretName", "a", tls__enabled=True,
        otherwise={"tls__enabled": True, "tls__secretName": "b"}
    ),
    row(
        "tls.certManager.enabled", True, "Certificate", "spec.secretName", "infer-erg-tls", **_ISSUED,
        otherwise=_TLS
    ),
    row("tls.certManager.issuerRef.name", "b", "Certificate", "spec.issuerRef.name", "b", **_ISSUED),
    row(
        "tls.certManager.issuerRef.kind", "ClusterIssuer", "Certificate", "spec.issuerRef.kind", "ClusterIssuer",
        **_ISSUED
    ),
    row("tls.certManager.issuerRef.group", "a.example", "Certificate", "spec.issuerRef.group", "a.example", **_ISSUED),
    row(
        "tls.certManager.duration", "24h", "Certificate", "spec.duration", "24h",
        **_ISSUED | {"tls__certManager__renewBefore": "1h"}
    ),
    row("tls.certManager.renewBefore", "48h", "Certificate", "spec.renewBefore", "48h", **_ISSUED),
    row(
        "tls.certManager.dnsNames", ["erg.example.com"], "Certificate", "spec.dnsNames[8]", "erg.example.com",
        **_ISSUED
    ),
    row("tls.mutual.enabled", True, "settings", "grpc_use_ssl_mutual", True, **_TLS),
    row(
        "tls.mutual.secretName", "roots", "Deployment", f"{POD}.volumes[tls-roots].secret.secretName", "roots",
        **_TLS | {"tls__mutual__enabled": True}
    ),
    row(
        "tls.mutual.key", "roots.crt", "Deployment", f"{POD}.volumes[tls-roots].secret.items[0].key", "roots.crt",
        **_TLS | {"tls__mutual__enabled": True}
    ),
    # Drain and probes
    row("drain.preStopSeconds", 7, "Deployment", f"{ERG}.lifecycle.preStop.sleep.seconds", 7),
    row("drain.preStopSeconds", 7, "Deployment", f"{POD}.terminationGracePeriodSeconds", 82),
    row("drain.preStopSeconds", 0, "Deployment", f"{ERG}.lifecycle", None),
    row("drain.drainDelaySeconds", 7, "settings", "drain_delay_secs", 7),
    row("drain.drainDelaySeconds", 7, "Deployment", f"{POD}.terminationGracePeriodSeconds", 79),
    row("drain.exitTimeoutSeconds", 300, "settings", "exit_timeout_secs", 300),
    row("drain.exitTimeoutSeconds", 300, "Deployment", f"{POD}.terminationGracePeriodSeconds", 317),
    row("probes.startup.baseSeconds", 600, "Deployment", f"{ERG}.startupProbe.failureThreshold", 121),
    row(
        "probes.startup.bytesPerSecond", 1_000_000, "Deployment", f"{ERG}.startupProbe.failureThreshold", 237,
        models__totalSizeBytes=1_000_000_000
    ),
    row("probes.startup.periodSeconds", 10, "Deployment", f"{ERG}.startupProbe.periodSeconds", 10),
    row("probes.startup.periodSeconds", 10, "Deployment", f"{ERG}.startupProbe.failureThreshold", 19),
    row("probes.startup.timeoutSeconds", 9, "Deployment", f"{ERG}.startupProbe.timeoutSeconds", 9),
    row(
        "probes.readiness.models", ["a", "c"], "Deployment", f"{ERG}.readinessProbe.httpGet.path",
        "/readyz?model=a&model=c"
    ),
    row("probes.readiness.grpc", True, "Deployment", f"{ERG}.readinessProbe.grpc", {"port": 8001, "service": ""}),
    row("probes.readiness.periodSeconds", 9, "Deployment", f"{ERG}.readinessProbe.periodSeconds", 9),
    row("probes.readiness.timeoutSeconds", 9, "Deployment", f"{ERG}.readinessProbe.timeoutSeconds", 9),
    row("probes.readiness.failureThreshold", 9, "Deployment", f"{ERG}.readinessProbe.failureThreshold", 9),
    row("probes.liveness.periodSeconds", 9, "Deployment", f"{ERG}.livenessProbe.periodSeconds", 9),
    row("probes.liveness.timeoutSeconds", 9, "Deployment", f"{ERG}.livenessProbe.timeoutSeconds", 9),
    row("probes.liveness.failureThreshold", 9, "Deployment", f"{ERG}.livenessProbe.failureThreshold", 9),
    # Rolling over, disruption
    row("rollout.maxSurge", "25%", "Deployment", "spec.strategy.rollingUpdate.maxSurge", "25%"),
    row("rollout.maxUnavailable", 1, "Deployment", "spec.strategy.rollingUpdate.maxUnavailable", 1),
    row("rollout.minReadySeconds", 30, "Deployment", "spec.minReadySeconds", 30),
    row("rollout.revisionHistoryLimit", 2, "Deployment", "spec.revisionHistoryLimit", 2),
    row("podDisruptionBudget.enabled", False, "PodDisruptionBudget", "kind", None),
    row("podDisruptionBudget.maxUnavailable", "50%", "PodDisruptionBudget", "spec.maxUnavailable", "50%"),
    row("podDisruptionBudget.minAvailable", 2, "PodDisruptionBudget", "spec.minAvailable", 2, replicaCount=3),
    # Network policies
    row("networkPolicy.enabled", False, "NetworkPolicy/-deny", "kind", None),
    row("networkPolicy.enabled", False, "NetworkPolicy/-allow", "kind", None),
    row("networkPolicy.enabled", False, "NetworkPolicy/-test", "kind", None),
    row("networkPolicy.grpc.from", PEER, "NetworkPolicy/-allow", "spec.ingress[0].from", PEER),
    row("networkPolicy.metrics.from", PEER, "NetworkPolicy/-allow", "spec.ingress[2].from", PEER),
    row("networkPolicy.dns.to", PEER, "NetworkPolicy/-allow", "spec.egress[0].to", PEER, **_FETCH),
    row("networkPolicy.objectStorage.to", PEER, "NetworkPolicy/-allow", "spec.egress[1].to", PEER, **_FETCH),
    row(
        "networkPolicy.objectStorage.ports", [9000], "NetworkPolicy/-allow", "spec.egress[1].ports",
        [{"port": 9000, "protocol": "TCP"}], **_FETCH
    ),
    row("networkPolicy.extraIngress", [_RULE_IN], "NetworkPolicy/-allow", "spec.ingress[3]", _RULE_IN),
    row("networkPolicy.extraEgress", [_RULE_OUT], "NetworkPolicy/-allow", "spec.egress[0]", _RULE_OUT),
    # Autoscaling
    row("autoscaling.minReplicas", 2, "HorizontalPodAutoscaler", "spec.minReplicas", 2, **_HPA),
    row("autoscaling.minReplicas", 2, "ScaledObject", "spec.minReplicaCount", 2, **_KEDA),
    row("autoscaling.maxReplicas", 20, "HorizontalPodAutoscaler", "spec.maxReplicas", 20, **_HPA),
    row("autoscaling.maxReplicas", 20, "ScaledObject", "spec.maxReplicaCount", 20, **_KEDA),
    row(
        "autoscaling.scaleUp.stabilizationSeconds", 9, "HorizontalPodAutoscaler",
        f"{_BEHAVIOR}.scaleUp.stabilizationWindowSeconds", 9, **_HPA
    ),
    row(
        "autoscaling.scaleUp.percent", 50, "HorizontalPodAutoscaler", f"{_BEHAVIOR}.scaleUp.policies[0].value", 50,
        **_HPA
    ),
    row(
        "autoscaling.scaleUp.periodSeconds", 9, "HorizontalPodAutoscaler",
        f"{_BEHAVIOR}.scaleUp.policies[0].periodSeconds", 9, **_HPA
    ),
    row(
        "autoscaling.scaleDown.stabilizationSeconds", 9, "HorizontalPodAutoscaler",
        f"{_BEHAVIOR}.scaleDown.stabilizationWindowSeconds", 9, **_HPA
    ),
    row(
        "autoscaling.scaleDown.pods", 2, "HorizontalPodAutoscaler", f"{_BEHAVIOR}.scaleDown.policies[0].value", 2,
        **_HPA
    ),
    row(
        "autoscaling.scaleDown.periodSeconds", 9, "HorizontalPodAutoscaler",
        f"{_BEHAVIOR}.scaleDown.policies[0].periodSeconds", 9, **_HPA
    ),
    row(
        "autoscaling.scaleDown.periodSeconds", 9, "ScaledObject",
        "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies[0].periodSeconds", 9, **_KEDA
    ),
    row("autoscaling.hpa.enabled", True, "HorizontalPodAutoscaler", "kind", "HorizontalPodAutoscaler"),
    row("autoscaling.hpa.enabled", True, "Deployment", "spec.replicas", None),
    row(
        "autoscaling.hpa.metricName", "wanted", "HorizontalPodAutoscaler", "spec.metrics[0].pods.metric.name",
        "wanted", **_HPA
    ),
    row(
        "autoscaling.hpa.averageValue", "800m", "HorizontalPodAutoscaler",
        "spec.metrics[0].pods.target.averageValue", "800m", **_HPA
    ),
    row(
        "autoscaling.keda.enabled", True, "ScaledObject", "spec.scaleTargetRef.name", "infer-erg",
        autoscaling__keda__serverAddress="http://p:9090"
    ),
    row(
        "autoscaling.keda.serverAddress", "http://a:1", "ScaledObject", f"{_TRIGGER0}.metadata.serverAddress",
        "http://a:1", **_KEDA
    ),
    row("autoscaling.keda.query", "vector(1)", "ScaledObject", f"{_TRIGGER0}.metadata.query", "vector(1)", **_KEDA),
    row("autoscaling.keda.threshold", "0.8", "ScaledObject", f"{_TRIGGER0}.metadata.threshold", "0.8", **_KEDA),
    row("autoscaling.keda.pollingInterval", 5, "ScaledObject", "spec.pollingInterval", 5, **_KEDA),
    row("autoscaling.keda.authenticationRef", "a", "ScaledObject", f"{_TRIGGER0}.authenticationRef.name", "a", **_KEDA),
    row("autoscaling.keda.fallbackReplicas", 4, "ScaledObject", "spec.fallback.replicas", 4, **_KEDA),
    row(
        "autoscaling.keda.scaleToZero.enabled", True, "ScaledObject", "spec.idleReplicaCount", 0,
        **_ZERO, otherwise=_KEDA
    ),
    row("autoscaling.keda.scaleToZero.cooldownSeconds", 60, "ScaledObject", "spec.cooldownPeriod", 60, **_ZERO),
    row(
        "autoscaling.keda.scaleToZero.activationTriggers", [_TRIGGER], "ScaledObject", "spec.triggers[1]", _TRIGGER,
        **_ZERO, otherwise=_KEDA
    ),
    # Monitoring
    *_monitor("ServiceMonitor", "serviceMonitor", "endpoints"),
    *_monitor("PodMonitor", "podMonitor", "podMetricsEndpoints"),
    row("monitoring.prometheusRule.enabled", True, "PrometheusRule", "kind", "PrometheusRule"),
    row(
        "monitoring.prometheusRule.labels", TEAM, "PrometheusRule", "metadata.labels.team", "search",
        monitoring__prometheusRule__enabled=True
    ),
    row("monitoring.dashboards.enabled", True, "dashboard", "kind", "ConfigMap"),
    row(
        "monitoring.dashboards.labels", TEAM, "dashboard", "metadata.labels.team", "search",
        monitoring__dashboards__enabled=True
    ),
    row(
        "monitoring.dashboards.annotations", NOTE, "dashboard", "metadata.annotations", NOTE,
        monitoring__dashboards__enabled=True
    ),
    # Routes
    row(
        "gateway.enabled", True, "GRPCRoute", "spec.rules[0].backendRefs[0].name", "infer-erg",
        gateway__parentRefs=[{"name": "public"}]
    ),
    row("gateway.parentRefs", [{"name": "b"}], "GRPCRoute", "spec.parentRefs", [{"name": "b"}], **_ROUTE),
    row("gateway.hostnames", ["a.example"], "GRPCRoute", "spec.hostnames", ["a.example"], **_ROUTE),
    row("gateway.labels", TEAM, "GRPCRoute", "metadata.labels.team", "search", **_ROUTE),
    row("gateway.annotations", NOTE, "GRPCRoute", "metadata.annotations", NOTE, **_ROUTE),
    row("ingress.enabled", True, "Ingress", "kind", "Ingress", ingress__hosts=["a.example"]),
    row("ingress.className", "nginx", "Ingress", "spec.ingressClassName", "nginx", **_INGRESS),
    row("ingress.annotations", NOTE, "Ingress", "metadata.annotations", NOTE, **_INGRESS),
    row("ingress.hosts", ["b.example"], "Ingress", "spec.rules[0].host", "b.example", **_INGRESS),
    row("ingress.tlsSecretName", "web", "Ingress", "spec.tls[0].secretName", "web", **_INGRESS),
    # helm test
    row("test.enabled", False, "Pod", "kind", None),
    row("test.models", ["a"], "Pod", "spec.containers[0].args[4]", "a"),
    row("test.resources", SMALL, "Pod", "spec.containers[0].resources", SMALL),
)
# fmt: on
