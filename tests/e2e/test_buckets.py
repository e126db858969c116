"""A server whose models lie in a real S3 bucket: they come, change, break and go while it serves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from click.testing import CliRunner, Result
from erg_server.repository.manifest import Manifest
from erg_server.repository.publication import publish
from erg_server.storage.cli import fetch
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, mlp_weights, write_mlp
from tests.e2e.test_lifecycle import fp32, until
from tests.object_store import BUCKET, SECRET_KEY, ObjectStore

pytestmark = pytest.mark.e2e
pytest.importorskip("obstore", reason="the extra 'store' is not installed")

X = np.ones((1, 16), np.float32)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    server = ObjectStore()
    yield server
    server.close()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:60]


def publish_mlp(folder: Path, seed: int) -> int:
    """Publish as `erg convert` does: with a manifest of digests."""
    build = folder / f"build-{seed}"
    write_mlp(build, seed=seed)
    return publish(folder / "repository", "mlp", build, Manifest(model="mlp"))


def serve(
    store: ObjectStore, prefix: str, cache: Path, *flags: str, bucket: str = BUCKET, env: dict[str, str] | None = None
) -> ServerProcess:
    return ServerProcess(
        "--model-repository", f"s3://{bucket}/{prefix}", "--model-cache", str(cache), "--cpu-workers", "1",
        "--repository-poll-secs", "0.2", *flags, env=store.environment(**(env or {})),
    )  # fmt: skip


def answer(server: ServerProcess) -> tuple[np.ndarray, str]:
    with triton.InferenceServerClient(server.grpc_address) as client:
        result = client.infer("mlp", [fp32(X)])
        return result.as_numpy("y"), result.get_response().model_version


def is_served(server: ServerProcess, seed: int, version: str) -> bool:
    try:
        y, got = answer(server)
    except InferenceServerException:
        return False
    return got == version and np.allclose(y, np.maximum(X @ mlp_weights(seed), 0), atol=1e-5)


def test_a_model_is_served_from_the_bucket_and_follows_it(store: ObjectStore, prefix: str, tmp_path: Path) -> None:
    publish_mlp(tmp_path, 1)
    store.upload(tmp_path / "repository", prefix)
    with serve(store, prefix, tmp_path / "cache", "--model-control-mode", "poll") as server:
        assert is_served(server, 1, "1")
        publish_mlp(tmp_path, 2)
        second = tmp_path / "repository" / "mlp" / "2"
        # As long as the manifest is missing, it is an upload under way.
        store.put(f"{prefix}/mlp/2/model.onnx", (second / "model.onnx").read_bytes())
        polls = server.metric("erg_repository_polls_total")
        until(lambda: server.metric("erg_repository_polls_total") >= polls + 1)
        assert is_served(server, 1, "1")
        store.put(f"{prefix}/mlp/2/manifest.json", (second / "manifest.json").read_bytes())
        until(lambda: is_served(server, 2, "2"))

        # One byte of the next version is another: it never serves, and the one before serves on.
        publish_mlp(tmp_path, 3)
        third = tmp_path / "repository" / "mlp" / "3"
        whole = (third / "model.onnx").read_bytes()
        store.put(f"{prefix}/mlp/3/model.onnx", whole[:-1] + bytes([whole[-1] ^ 1]))
        store.put(f"{prefix}/mlp/3/manifest.json", (third / "manifest.json").read_bytes())
        server.wait_for(r"mlp was not fetched: .*has sha256")
        assert is_served(server, 2, "2")
        assert server.metric("erg_repository_fetch_failures_total") == 1
        # Cut short, it is not even fetched.
        store.put(f"{prefix}/mlp/3/model.onnx", whole[:-1])
        server.wait_for(rf"'model.onnx' has {len(whole) - 1} bytes; its manifest.json says {len(whole)}")
        assert is_served(server, 2, "2")
        store.put(f"{prefix}/mlp/3/model.onnx", whole)
        until(lambda: is_served(server, 3, "3"))

        store.delete(*store.keys(f"{prefix}/mlp/3"))
        until(lambda: is_served(server, 2, "2"))
        fetched = server.metric("erg_repository_fetched_bytes_total")
        assert fetched > 0
        store.delete(*store.keys(prefix))
        until(lambda: not ready(server))
        assert SECRET_KEY not in "".join(server.log)


def ready(server: ServerProcess) -> bool:
    with triton.InferenceServerClient(server.grpc_address) as client:
        return bool(client.is_model_ready("mlp"))


def test_a_bucket_that_goes_leaves_what_is_served_and_a_restart_serves_the_cache(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    bucket, cache = "goes", tmp_path / "cache"
    store.make_bucket(bucket)
    publish_mlp(tmp_path, 1)
    store.upload(tmp_path / "repository", prefix, bucket)
    with serve(store, prefix, cache, "--model-control-mode", "poll", bucket=bucket) as server:
        store.drop_bucket(bucket)
        server.wait_for("listing s3://goes/.* failed, what is served serves on: .*NoSuchBucket")
        assert server.metric("erg_repository_poll_failures_total") >= 1
        assert is_served(server, 1, "1")
        # Two servers on one cache, of which one starts while nobody answers.
        nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
        with serve(store, prefix, cache, "--model-control-mode", "poll", bucket=bucket, env=nobody) as other:
            other.wait_for("serving what the cache has of s3://goes/.*: mlp")
            assert is_served(other, 1, "1")
        assert is_served(server, 1, "1"), "the other one's end took nothing from it"
        store.make_bucket(bucket)
        publish_mlp(tmp_path, 2)
        store.upload(tmp_path / "repository", prefix, bucket)
        server.wait_for("listing s3://goes/.* works again")
        until(lambda: is_served(server, 2, "2"))
        assert SECRET_KEY not in "".join((*server.log, *other.log))


def test_explicit_mode_fetches_when_it_is_told_to_load(store: ObjectStore, prefix: str, tmp_path: Path) -> None:
    publish_mlp(tmp_path, 1)
    store.upload(tmp_path / "repository", prefix)
    with (
        serve(store, prefix, tmp_path / "cache", "--model-control-mode", "explicit") as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        assert [entry.name for entry in client.get_model_repository_index().models] == ["mlp"]
        assert server.metric("erg_repository_fetched_bytes_total") == 0
        client.load_model("mlp")
        assert is_served(server, 1, "1")
        fetched = server.metric("erg_repository_fetched_bytes_total")
        client.load_model("mlp")
        assert server.metric("erg_repository_fetched_bytes_total") == fetched
        publish_mlp(tmp_path, 2)
        store.upload(tmp_path / "repository", prefix)
        store.put(f"{prefix}/mlp/2/model.onnx", b"x" * (tmp_path / "repository/mlp/2/model.onnx").stat().st_size)
        with pytest.raises(InferenceServerException, match="has sha256"):
            client.load_model("mlp")
        assert is_served(server, 1, "1")
        store.upload(tmp_path / "repository", prefix)
        client.load_model("mlp")
        assert is_served(server, 2, "2")
        with pytest.raises(InferenceServerException, match="no repository has a model 'other'"):
            client.load_model("other")


def test_wrong_credentials_and_addresses_with_credentials_end_the_start_without_a_secret(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    def start(location: str, **changes: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "erg_server", "serve", "--model-repository", location, "--grpc-port", "0",
             "--metrics-port", "0", "--cpu-workers", "1", "--model-cache", str(tmp_path / "cache"),
             "--log-verbose", "1"],
            capture_output=True, text=True, timeout=60, env=os.environ | store.environment(**changes), check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    wrong = "not-the-secret-of-this-store"
    status, text = start(f"s3://{BUCKET}/{prefix}", AWS_SECRET_ACCESS_KEY=wrong)
    assert status == 1
    assert "SignatureDoesNotMatch" in text
    assert "check the credentials in the environment" in text
    assert wrong not in text
    status, text = start(f"s3://{BUCKET}/{prefix}", AWS_ENDPOINT_URL=f"http://user:{SECRET_KEY}@127.0.0.1:1")
    assert (status, "error sending request" in text, SECRET_KEY in text) == (1, True, False)


def test_a_bucket_is_fetched_to_a_folder_without_a_word_of_its_secret(
    store: ObjectStore, prefix: str, tmp_path: Path
) -> None:
    def run(**changes: str) -> Result:
        arguments = ["--model-repository", f"s3://{BUCKET}/{prefix}", "--to", str(tmp_path / "models")]
        return CliRunner().invoke(fetch, arguments, env=store.environment(**changes))

    publish_mlp(tmp_path, 1)
    store.upload(tmp_path / "repository", prefix)
    first, again, wrong = run(), run(), run(AWS_ACCESS_KEY_ID="AKIAOTHER")
    assert (first.exit_code, "mlp: versions 1" in first.output) == (0, True), first.output
    assert (again.exit_code, "nothing to fetch" in again.output) == (0, True)
    assert (wrong.exit_code, "InvalidAccessKeyId" in wrong.output) == (1, True)
    assert (tmp_path / "models" / "mlp" / "1" / "model.onnx").is_file()
    assert SECRET_KEY not in first.output + again.output + wrong.output
