"""What a platform team asks of every object that is installed, over the defaults and every example."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.helm.chart import (
    FULLNAME,
    NAMESPACE,
    Object,
    at,
    containers,
    example,
    find,
    load_yaml,
    nested,
    pod_templates,
    render,
)

LABELS = {
    "app.kubernetes.io/name": "erg",
    "app.kubernetes.io/instance": "infer",
    "app.kubernetes.io/managed-by": "Helm",
}
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "Namespace", "PersistentVolume", "StorageClass"}
SECRET = re.compile(r"(?i)(secret|passw|token|credential|private.?key|access.?key)")
_CPU = {"": 1.0, "m": 0.001}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@pytest.fixture
def objects(example_name: str) -> list[Object]:
    """What an example renders."""
    return render(example(example_name))


@pytest.fixture
def pods(objects: list[Object]) -> list[Object]:
    """Every pod that it makes."""
    found = [pod for _, pod in pod_templates(objects)]
    assert len(found) >= 1
    return found


def everyone(pods: list[Object]) -> Iterator[Object]:
    """Every container of every pod."""
    for pod in pods:
        yield from containers(pod)


def server(objects: list[Object]) -> Object:
    """The server's workload."""
    found = find(objects, "Deployment") or find(objects, "StatefulSet")
    assert found is not None
    return found


def quantity(value: Any, units: Mapping[str, float]) -> float:
    """A quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(value))
    assert match is not None
    return float(match[1]) * units[match[2]]


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a selector of labels takes something with these."""
    return all(labels.get(key) == value for key, value in selector.items())


def test_no_container_runs_as_root_or_can_become_it(pods: list[Object]) -> None:
    for pod in pods:
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["runAsGroup"] > 0
        assert security["fsGroup"] > 0
    for container in everyone(pods):
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security.get("privileged", False) is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "runAsUser" not in security


def test_no_container_writes_to_its_image_or_leaves_the_kernels_filter(pods: list[Object]) -> None:
    for pod in pods:
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in everyone(pods):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "seccompProfile" not in container["securityContext"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_no_pod_shares_what_is_the_nodes(pods: list[Object]) -> None:
    for pod in pods:
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod["spec"].keys()
        assert all("hostPath" not in volume for volume in pod["spec"]["volumes"])
        assert all("hostPort" not in port for one in containers(pod) for port in one.get("ports", []))


def test_no_pod_has_a_token_or_links_to_services(objects: list[Object], pods: list[Object]) -> None:
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
    account = find(objects, "ServiceAccount")
    assert account is None or account["automountServiceAccountToken"] is False
    assert not {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {one["kind"] for one in objects}


def test_every_image_is_named_with_a_tag_or_a_digest_and_never_latest(pods: list[Object]) -> None:
    for container in everyone(pods):
        image = container["image"].rsplit("/", 1)[-1]
        assert re.fullmatch(r"[^:@]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", image)
        assert ":" in image
        assert ":latest" not in image


def test_every_container_has_requests_and_limits_and_no_request_above_its_limit(pods: list[Object]) -> None:
    for container in everyone(pods):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        for name, units in (("cpu", _CPU), ("memory", _BYTES)):
            assert 0 < quantity(requests[name], units) <= quantity(limits[name], units)


def test_every_volume_of_the_node_has_a_bound(pods: list[Object]) -> None:
    for pod in pods:
        for volume in pod["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert quantity(volume["emptyDir"]["sizeLimit"], _BYTES) > 0
            if volume.get("emptyDir", {}).get("medium") == "Memory":
                memory = at(pod, "spec.containers[erg].resources.limits.memory")
                assert quantity(volume["emptyDir"]["sizeLimit"], _BYTES) < quantity(memory, _BYTES)


def test_every_port_is_named_and_every_service_reaches_one(objects: list[Object]) -> None:
    template = server(objects)["spec"]["template"]
    ports = template["spec"]["containers"][0]["ports"]
    named = {port["name"]: port["containerPort"] for port in ports}
    assert set(named) == {"grpc", "metrics"}
    assert len(set(named.values())) == len(ports)
    services = [one for one in objects if one["kind"] == "Service"]
    assert {service["metadata"]["name"] for service in services} >= {FULLNAME, f"{FULLNAME}-metrics"}
    for service in services:
        assert selects(service["spec"]["selector"], template["metadata"]["labels"])
        for port in service["spec"]["ports"]:
            assert port["name"]
            assert port["appProtocol"]
            assert port["targetPort"] in named
            # A name without an address resolves to the pods, where the service's port counts for nothing.
            assert service["spec"].get("clusterIP") != "None" or port["port"] == named[port["targetPort"]]


def test_only_the_grpc_service_may_be_seen_from_outside(objects: list[Object]) -> None:
    for service in objects:
        if service["kind"] == "Service" and service["metadata"]["name"] != FULLNAME:
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_the_server_has_every_probe_and_liveness_asks_for_nothing_that_load_takes_away(objects: list[Object]) -> None:
    container = at(server(objects), "spec.template.spec.containers[erg]")
    startup, ready, live = (container[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    ports = {port["name"] for port in container["ports"]}
    for probe in (startup, ready, live):
        assert "grpc" in probe or probe["httpGet"]["port"] in ports
        assert probe["timeoutSeconds"] > 0
    assert live["httpGet"]["path"] == "/livez"
    assert live["failureThreshold"] * live["periodSeconds"] >= 60
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 180
    assert ready["failureThreshold"] * ready["periodSeconds"] < live["failureThreshold"] * live["periodSeconds"]


def test_the_grace_period_covers_the_pause_the_delay_and_the_time_to_finish(objects: list[Object]) -> None:
    pod = server(objects)["spec"]["template"]["spec"]
    settings = settings_of(objects)
    pause = at(pod, "containers[erg].lifecycle.preStop.sleep.seconds") or 0
    needed = pause + settings["drain_delay_secs"] + settings["exit_timeout_secs"]
    assert pod["terminationGracePeriodSeconds"] >= needed + 5
    assert pause + settings["drain_delay_secs"] >= 5, "endpoints are withdrawn after the pod is told to stop"


def settings_of(objects: list[Object]) -> dict[str, Any]:
    """The settings file in the ConfigMap."""
    configured = find([one for one in objects if one["metadata"]["name"] == FULLNAME], "ConfigMap")
    assert configured is not None
    return tomllib.loads(configured["data"]["erg.toml"])


def test_a_roll_out_never_takes_the_last_server_that_is_ready(objects: list[Object]) -> None:
    workload = server(objects)
    if workload["kind"] == "Deployment":
        rolling = at(workload, "spec.strategy.rollingUpdate")
        replicas = workload["spec"].get("replicas", 1)
        assert rolling["maxUnavailable"] == 0 or replicas > rolling["maxUnavailable"]
        budget = at(workload, "spec.template.spec.containers[erg].startupProbe")
        assert workload["spec"]["progressDeadlineSeconds"] > budget["failureThreshold"] * budget["periodSeconds"]


def test_every_label_is_there_and_every_name_is_of_the_release(objects: list[Object]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    for one in objects:
        metadata = one["metadata"]
        assert metadata["name"].startswith(FULLNAME)
        assert len(metadata["name"]) <= 63
        assert one["kind"] in CLUSTER_WIDE or metadata["namespace"] == NAMESPACE
        assert selects(LABELS, metadata["labels"])
        assert {"app.kubernetes.io/component", "app.kubernetes.io/version", "helm.sh/chart"} <= metadata[
            "labels"
        ].keys()


def test_every_selector_takes_the_servers_pods_and_no_other(objects: list[Object]) -> None:
    labels = server(objects)["spec"]["template"]["metadata"]["labels"]
    others = [pod["metadata"]["labels"] for label, pod in pod_templates(objects) if label.startswith("Pod/")]
    found = [server(objects)["spec"]["selector"]["matchLabels"]]
    found += [one["spec"]["selector"]["matchLabels"] for one in objects if one["kind"] == "PodDisruptionBudget"]
    found += [one["spec"]["selector"]["matchLabels"] for one in objects if one["kind"] == "PodMonitor"]
    found += [one["spec"]["selector"] for one in objects if one["kind"] == "Service"]
    found += [
        spread["labelSelector"]["matchLabels"]
        for spread in at(server(objects), "spec.template.spec.topologySpreadConstraints") or []
    ]
    assert len(found) >= 5
    for selector in found:
        assert selects(selector, labels)
        assert not any(selects(selector, other) for other in others)


def test_a_service_monitor_takes_the_metrics_service_alone(objects: list[Object]) -> None:
    for monitor in (one for one in objects if one["kind"] == "ServiceMonitor"):
        taken = [
            one["metadata"]["name"]
            for one in objects
            if one["kind"] == "Service"
            and selects(monitor["spec"]["selector"]["matchLabels"], one["metadata"]["labels"])
        ]
        assert taken == [f"{FULLNAME}-metrics"]


def test_every_pod_is_covered_by_policies_that_allow_its_ports_and_nothing_else(objects: list[Object]) -> None:
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    for label, pod in pod_templates(objects):
        mine = [
            one for one in policies if selects(one["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"])
        ]
        assert {kind for one in mine for kind in one["spec"]["policyTypes"]} == {"Ingress", "Egress"}, label
        exposed = {port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}
        allowed = [port for one in mine for rule in one["spec"].get("ingress", []) for port in rule["ports"]]
        assert all(port["port"] in exposed and port["protocol"] == "TCP" for port in allowed)
        for one in mine:
            for rule in one["spec"].get("ingress", []):
                assert rule["from"], "a rule without peers lets everyone in"
            for rule in one["spec"].get("egress", []):
                assert rule["to"]
                assert rule["ports"]


def test_a_server_calls_out_only_where_models_are_fetched(objects: list[Object]) -> None:
    labels = server(objects)["spec"]["template"]["metadata"]["labels"]
    egress = [
        rule
        for one in objects
        if one["kind"] == "NetworkPolicy" and selects(one["spec"]["podSelector"]["matchLabels"], labels)
        for rule in one["spec"].get("egress", [])
    ]
    pod = server(objects)["spec"]["template"]["spec"]
    remote = "initContainers" in pod or any("://" in one for one in settings_of(objects)["model_repository"])
    assert bool(egress) == remote


def test_a_disruption_budget_lets_a_node_be_drained(objects: list[Object]) -> None:
    budget = find(objects, "PodDisruptionBudget")
    assert budget is not None
    scaler = find(objects, "HorizontalPodAutoscaler")
    scaled = find(objects, "ScaledObject")
    fewest = (
        at(scaler, "spec.minReplicas")
        or at(scaled, "spec.minReplicaCount")
        or server(objects)["spec"].get("replicas", 1)
    )
    spec = budget["spec"]
    if "minAvailable" in spec:
        assert isinstance(spec["minAvailable"], int)
        assert spec["minAvailable"] < fewest
    else:
        assert spec["maxUnavailable"] not in (0, "0%")
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_no_secret_is_in_a_config_map_or_in_the_environment(objects: list[Object], pods: list[Object]) -> None:
    assert "Secret" not in {one["kind"] for one in objects}
    for one in objects:
        if one["kind"] == "ConfigMap" and not one["metadata"]["name"].startswith(f"{FULLNAME}-dashboard"):
            for name, text in one["data"].items():
                assert not SECRET.search(text), name
    for container in everyone(pods):
        for variable in container.get("env", []):
            assert not (SECRET.search(variable["name"]) and "value" in variable)


def test_credentials_reach_only_the_container_that_reads_object_storage() -> None:
    objects = render(nested({"models.fetch.from": ["s3://a/b"], "models.credentialsSecret": "bucket"}))
    holders = [one["name"] for _, pod in pod_templates(objects) for one in containers(pod) if "bucket" in str(one)]
    assert holders == ["fetch"]


def test_every_volume_that_is_mounted_is_there_and_every_one_that_is_there_is_mounted(pods: list[Object]) -> None:
    for pod in pods:
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert {volume["name"] for volume in pod["spec"]["volumes"]} == mounted - {"cache"} | (
            {"cache"} & {volume["name"] for volume in pod["spec"]["volumes"]}
        )
        for one in containers(pod):
            paths = [mount["mountPath"] for mount in one["volumeMounts"]]
            assert len(paths) == len(set(paths))


def test_what_the_user_names_cannot_move_the_selectors() -> None:
    mine = {"app.kubernetes.io/name": "other", "app.kubernetes.io/component": "other", "team": "search"}
    values = nested({"commonLabels": mine, "podLabels": mine, "service.labels": mine})
    labels = server(render(values))["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "search"
    assert selects(server(render(values))["spec"]["selector"]["matchLabels"], labels)
    assert server(render(values))["spec"]["selector"] == server(render({}))["spec"]["selector"]


def test_a_changed_setting_rolls_the_pods_and_a_new_chart_version_alone_does_not() -> None:
    annotation = "spec.template.metadata.annotations['checksum/config']"
    before, after = (at(server(render(nested(values))), annotation) for values in ({}, {"config.log_verbose": 1}))
    assert before != after
    template = server(render({}))["spec"]["template"]
    assert "helm.sh/chart" not in template["metadata"]["labels"]


def test_the_reader_of_these_tests_refuses_a_key_that_is_there_twice() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match="team is there twice"):
        load_yaml("labels:\n  team: a\n  team: b\n")
