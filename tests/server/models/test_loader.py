"""What a version must do before it serves, where it runs, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from erg_server.datatype import DataType
from erg_server.errors import ErgError, FailedPreconditionError, InternalError, InvalidArgumentError, NotFoundError
from erg_server.repository.manifest import Artifact, Golden, Manifest, Selection
from erg_server.repository.publication import publish
from erg_server.tensor import Tensor

from tests.server.models.harness import CONFIG, FakeWorker, Harness, tensor
from tests.server.repository.builders import relu

SIDES = {
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2]}],
}
WARMUP = """
model_warmup { name: "two" batch_size: 2 count: 3
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "x.bin" } } }
"""


@pytest.fixture
async def harness(tmp_path: Path) -> Harness:
    return Harness(root=tmp_path / "repo")


def publish_golden(harness: Harness, tmp_path: Path, *outputs: Tensor, config: str = CONFIG) -> None:
    build = tmp_path / "build"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    (build / "weights").write_bytes(b"w")
    kind = outputs[0].datatype
    value = Tensor("x", kind, outputs[0].shape, outputs[0].data)
    if kind is DataType.FP32:
        value = tensor("x", np.zeros((1, 2), np.float32))
    golden = Golden(inputs=(value,), outputs=outputs, absolute_tolerance=0.1, relative_tolerance=0.0)
    publish(harness.root, "m", build, Manifest(model="m", golden=golden), config)


def overridden(harness: Harness) -> list[Path]:
    root = harness.repository._overrides._root
    return [] if root is None else list(root.iterdir())


async def load_with_files(harness: Harness, content: bytes = b"w", version: int = 1) -> None:
    config = json.dumps({"backend": "identity", "max_batch_size": 4} | SIDES)
    await harness.registry.load("m", config, {f"file:{version}/weights": content})


async def test_a_version_that_does_not_reproduce_its_golden_sample_never_serves(
    harness: Harness, tmp_path: Path
) -> None:
    publish_golden(harness, tmp_path, tensor("y", np.zeros((1, 2), np.float32)))
    await harness.load()
    publish_golden(harness, tmp_path, tensor("y", np.full((1, 2), 0.25, np.float32)))
    with pytest.raises(FailedPreconditionError, match=r"version 2 does not reproduce .* 'y' differs by up to 0.25"):
        await harness.load()
    assert (await harness.infer()).model_version == "1"
    assert [model.version for model in harness.worker.models.values()] == [1]


async def test_a_golden_sample_within_its_tolerance_passes(harness: Harness, tmp_path: Path) -> None:
    harness.worker.bias = 0.09
    publish_golden(harness, tmp_path, tensor("y", np.zeros((1, 2), np.float32)))
    await harness.load()
    assert harness.registry.model_ready("m", "1")


@pytest.mark.parametrize(
    ("array", "message"),
    [(np.full((1, 2), np.nan, np.float32), "differs by"), (np.zeros((2, 1), np.float32), r"should be FP32 \[2, 1\]")],
    ids=["nan", "shape"],
)
async def test_a_golden_answer_that_cannot_be_met_is_told(
    harness: Harness, tmp_path: Path, array: np.ndarray, message: str
) -> None:
    publish_golden(harness, tmp_path, tensor("y", array))
    with pytest.raises(FailedPreconditionError, match=message):
        await harness.load()


@pytest.mark.parametrize(
    ("kind", "array", "other"),
    [
        (DataType.BF16, np.array([[0x3F80, 0x4000]], np.uint16), np.array([[0x3F80, 0x4040]], np.uint16)),
        (DataType.BYTES, np.array([[b"a", b"b"]], object), np.array([[b"a", b"c"]], object)),
    ],
    ids=["bf16", "bytes"],
)
async def test_golden_samples_of_every_kind_are_compared_by_value(
    harness: Harness, tmp_path: Path, kind: DataType, array: np.ndarray, other: np.ndarray
) -> None:
    config = CONFIG.replace("FP32", "STRING" if kind is DataType.BYTES else kind.value)
    publish_golden(harness, tmp_path, tensor("y", array, kind), config=config)
    await harness.load()
    # One bit of a BF16 is less than the tolerance, however large its number.
    near = tensor("y", array + np.uint16(1) if kind is DataType.BF16 else array, kind)
    for answer, passes in ((near, True), (tensor("y", other, kind), False)):
        golden = Golden(inputs=(tensor("x", array, kind),), outputs=(answer,), absolute_tolerance=0.1)
        build = tmp_path / "build"
        version = publish(harness.root, "m", build, Manifest(model="m", golden=golden))
        if passes:
            await harness.load()
        else:
            with pytest.raises(FailedPreconditionError, match="golden"):
                await harness.load()
        assert harness.registry.model_ready("m", str(version)) == passes


async def test_files_that_are_not_those_of_the_manifest_never_reach_a_worker(harness: Harness, tmp_path: Path) -> None:
    publish_golden(harness, tmp_path, tensor("y", np.zeros((1, 2), np.float32)))
    (harness.root / "m" / "1" / "weights").write_bytes(b"x")
    with pytest.raises(FailedPreconditionError, match="weights"):
        await harness.load()
    assert not harness.worker.loading.is_set()


async def test_warm_up_samples_run_as_often_as_stated_and_are_nobodys_requests(harness: Harness) -> None:
    folder = harness.write(config=CONFIG + WARMUP) / "warmup"
    folder.mkdir()
    (folder / "x.bin").write_bytes(np.ones(2, np.float32).tobytes())
    await harness.load()
    assert harness.worker.batches == [(1, 2)] * 3
    assert harness.registry.resolve("m", "").meter.success_count == 0


@pytest.mark.parametrize(("content", "message"), [(b"1234", "8 bytes where FP32"), (None, "'warmup/x.bin' is not in")])
async def test_a_warm_up_sample_that_fails_refuses_the_version(
    harness: Harness, content: bytes | None, message: str
) -> None:
    folder = harness.write(config=CONFIG + WARMUP) / "warmup"
    folder.mkdir()
    if content is not None:
        (folder / "x.bin").write_bytes(content)
    with pytest.raises(FailedPreconditionError, match=f"warm-up sample 'two' failed.*{message}"):
        await harness.load()
    assert not harness.worker.models


async def test_a_model_without_samples_that_fails_on_zeros_serves_all_the_same(harness: Harness) -> None:
    harness.write()
    harness.worker.batch_failure = lambda _: InternalError("zeros do not suit it")
    await harness.load()
    assert harness.registry.model_ready("m", "1")


@pytest.mark.parametrize(
    ("content", "error"), [(None, NotFoundError), (b"\xff\xfe", InvalidArgumentError)], ids=["missing", "not UTF-8"]
)
async def test_a_label_file_that_cannot_be_read_refuses_the_version(
    harness: Harness, content: bytes | None, error: type[ErgError]
) -> None:
    config = CONFIG.replace('name: "y"', 'name: "y" label_filename: "labels.txt"')
    path = harness.write(config=config) / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=r"labels\.txt"):
        await harness.load()
    assert not harness.worker.models
    path.write_text("cat\ndog\n")
    await harness.load()
    assert harness.registry.resolve("m", "").labels == {"y": ("cat", "dog")}


async def test_files_of_a_load_request_stay_while_their_version_serves_and_go_when_it_retires(
    harness: Harness,
) -> None:
    await load_with_files(harness)
    (folder,) = overridden(harness)
    assert harness.registry.resolve("m", "").definition.path == folder
    assert (folder / "1" / "weights").read_bytes() == b"w"
    await load_with_files(harness)
    assert overridden(harness) == [folder], "the same files again are not kept twice"
    await load_with_files(harness, b"other")
    await harness.settle()
    (newer,) = overridden(harness)
    assert newer != folder
    await harness.registry.unload("m")
    await harness.settle()
    assert overridden(harness) == []


async def test_files_of_a_load_request_that_fails_are_removed(harness: Harness) -> None:
    harness.worker.load_failure = lambda _: InternalError("broken")
    with pytest.raises(InternalError):
        await load_with_files(harness)
    assert overridden(harness) == []


async def test_files_outlive_the_requests_that_run_on_them(harness: Harness) -> None:
    await load_with_files(harness)
    harness.worker.may_run = False
    running = harness.registry.resolve("m", "")
    task = asyncio.create_task(harness.infer())
    await asyncio.sleep(0)
    await harness.registry.unload("m")
    assert overridden(harness) == [running.definition.path]
    harness.worker.run()
    await task
    await harness.settle()
    assert overridden(harness) == []


@pytest.mark.parametrize(
    ("group", "chosen"),
    [
        ("", ["gpu0", "gpu1"]),
        ("kind: KIND_CPU", ["cpu0", "cpu1"]),
        ("kind: KIND_CPU count: 1", ["cpu0"]),
        ("kind: KIND_GPU gpus: [ 1 ] count: 3", ["gpu1"]),
    ],
)
async def test_the_instance_group_says_which_workers_get_a_model(tmp_path: Path, group: str, chosen: list[str]) -> None:
    workers = tuple(FakeWorker(number, kind) for kind in ("cpu", "gpu") for number in (0, 1))
    harness = Harness(root=tmp_path / "repo", workers=workers)
    harness.write(config=CONFIG + (f"instance_group {{ {group} }}" if group else ""))
    await harness.load()
    assert [worker.name for worker in workers if worker.models] == chosen


async def test_a_device_that_is_not_there_is_told_with_those_that_are(harness: Harness) -> None:
    harness.write(config=CONFIG + "instance_group { kind: KIND_GPU gpus: [ 0 ] }")
    with pytest.raises(FailedPreconditionError, match=r"kind GPU on GPUs \[0\]; this server has cpu0"):
        await harness.load()


async def test_a_version_runs_as_the_artifact_that_its_manifest_selects(harness: Harness, tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "fast").mkdir(parents=True)
    for file in ("model.onnx", "fast/model.onnx"):
        (build / file).write_bytes(relu(("batch", 2), output_shape=("batch", 2)).SerializeToString())
    fast = Artifact(name="fast", file="fast/model.onnx", backend="openvino", precision="bf16", batch_limit=2)
    selected = (Selection(device="cpu", artifact="fast"),)
    publish(harness.root, "m", build, Manifest(model="m", artifacts=(fast,), selected=selected))
    await harness.load()
    [loaded] = harness.worker.models.values()
    assert loaded.model_path == harness.root / "m" / "1" / "fast" / "model.onnx"
    assert (loaded.config.backend, loaded.spec.backend) == ("openvino", "openvino")
    assert loaded.config.parameters["INFERENCE_PRECISION_HINT"].string_value == "bf16"
    served = harness.registry.resolve("m", "")
    assert served.config.backend == "openvino"
    assert served.queue.batcher.limits.max_rows == 2
    assert (await harness.infer(rows=4)).outputs[0].shape == (4, 2)
    (harness.root / "m" / "config.pbtxt").write_text('backend: "onnxruntime"')
    await harness.load()
    await harness.settle()
    [loaded] = harness.worker.models.values()
    assert (loaded.config.backend, loaded.model_path.parent.name) == ("onnxruntime", "1")
