"""The files for KServe: fields that its API has, flags that the server has, and a pod that a platform team accepts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from erg_server import __version__
from erg_server.cli import serve
from erg_server.settings import ServeSettings

from tests.e2e.server_process import ServerProcess, write_mlp
from tests.helm.api_models import ApiModels

FOLDER = Path(__file__).resolve().parents[2] / "kserve"
CLASSES = {"ClusterServingRuntime": "V1alpha1ClusterServingRuntime", "InferenceService": "V1beta1InferenceService"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


(RUNTIME,) = documents("clusterservingruntime.yaml")
SERVICES = documents("inferenceservice.yaml")
(CONTAINER,) = RUNTIME["spec"]["containers"]


def settings(name: str) -> dict[str, Any]:
    """What the server reads from the runtime's arguments, as KServe fills them in for an InferenceService."""
    command, *flags = [argument.replace("{{.Name}}", name) for argument in CONTAINER["args"]]
    assert command == "serve"
    stated = serve.make_context("serve", flags).params
    return {key: value for key, value in stated.items() if value not in (None, ())}


@pytest.mark.parametrize("document", [RUNTIME, *SERVICES], ids=lambda document: document["metadata"]["name"])
def test_kserves_api_has_every_field(document: dict[str, Any]) -> None:
    models = ApiModels("kubernetes", "kserve")
    assert list(models.problems(document, CLASSES[document["kind"]])) == []


@pytest.mark.parametrize(
    ("path", "key", "wrong", "told"),
    [
        ((), "protocolVersion", ["v2"], "no such field"),
        ((), "multiModel", "no", "is no bool"),
        (("containers", 0), "port", [], "no such field"),
        (("supportedModelFormats", 0), "name", 1, "is no str"),
    ],
)
def test_a_field_that_it_has_not_is_found(path: tuple[Any, ...], key: str, wrong: Any, told: str) -> None:
    broken = copy.deepcopy(RUNTIME)
    at = broken["spec"]
    for step in path:
        at = at[step]
    at[key] = wrong
    (problem,) = ApiModels("kubernetes", "kserve").problems(broken, "V1alpha1ClusterServingRuntime")
    assert told in problem


def test_the_arguments_are_the_servers_and_its_ports_are_named() -> None:
    assert settings("minilm") == {
        "model_repository": ("/mnt/models",),
        "model_name": "minilm",
        "drain_delay_secs": 5.0,
        "exit_timeout_secs": 60.0,
        "log_format": "json",
        "trace_folder": "/tmp",
    }
    defaults = ServeSettings()
    assert CONTAINER["ports"] == [{"name": "h2c", "containerPort": defaults.grpc_port, "protocol": "TCP"}]
    assert CONTAINER["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": defaults.metrics_port}
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == str(defaults.metrics_port)


def test_images_are_those_of_this_version() -> None:
    images = [CONTAINER["image"], *(service["spec"]["predictor"]["model"].get("image") for service in SERVICES)]
    assert images == [f"erg:{__version__}-cpu", None, f"erg:{__version__}-cuda"]


def test_the_container_has_no_privilege_and_bounds() -> None:
    security = CONTAINER["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["resources"]["limits"].keys() == {"cpu", "memory"}
    # What it writes: traces, and files of load requests.
    assert {mount["mountPath"] for mount in CONTAINER["volumeMounts"]} == {settings("m")["trace_folder"]}


def test_nothing_is_there_that_knative_refuses() -> None:
    assert len(CONTAINER["ports"]) == 1
    assert CONTAINER.keys().isdisjoint({"lifecycle", "livenessProbe", "startupProbe"})


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service["metadata"]["name"])
def test_an_inference_service_fits_its_runtime(service: dict[str, Any]) -> None:
    predictor, spec = service["spec"]["predictor"], RUNTIME["spec"]
    model = predictor["model"]
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    assert model["protocolVersion"] in spec["protocolVersions"]
    assert model["modelFormat"]["name"] in {known["name"] for known in spec["supportedModelFormats"]}
    stated = settings(service["metadata"]["name"])
    needed_s = stated["drain_delay_secs"] + stated["exit_timeout_secs"] + 10
    assert predictor["terminationGracePeriodSeconds"] >= needed_s


@pytest.mark.e2e
@pytest.mark.parametrize(("layout", "name"), [("minilm", "minilm"), (".", "served-as")])
def test_a_repository_and_one_models_folder_are_served_by_these_arguments(
    tmp_path: Path, layout: str, name: str
) -> None:
    write_mlp(tmp_path / layout / "1")
    told = [argument.replace("{{.Name}}", "served-as") for argument in CONTAINER["args"][1:]]
    flags = [argument.replace("/mnt/models", str(tmp_path)) for argument in told if "drain-delay" not in argument]
    with ServerProcess(*flags, "--cpu-workers", "1") as server:
        assert server.http(f"/readyz?model={name}") == (200, "ready\n")
