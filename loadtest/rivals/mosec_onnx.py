"""Mosec's side of the published benchmark: a worker of ONNX Runtime, with the session options of Erg's workers.

Runs in Mosec's own environment (mosec.txt), where nothing of Erg is installed. ERG_BENCH_MOSEC holds, as JSON, `model`
(the ONNX file), `inputs` (name, numpy's dtype and the shape of one row each), `workers`, `max_batch_size` and
`max_wait_ms`. A body is the row's tensors as raw bytes one behind the other, which costs less than any format would;
the answer is the first output's bytes.
"""

from __future__ import annotations

import json
import os

import numpy as np
import onnxruntime
from mosec import Server, Worker

SETTINGS = json.loads(os.environ["ERG_BENCH_MOSEC"])


class OnnxWorker(Worker):  # type: ignore[misc]
    """One process with one session."""

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(SETTINGS["model"], options, providers=["CPUExecutionProvider"])
        self._output = self._session.get_outputs()[0].name
        self._inputs = []
        offset = 0
        for name, dtype, shape in SETTINGS["inputs"]:
            count = int(np.prod(shape))
            self._inputs.append((name, np.dtype(dtype), tuple(shape), count, offset))
            offset += count * np.dtype(dtype).itemsize

    def deserialize(self, data: bytes) -> bytes:
        """Leave the bytes as they are: `forward` reads them in place."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Nothing is left to do."""
        return data

    def forward(self, data: list[bytes] | bytes) -> list[bytes] | bytes:
        """Run the rows that Mosec has gathered; without batching it hands over one alone."""
        bodies = data if isinstance(data, list) else [data]
        feeds = {
            name: np.stack([np.frombuffer(body, dtype, count, offset).reshape(shape) for body in bodies])
            for name, dtype, shape, count, offset in self._inputs
        }
        (values,) = self._session.run([self._output], feeds)
        answers = [row.tobytes() for row in values]
        return answers if isinstance(data, list) else answers[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        OnnxWorker,
        num=SETTINGS["workers"],
        max_batch_size=SETTINGS["max_batch_size"],
        max_wait_time=SETTINGS["max_wait_ms"],
    )
    server.run()
