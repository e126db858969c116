import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from erg_server.repository import check as checking
from erg_server.repository.check import check_paths
from erg_server.repository.cli import check
from erg_server.repository.publication import publish

from tests.server.repository.builders import IDENTITY_CONFIG, add_model, external_tensor, relu
from tests.server.repository.test_manifest import FULL

BACKENDS = frozenset({"identity", "onnxruntime"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    return root


def faults(path: Path) -> dict[str, list[str]]:
    return {report.name: [str(problem) for problem in report.problems] for report in check_paths([path], BACKENDS)}


def test_sound_models_are_ok(root: Path) -> None:
    add_model(root, "a", relu())
    add_model(root, "b", None, IDENTITY_CONFIG)
    reports = check_paths([root], BACKENDS)
    assert [(report.name, report.ok, report.backend, report.versions) for report in reports] == [
        ("a", True, "onnxruntime", (1,)),
        ("b", True, "identity", (1,)),
    ]
    assert faults(root / "a") == {"a": []}


def test_every_model_is_checked_whatever_the_others_are(root: Path) -> None:
    add_model(root, "key", relu(), "max_batch: 3")
    unsafe = relu()
    unsafe.graph.initializer.append(external_tensor("/etc/passwd"))
    add_model(root, "unsafe", unsafe)
    add_model(root, "bad name", relu())
    labels = IDENTITY_CONFIG.replace('name: "y"', 'name: "y" label_filename: "labels.txt"')
    add_model(root, "labels", None, labels)
    add_model(root, "backend", None, IDENTITY_CONFIG.replace("identity", "identitty"))
    (root / "link").symlink_to("key")
    (root / ".erg-staging-1").mkdir()
    found = {name: "\n".join(told) for name, told in faults(root).items()}
    assert "config.pbtxt:1: max_batch: unknown key; did you mean 'max_batch_size'?" in found["key"]
    assert "external data" in found["unsafe"]
    assert "cannot name a model" in found["bad name"]
    assert "there is no 'labels.txt'" in found["labels"]
    assert "did you mean 'identity'?" in found["backend"]
    assert "symbolic link" in found["link"]
    assert "left behind" in found[".erg-staging-1"]


def test_a_model_whose_weights_are_built_elsewhere_is_checked_as_far_as_it_goes(root: Path) -> None:
    (root / "m").mkdir()
    (root / "m" / "config.pbtxt").write_text("max_batch_size: 8\n")
    [report] = check_paths([root], BACKENDS)
    assert report.ok
    assert "has no version yet" in str(report.problems[0])
    (root / "m" / "config.pbtxt").write_text("max_batch_size: -8\n")
    assert not check_paths([root], BACKENDS)[0].ok


def test_a_name_in_two_repositories_is_told(root: Path, tmp_path: Path) -> None:
    add_model(root, "m", relu())
    add_model(tmp_path / "second", "m", relu())
    first, second = check_paths([root, tmp_path / "second"], BACKENDS)
    assert first.ok
    assert f"in {root} too" in str(second.problems[0])


def test_an_empty_repository_is_told(root: Path) -> None:
    assert "holds no models" in faults(root)[""][0]


@pytest.fixture
def installed(monkeypatch) -> None:
    monkeypatch.setattr(checking, "installed_backends", lambda: BACKENDS)


@pytest.mark.usefixtures("installed")
def test_the_command_exits_with_what_it_found(root: Path) -> None:
    add_model(root, "m", relu())
    good = CliRunner().invoke(check, [str(root)])
    assert (good.exit_code, good.output.splitlines()) == (
        0,
        ["ok m  onnxruntime, versions 1", "1 model checked"],
    )
    (root / "m" / "config.pbtxt").write_text("\nnam: 'm'")
    bad = CliRunner().invoke(check, [str(root)])
    assert bad.exit_code == 1
    assert f"{root}/m/config.pbtxt:2 error nam: unknown key; did you mean 'name'?" in bad.output
    assert CliRunner().invoke(check, [str(root / "missing")]).exit_code == 2
    assert CliRunner().invoke(check, []).exit_code == 2
    assert CliRunner().invoke(check, [str(root), "--format", "xml"]).exit_code == 2


@pytest.mark.usefixtures("installed")
def test_json_is_for_tools(root: Path) -> None:
    add_model(root, "m", relu(), "\nnam: 'm'")
    result = CliRunner().invoke(check, [str(root), "--format", "json"])
    assert result.exit_code == 1
    [report] = json.loads(result.output)
    assert (report["model"], report["ok"]) == ("m", False)
    assert report["problems"] == [
        {
            "severity": "error",
            "path": str(root / "m" / "config.pbtxt"),
            "line": 2,
            "key": "nam",
            "message": "unknown key",
            "suggestion": "did you mean 'name'?",
        }
    ]


def publish_artifacts(root: Path, tmp_path: Path, backend: str = "openvino") -> None:
    """FULL's two artifacts, the second by `backend`, as version 1 of m."""
    build = tmp_path / "build"
    (build / "int8").mkdir(parents=True)
    for file in ("model.onnx", "int8/model.onnx"):
        (build / file).write_bytes(relu().SerializeToString())
    source, int8 = FULL.artifacts
    artifacts = (source, dataclasses.replace(int8, backend=backend, name="[b]int8"))
    selected = tuple(dataclasses.replace(each, artifact=f"[b]{each.artifact}") for each in FULL.selected[:1])
    publish(root, "m", build, dataclasses.replace(FULL, golden=None, artifacts=artifacts, selected=selected))


@pytest.mark.usefixtures("installed")
def test_what_a_manifest_knows_is_shown(root: Path, tmp_path: Path) -> None:
    publish_artifacts(root, tmp_path, "identity")
    result = CliRunner().invoke(check, [str(root)])
    assert result.exit_code == 0, result.output
    rows = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "[b]int8 int8/model.onnx identity bf16 PERFORMANCE_HINT=LATENCY at most 8 0.0 cpu (choice 1)" in rows
    assert "int8 top1 0.9 [0.8, 0.95] at 95% -0.01 [-0.02, 0.001] 50" in rows
    assert "int8 cpu openvino bf16 8 128 2 0.12 3.10 x 1 8000" in rows
    assert "int8 cpu 8 128 worth it 3.1 x, at least 2" in rows
    [report] = json.loads(CliRunner().invoke(check, [str(root), "--format", "json"]).output)
    results = report["results"]["1"]
    assert [artifact["name"] for artifact in results["artifacts"]] == ["source", "[b]int8"]
    assert results["measurements"][1]["cpu_ratio"] == 3.1
    assert results["accuracy"][1]["drop_high"] == 0.001
    assert [verdict["verdict"] for verdict in results["verdicts"]] == ["worth it", "refused"]


@pytest.mark.usefixtures("installed")
def test_a_selection_that_nothing_here_can_serve_is_told(root: Path, tmp_path: Path) -> None:
    publish_artifacts(root, tmp_path, "onnxruntim")
    [report] = check_paths([root], BACKENDS)
    assert not report.ok
    told = "\n".join(map(str, report.problems))
    assert "selected: model 'm': nothing that its manifest selects for cpu can be served" in told
    assert "'onnxruntim', which is not installed, are passed over; did you mean 'onnxruntime'?" in told


def test_an_artifact_outside_its_version_is_told(root: Path, tmp_path: Path) -> None:
    publish_artifacts(root, tmp_path)
    path = root / "m" / "1" / "manifest.json"
    path.write_text(path.read_text().replace('"file": "int8/model.onnx"', '"file": "../../x.onnx"'))
    assert any("is not a path inside" in told for told in faults(root)["m"])
