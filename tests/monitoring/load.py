"""A server with every feature on that shows in metrics, and load on it that makes each of them move."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import trustme
from tritonclient.utils import InferenceServerException

from tests.e2e.server_process import ServerProcess, write_identity, write_mlp

PRICES = Path(__file__).parents[2] / "docs" / "prices.toml"
MLP = """platform: "onnxruntime_onnx" max_batch_size: 32
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]
dynamic_batching { } erg { slo { p99_ms: 20000 } }"""
PADDED = """erg { slo { p99_ms: 20000 } padding { bucket_step: 100000
    input { name: "INPUT0" axis: 1 } output { name: "OUTPUT0" axis: 1 } } }"""
# Its requests wait for others for a second, and no longer than a millisecond: none is ever answered.
HASTY = """dynamic_batching { preferred_batch_size: [ 64 ] max_queue_delay_microseconds: 1000000
    default_queue_policy { default_timeout_microseconds: 1000 } }"""


def start(folder: Path) -> tuple[ServerProcess, Path]:
    """A server with prices, tenants, modelled power, TLS and a memory budget; and the roots that its callers trust."""
    root = folder / "repository"
    write_mlp(root / "mlp" / "1")
    (root / "mlp" / "config.pbtxt").write_text(MLP)
    write_identity(root, "padded", datatype="TYPE_FP32", dims="-1", extra=PADDED)
    write_identity(root, "hasty", datatype="TYPE_FP32", dims="-1", batching=HASTY)
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "root.pem"))
    (folder / "cert.pem").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    server = ServerProcess(
        "--model-repository", str(root), "--cpu-workers", "2", "--memory-budget", "cpu=1GiB",
        "--price-file", str(PRICES), "--tenant-metadata-key", "x-tenant",
        "--power-source", "modelled", "--power-watts", "cpu=10:50",
        "--grpc-use-ssl", "--grpc-server-cert", str(folder / "cert.pem"), "--grpc-server-key", str(folder / "key.pem"),
    )  # fmt: skip
    return server, folder / "root.pem"


def client(server: ServerProcess, roots: Path) -> triton_aio.InferenceServerClient:
    return triton_aio.InferenceServerClient(server.grpc_address, ssl=True, root_certificates=str(roots))


def tensor(name: str, *shape: int) -> triton.InferInput:
    made = triton.InferInput(name, list(shape), "FP32")
    made.set_data_from_numpy(np.ones(shape, np.float32))
    return made


async def miss(server: ServerProcess, roots: Path, calls: int) -> None:
    """Requests whose time runs out in the queue."""
    async with client(server, roots) as caller:
        for _ in range(calls):
            with pytest.raises(InferenceServerException, match="ran out"):
                await caller.infer("hasty", [tensor("INPUT0", 1, 4)])


class Load:
    """Calls of two models from a thread, padded and of two tenants, until it is left; fails where a call did."""

    def __init__(self, server: ServerProcess, roots: Path) -> None:
        self._server = server
        self._roots = roots
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.calls = 0

    def _run(self) -> None:
        try:
            asyncio.run(self._call())
        except Exception as error:  # noqa: BLE001 (whatever it is, the test is told)
            self._failure = error

    async def _call(self) -> None:
        async with client(self._server, self._roots) as caller:
            while not self._stop.is_set():
                await asyncio.gather(
                    *(caller.infer("mlp", [tensor("x", 4, 16)], headers={"x-tenant": "ours"}) for _ in range(4)),
                    *(caller.infer("padded", [tensor("INPUT0", 1, length)]) for length in (50, 4000)),
                )
                self.calls += 6
                await asyncio.sleep(0.02)  # So that devices are idle, too.

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        assert kind is not None or self._failure is None, self._failure
