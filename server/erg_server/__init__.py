"""Erg's server: a gRPC inference server with dynamic batching over worker processes."""

import os

__version__ = "0.1.0"

# From 1.29 on ONNX Runtime's wheels for Linux tell Microsoft of each session (model name, graph, hashes) unless this is
# set before they are imported. What leaves a machine is for its operator to say: a value that is there stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
