"""A real `erg serve` process on free ports, over a repository made for the test."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

START_TIMEOUT_S = 60.0


def write_mlp(folder: Path, *, seed: int = 0, scale: float = 1.0) -> Path:
    """y = relu(x·W) for x fp32[batch, 16], y fp32[batch, 16]; weights differ by `seed`."""
    weights = (np.random.default_rng(seed).standard_normal((16, 16)) * scale).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    return path


def mlp_weights(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((16, 16)) * scale).astype(np.float32)


def write_identity(
    root: Path, name: str, *, datatype: str, dims: str, batching: str = "dynamic_batching { }", extra: str = ""
) -> None:
    folder = root / name / "1"
    folder.mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "identity"\nmax_batch_size: 64\n'
        f'input [ {{ name: "INPUT0" data_type: {datatype} dims: [ {dims} ] }} ]\n'
        f'output [ {{ name: "OUTPUT0" data_type: {datatype} dims: [ {dims} ] }} ]\n{batching}\n{extra}\n'
    )


class ServerProcess:
    """Starts the server, waits until it is ready, and ends it with SIGTERM."""

    def __init__(self, *flags: str, wait_ready: bool = True, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "erg_server", "serve", "--grpc-port", "0", "--metrics-port", "0",
             "--grpc-address", "127.0.0.1", "--metrics-address", "127.0.0.1", *flags],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )  # fmt: skip
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.grpc_address = self.wait_for(r"gRPC on ([\d.]+:\d+)")
            self.metrics_address = self.wait_for(r"metrics on http://([\d.]+:\d+)")
            if wait_ready:
                self.wait_for(r"serving \d+ models")
        except BaseException:
            self.kill()
            raise

    def wait_for(self, pattern: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """The first group of `pattern` in the log, as soon as a line matches it."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.log:
                    if match := re.search(pattern, line):
                        return match.group(1) if match.groups() else match.group(0)
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no line matches {pattern!r} in:\n" + "".join(self.log[-50:]))
                self._changed.wait(min(left, 1.0))

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry `labels`."""
        from prometheus_client.parser import text_string_to_metric_families

        total = 0.0
        for family in text_string_to_metric_families(self.http("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    def workers(self) -> list[int]:
        """Process ids of the worker processes."""
        import psutil

        return [
            child.pid
            for child in psutil.Process(self.process.pid).children()
            if "erg_server.workers.main" in " ".join(child.cmdline())
        ]

    def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stdout.write("".join(self.log[-80:]))
        if self.process.poll() is None:
            status = self.terminate()
            assert kind is not None or status == 0, "".join(self.log[-80:])
        self.kill()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def config_json(**changes: object) -> str:
    return json.dumps(changes)
