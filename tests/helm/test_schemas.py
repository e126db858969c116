"""What the chart renders is what API servers and operators take: by Kubernetes' schemas and by the resources' own."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils as validator

from tests.helm.api_models import ApiModels
from tests.helm.chart import (
    CHART,
    EXAMPLES,
    OLDEST,
    ROOT,
    VERSIONS,
    Object,
    RefusedError,
    at,
    example,
    example_names,
    find,
    helm,
    render,
)
from tests.tools import tool, tool_folder

CUSTOM_GROUPS = {"cert-manager.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}
# What an API server of 1.20 serves, and the client's class of it.
IN_1_20 = {
    "v1/ConfigMap": "V1ConfigMap",
    "v1/Pod": "V1Pod",
    "v1/Service": "V1Service",
    "v1/ServiceAccount": "V1ServiceAccount",
    "apps/v1/Deployment": "V1Deployment",
    "apps/v1/StatefulSet": "V1StatefulSet",
    "networking.k8s.io/v1/Ingress": "V1Ingress",
    "networking.k8s.io/v1/NetworkPolicy": "V1NetworkPolicy",
    "policy/v1beta1/PodDisruptionBudget": "V1beta1PodDisruptionBudget",
}
CHECK_S = 120


@pytest.fixture(autouse=True)
def _schemas_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads two megabytes of definitions for each object."""
    monkeypatch.setattr(validator, "schema_contents", _SCHEMA_CONTENTS)


_SCHEMA_CONTENTS = functools.cache(validator.schema_contents)


def is_custom(one: Object) -> bool:
    """Whether a CustomResourceDefinition brings its kind."""
    return str(one["apiVersion"]).split("/")[0] in CUSTOM_GROUPS


def versions_of(name: str) -> list[str]:
    """The versions of Kubernetes that an example is for: what it uses may be newer than the oldest."""
    taken = []
    for version in VERSIONS:
        try:
            render(example(name), version)
        except RefusedError as refused:
            assert f"and this is v{version}" in str(refused), refused  # noqa: PT017 (any other word is a defect)
        else:
            taken.append(version)
    return taken


def test_helm_lint_has_no_word_against_an_example(example_name: str) -> None:
    values = [] if example_name == "defaults" else ["-f", str(EXAMPLES / f"{example_name}.yaml")]
    status, out, err = helm("lint", "--strict", str(CHART), *values)
    assert status == 0, out + err
    assert "[WARNING]" not in out
    assert "[ERROR]" not in out


def test_every_object_is_one_of_its_version_of_kubernetes(example_name: str) -> None:
    versions = versions_of(example_name)
    assert versions
    for version in versions:
        for one in render(example(example_name), version):
            if not is_custom(one):
                kubernetes_validate.validate(one, version, strict=True)


def test_the_validator_refuses_a_field_that_is_not_there_and_one_of_another_type() -> None:
    service = find(render({}), "Service", "infer-erg")
    assert service is not None
    for path, wrong in (("sessionAffinty", "None"), ("ports", "8001")):
        bad = copy.deepcopy(service)
        bad["spec"][path] = wrong
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(bad, VERSIONS[0], strict=True)


def test_an_api_server_of_1_20_knows_every_field_of_the_defaults() -> None:
    models = ApiModels("kubernetes")
    objects = render({}, OLDEST)
    assert objects
    problems = [
        f"{one['kind']}/{one['metadata']['name']}{problem}"
        for one in objects
        for problem in models.problems(one, IN_1_20[f"{one['apiVersion']}/{one['kind']}"])
    ]
    assert not problems


@pytest.mark.parametrize(
    ("since", "kind", "path"),
    [
        ("1.21.0", "PodDisruptionBudget", "apiVersion"),
        ("1.27.0", "PodDisruptionBudget", "spec.unhealthyPodEvictionPolicy"),
        ("1.27.0", "Deployment", "spec.template.spec.topologySpreadConstraints[0].matchLabelKeys"),
        ("1.30.0", "Deployment", "spec.template.spec.containers[erg].lifecycle.preStop.sleep"),
    ],
)
def test_a_newer_field_is_there_from_its_version_on_and_not_before(since: str, kind: str, path: str) -> None:
    major, minor, patch = since.split(".")
    before = f"{major}.{int(minor) - 1}.{patch}"
    older, newer = (at(find(render({}, version), kind), path) for version in (before, since))
    assert newer is not None
    assert older != newer


def test_distributions_suffixes_do_not_make_a_version_older() -> None:
    assert at(
        find(render({}, "1.30.4-gke.100"), "Deployment"), "spec.template.spec.containers[erg].lifecycle.preStop"
    ) == {"sleep": {"seconds": 2}}


@functools.cache
def custom_problems() -> dict[str, list[str]]:
    """Problems of the custom resources of every example, by example; found by one run of the checker."""
    labelled = [
        (name, one) for name in ("defaults", *example_names()) for one in render(example(name)) if is_custom(one)
    ] + [("everything", one) for one in render(EVERYTHING) if is_custom(one)]
    found: dict[str, list[str]] = {}
    for (name, one), problems in zip(labelled, check_custom([one for _, one in labelled]), strict=True):
        found.setdefault(name, []).extend(f"{one['kind']}: {problem}" for problem in problems)
    return found


def check_custom(objects: list[Object]) -> list[list[str]]:
    """The problems of each, by the validators of @kubernetes-models and by the TypeScript compiler."""
    modules = tool_folder("crd-schemas") / "node_modules"
    done = subprocess.run(
        [tool("node"), ROOT / "tests" / "helm" / "crd" / "check.mjs", modules],
        input=json.dumps(objects), capture_output=True, text=True, check=False, timeout=CHECK_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    problems: list[list[str]] = json.loads(done.stdout)
    return problems


# Each custom resource at once, those that exclude each other apart.
EVERYTHING: dict[str, Any] = {
    "tls": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "ca"}}},
    "gateway": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "edge"}], "hostnames": ["a.example"]},
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "autoscaling": {
        "keda": {
            "enabled": True, "serverAddress": "http://prometheus:9090", "authenticationRef": "prometheus",
            "fallbackReplicas": 3,
            "scaleToZero": {
                "enabled": True,
                "activationTriggers": [{"type": "cron", "metadata": {"timezone": "UTC", "start": "0 8 * * *"}}],
            },
        }
    },
}  # fmt: skip


def test_every_custom_resource_is_what_its_operator_takes(example_name: str) -> None:
    assert not custom_problems().get(example_name)


def test_the_most_of_every_custom_resource_is_what_its_operator_takes() -> None:
    kinds = {one["kind"] for one in render(EVERYTHING) if is_custom(one)}
    assert kinds >= {"Certificate", "GRPCRoute", "PodMonitor", "ScaledObject"}
    assert custom_problems()["everything"] == []


def test_the_checker_refuses_an_unknown_field_a_wrong_type_and_a_broken_pattern() -> None:
    monitor = find(render({"monitoring": {"serviceMonitor": {"enabled": True}}}), "ServiceMonitor")
    assert monitor is not None
    bad = []
    for path, wrong in (("intervall", "15s"), ("interval", 15), ("interval", "15 s")):
        bad.append(copy.deepcopy(monitor))
        bad[-1]["spec"]["endpoints"][0][path] = wrong
    assert all(check_custom(bad))
