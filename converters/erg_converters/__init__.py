"""Erg's converters: from a trained model to a version in a model repository, proved against its source."""

import os

# As in `erg_server`: ONNX Runtime tells nobody of the models that are converted, unless its user wants it to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
