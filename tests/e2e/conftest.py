from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import ServerProcess, write_identity, write_mlp

MLP_CONFIG = """
name: "mlp"
platform: "onnxruntime_onnx"
max_batch_size: 32
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] label_filename: "labels.txt" } ]
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 100 }
"""


def fill_repository(root: Path) -> Path:
    """A repository with an ONNX model, its twin without a configuration, and identities of several datatypes."""
    write_mlp(root / "mlp" / "1")
    (root / "mlp" / "config.pbtxt").write_text(MLP_CONFIG)
    (root / "mlp" / "labels.txt").write_text("".join(f"class{number}\n" for number in range(16)))
    # Its requests wait for others for a second, so whoever waits for less is never answered.
    write_mlp(root / "patient" / "1")
    (root / "patient" / "config.pbtxt").write_text(
        MLP_CONFIG.replace("mlp", "patient")
        .replace('label_filename: "labels.txt"', "")
        .replace("max_queue_delay_microseconds: 100 ", "max_queue_delay_microseconds: 1000000 ")
    )
    write_mlp(root / "bare" / "1", seed=1)
    for datatype in ("FP32", "STRING", "INT64", "FP16", "BF16", "BOOL"):
        write_identity(root, f"identity_{datatype.lower()}", datatype=f"TYPE_{datatype}", dims="-1")
    return root


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def trace_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="session")
def server(repository: Path, trace_folder: Path) -> Iterator[ServerProcess]:
    """One server for every test that leaves it as it was."""
    flags = ["--model-repository", str(repository), "--model-control-mode", "explicit", "--load-model", "*"]
    with ServerProcess(*flags, "--allow-client-shm", "--trace-folder", str(trace_folder)) as process:
        yield process


@pytest.fixture
def own_repository(tmp_path: Path) -> Path:
    """A repository that the test may change."""
    root = tmp_path / "repository"
    write_mlp(root / "mlp" / "1")
    (root / "mlp" / "config.pbtxt").write_text(MLP_CONFIG.replace('label_filename: "labels.txt"', ""))
    return root
