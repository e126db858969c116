"""The CPU image, built here by the Dockerfile that is shipped: its layers, its contents, and a request to it."""

from __future__ import annotations

import json
import queue
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.e2e.server_process import mlp_weights, write_mlp
from tests.image import storage
from tests.image.conftest import BuiltImage
from tests.image.container import Container, output
from tests.image.dockerfile import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

MOST_BYTES = 400_000_000
"""All layers, not compressed, on the stand-in base."""
BUILD_TOOLS = re.compile(
    r"(^|/)s?bin/(gcc|g\+\+|cc|c\+\+|cpp|ld|as|make|apt|apt-get|perl|pip[\d.]*|git|curl|wget)(-[\d.]+)?$"
    r"|/(pip|setuptools|wheel|ensurepip|mypy|mypyc|hatchling|cyclonedx)/__init__\.py$"
    r"|^(etc|var/lib|var/cache)/apt(/|$)|^(tools|src|wheels|root/\.cache)(/|$)|\.whl$|\.pyi$|(^|/)pip\.conf$|(^|/)tests/"
)


LOOK_INSIDE = """
import importlib.metadata, json, os, pathlib, platform, struct, subprocess, sys
import erg_server.bootstrap

def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

def refusal(path):
    try:
        pathlib.Path(path, "written").write_text("x")
    except OSError as error:
        return error.strerror

cached = {module.__name__: module.__cached__ for module in list(sys.modules.values())
          if getattr(module, "__cached__", None) and str(module.__file__).endswith(".py")}
print(json.dumps({
    "sbom": pathlib.Path("/usr/share/doc/erg/sbom.json").read_text(),
    "distributions": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()},
    "packages": said("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\\n"),
    "python": platform.python_version(),
    "erg": said("erg", "--version"),
    "sleep": said("sleep", "0"),
    "complaints": subprocess.run([sys.executable, "-c", "import onnxruntime, openvino"],
                                 capture_output=True, text=True, check=True).stderr,
    "ids": [os.getuid(), os.getgid()],
    "home": os.environ["HOME"],
    "refusals": {path: refusal(path) for path in ("/", "/opt/erg", "/models", "/var/cache/erg", "/tmp")},
    "bytecode": {name: struct.unpack("<I", open(path, "rb").read(8)[4:])[0] for name, path in cached.items()},
}))
"""


@pytest.fixture(scope="module")
def inside(built: BuiltImage) -> dict[str, Any]:
    """What a program of the image sees, run as the server is."""
    found: dict[str, Any] = json.loads(output(built.name, "python", "-c", LOOK_INSIDE))
    return found


@pytest.fixture(scope="module")
def layers(built: BuiltImage) -> list[Path]:
    manifest = json.loads((built.folder / "manifest.json").read_text())
    return [built.folder / layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]]


@pytest.fixture(scope="module")
def config(built: BuiltImage) -> dict[str, Any]:
    manifest = json.loads((built.folder / "manifest.json").read_text())
    document = json.loads((built.folder / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    config: dict[str, Any] = document["config"]
    return config | {"created": document["created"], "history": document["history"]}


@pytest.fixture(scope="module")
def members(layers: list[Path]) -> list[tarfile.TarInfo]:
    found = []
    for layer in layers:
        with tarfile.open(layer) as archive:
            found += archive.getmembers()
    return found


def test_its_configuration_starts_erg_as_a_user_by_number(config) -> None:
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["erg"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8001", "8002"} or set(config["ExposedPorts"]) == {"8001/tcp", "8002/tcp"}
    assert "HOME=/var/cache/erg" in config["Env"]


def test_its_labels_say_what_it_is_and_what_it_was_built_from(config, inside) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "Erg"
    assert labels["version"] == inside["distributions"]["erg"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
    assert labels["source"] == "https://erg.example/source"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["created"] == "2023-11-14T22:13:20Z"
    assert labels["base.name"] == storage.BASE


def test_nothing_in_it_is_younger_than_the_commit(config, members: list[tarfile.TarInfo]) -> None:
    assert config["created"].startswith("2023-11-14T22:13:20")
    assert {member.mtime for member in members} == {1_700_000_000}


def test_no_layer_holds_what_builds_or_installs(members: list[tarfile.TarInfo]) -> None:
    assert not [member.name for member in members if BUILD_TOOLS.search(member.name.removeprefix("./"))]


def test_no_layer_hides_files_of_another(members: list[tarfile.TarInfo]) -> None:
    assert not [member.name for member in members if "/.wh." in member.name]


def test_no_file_gains_rights_and_none_is_for_everybody_to_write(members: list[tarfile.TarInfo]) -> None:
    files = [member for member in members if member.isfile()]
    assert not [member.name for member in files if member.mode & 0o6000]
    assert not [member.name for member in files if member.mode & 0o002]
    folders = [member.name for member in members if member.isdir() and member.mode & 0o002 and not member.mode & 0o1000]
    assert not folders


def test_its_user_owns_its_cache_and_nothing_else(members: list[tarfile.TarInfo]) -> None:
    assert {m.name.strip("./") for m in members if 10001 in (m.uid, m.gid)} == {"var/cache/erg"}


def test_no_byte_of_a_secret_is_in_a_layer_or_the_history(built: BuiltImage) -> None:
    secret, known = built.canary.encode(), b"from erg_server.errors import"
    contents = {path: path.read_bytes() for path in built.folder.iterdir()}
    assert any(known in content for content in contents.values()), "layers are packed: no text would be found in them"
    assert not [path for path, content in contents.items() if secret in content]


def test_it_is_small(layers: list[Path]) -> None:
    assert sum(layer.stat().st_size for layer in layers) <= MOST_BYTES


def test_licences_are_kept(members: list[tarfile.TarInfo]) -> None:
    names = {member.name.removeprefix("./") for member in members}
    assert "usr/share/doc/libc6/copyright" in names
    assert any(re.search(r"erg-[\d.]+\.dist-info/licenses/LICENSE$", name) for name in names)


def test_its_bill_of_materials_lists_every_distribution_and_package(built: BuiltImage, inside) -> None:
    assert inside["sbom"] == built.sbom.read_text(encoding="utf-8")
    listed: dict[str, dict[str, str]] = {"pypi": {}, "deb": {}, "generic": {}}
    for component in json.loads(inside["sbom"])["components"]:
        # What was installed from a file and not from an index has no package URL.
        kind = component.get("purl", "pkg:pypi/").removeprefix("pkg:").partition("/")[0]
        listed[kind][component["name"]] = component["version"]
    assert normal(listed["pypi"]) == normal(inside["distributions"])
    packages = (line.split() for line in inside["packages"].splitlines())
    assert listed["deb"] == {name: version for name, version, status in packages if status == "installed"}
    assert listed["generic"] == {"python": inside["python"]}


def normal(versions: dict[str, str]) -> dict[str, str]:
    """The same by the names that PyPI compares."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}


def test_it_holds_the_pinned_version_of_each_package_and_no_pytorch(inside) -> None:
    stated = (line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:])
    pinned, installed = normal(dict(stated)), normal(inside["distributions"])
    assert {"onnxruntime", "openvino", "obstore", "erg"} <= set(installed)
    assert not {"torch", "pip", "setuptools", "transformers"} & set(installed)
    del installed["erg"]
    assert {name: pinned.get(name) for name in installed} == installed


def test_its_request_path_is_compiled(inside) -> None:
    assert "(compiled)" in inside["erg"]


def test_it_runs_as_its_own_user_and_writes_nowhere(inside) -> None:
    assert inside["ids"] == [10001, 10001]
    assert inside["home"] == "/var/cache/erg"
    # podman mounts /tmp itself; elsewhere it takes a mount.
    assert inside["refusals"].pop("/tmp") is None
    assert set(inside["refusals"].values()) == {"Read-only file system"}


def test_its_backends_report_to_nobody(config, inside) -> None:
    """ONNX Runtime sends usage to its makers unless told not to, and warns where it cannot keep an id."""
    assert "ORT_DISABLE_TELEMETRY=1" in config["Env"]
    assert not inside["complaints"]


def test_its_bytecode_is_named_by_sources_and_not_by_times(inside) -> None:
    """By time it would be stale once the layers' times are set, and be compiled again at every start."""
    assert len(inside["bytecode"]) > 100
    assert not [name for name, flags in inside["bytecode"].items() if flags != 1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model for each backend; `patient` waits for others to share a batch with."""
    root = tmp_path_factory.mktemp("models")
    for seed, (name, platform, delay_us) in enumerate(
        (("mlp", 'platform: "onnxruntime_onnx"', 100), ("ov", 'backend: "openvino"', 100),
         ("patient", 'platform: "onnxruntime_onnx"', 2_000_000))
    ):  # fmt: skip
        write_mlp(root / name / "1", seed=seed)
        (root / name / "config.pbtxt").write_text(
            f'name: "{name}"\n{platform}\nmax_batch_size: 32\n'
            'input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
            'output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
            f"dynamic_batching {{ preferred_batch_size: [ 8 ] max_queue_delay_microseconds: {delay_us} }}\n"
        )
    # As a node's volume: another user's, and readable.
    for path in (root, *root.parents[:2], *root.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return root


@pytest.fixture
def container(built: BuiltImage, models: Path) -> Iterator[Container]:
    with Container(built.name, models, "erg-image-test", "--latency-cache=/var/cache/erg/latency.json") as running:
        yield running


def request(array: np.ndarray) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


def test_it_serves_both_backends_read_only_and_finishes_what_it_took_when_it_is_stopped(container: Container) -> None:
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    with triton.InferenceServerClient(container.grpc_address) as client:
        for seed, name in enumerate(("mlp", "ov")):
            answer = client.infer(name, request(x)).as_numpy("y")
            assert np.allclose(answer, np.maximum(x @ mlp_weights(seed), 0), atol=1e-4), name
        with urlopen(f"http://{container.metrics_address}/readyz") as ready:
            assert ready.status == 200
        assert output_of_id(container) == "10001 10001"
        answers: queue.SimpleQueue[tuple[triton.InferResult, object]] = queue.SimpleQueue()
        client.async_infer("patient", request(x), callback=lambda result, error: answers.put((result, error)))
        wait_until_taken(container, "patient")
        status = container.stop()
        result, error = answers.get(timeout=10)
    assert status == 0, "".join(container.log[-40:])
    assert error is None
    assert np.allclose(result.as_numpy("y"), np.maximum(x @ mlp_weights(2), 0), atol=1e-4)


def output_of_id(container: Container) -> str:
    """User and group of the container's first process, as the node's kernel has them."""
    shown = storage.run(["podman", "inspect", "--format", "{{.State.Pid}}", container.name])
    status = Path(f"/proc/{shown.strip()}/status").read_text(encoding="utf-8")
    return " ".join(re.findall(r"^[UG]id:\s+(\d+)", status, re.MULTILINE))


def wait_until_taken(container: Container, model: str) -> None:
    """Until the server's own count says that a request of that model waits."""
    pattern = re.compile(rf'^erg_queue_depth_requests{{[^}}]*model="{model}"[^}}]*}} ([\d.]+)$', re.MULTILINE)
    for _ in range(400):
        with urlopen(f"http://{container.metrics_address}/metrics") as page:
            match = pattern.search(page.read().decode())
        if match and float(match[1]) > 0:
            return
    raise AssertionError(f"no request of {model} waits")
