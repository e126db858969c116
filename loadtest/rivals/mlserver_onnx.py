"""MLServer's side of the published benchmark: a model of ONNX Runtime, with the session options of Erg's workers.

Runs in MLServer's own environment (mlserver.txt), where nothing of Erg is installed.
"""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class OnnxModel(MLModel):  # type: ignore[misc]
    """`parameters.uri` names the ONNX file. All outputs are FP32."""

    async def load(self) -> bool:
        """Create the session: one thread, which does not spin."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run what MLServer has merged into one batch."""
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        # Not NumpyCodec.encode_output, which looks for NaN and adds parameters that are split for each request.
        outputs = [
            ResponseOutput(name=name, datatype="FP32", shape=list(values.shape), data=values.ravel().tolist())
            for name, values in zip(self._names, self._session.run(self._names, feeds), strict=True)
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
