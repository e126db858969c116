"""Erg's server: a gRPC inference server with dynamic batching over worker processes."""

__version__ = "0.1.0"
