"""What runs a model inside a worker: one small protocol, found by entry point."""
