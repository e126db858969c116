from __future__ import annotations

import numpy as np
import pytest
from erg_server.datatype import DataType
from erg_server.errors import InternalError
from erg_server.request import InferenceRequest, Phases, RequestedOutput
from erg_server.scheduling.batch import BatchLayout
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.tensor import Tensor
from erg_server.workers.process import BatchOutput

from tests.server.scheduling.builders import model_spec

TEXT = """
name: "text" backend: "identity" max_batch_size: 8
input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }
input { name: "mask" data_type: TYPE_INT64 dims: [ -1 ] optional: true }
output { name: "tokens" data_type: TYPE_FP32 dims: [ -1, 2 ] }
output { name: "pooled" data_type: TYPE_FP32 dims: [ 2 ] }
dynamic_batching { }
erg { padding { bucket_step: 16
  input { name: "ids" axis: 1 value: 7 } input { name: "mask" axis: 1 mask: true }
  output { name: "tokens" axis: 1 } } }
"""


def queued(layout: BatchLayout, tensors: list[Tensor], outputs: tuple[str, ...] = ()) -> QueuedRequest:
    rows = tensors[0].shape[0]
    inputs = layout.complete(tensors, rows)
    key, length = layout.describe(inputs)
    request = InferenceRequest(
        model_name="text", inputs=inputs, arrival_ns=0, outputs=tuple(RequestedOutput(name) for name in outputs)
    )
    return QueuedRequest(request=request, rows=rows, key=key, length=length, on_done=lambda _: None, phases=Phases())


def ids(*lengths_of_rows: int, length: int) -> Tensor:
    return Tensor.from_numpy("ids", np.arange(len(lengths_of_rows) * length, dtype=np.int64).reshape(-1, length))


def written(batch_input: object) -> np.ndarray:
    data = memoryview(bytearray(batch_input.nbytes))  # type: ignore[attr-defined]
    batch_input.write(data)  # type: ignore[attr-defined]
    return np.frombuffer(data, np.int64).reshape(batch_input.shape)  # type: ignore[attr-defined]


def test_rows_of_different_length_are_padded_to_the_longest_and_masked() -> None:
    layout = BatchLayout(model_spec(TEXT))
    short, long = queued(layout, [ids(0, length=3)]), queued(layout, [ids(0, 0, length=5)])
    assert short.key == long.key
    inputs, padded, real = layout.assemble([short, long])
    by_index = {item.index: written(item) for item in inputs}
    assert by_index[0].tolist() == [[0, 1, 2, 7, 7], [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert by_index[1].tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1] * 5]
    assert (padded, real) == (4, 26)


def test_lengths_of_different_buckets_do_not_share_a_batch() -> None:
    layout = BatchLayout(model_spec(TEXT))
    assert queued(layout, [ids(0, length=16)]).key != queued(layout, [ids(0, length=17)]).key


def test_outputs_are_cut_back_to_each_requests_length() -> None:
    layout = BatchLayout(model_spec(TEXT))
    entries = [queued(layout, [ids(0, length=3)]), queued(layout, [ids(0, length=5)], ("pooled", "tokens"))]
    tokens = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    pooled = np.arange(4, dtype=np.float32).reshape(2, 2)
    outputs = [
        BatchOutput(index=0, datatype=DataType.FP32, shape=(2, 5, 2), data=memoryview(tokens.tobytes())),
        BatchOutput(index=1, datatype=DataType.FP32, shape=(2, 2), data=memoryview(pooled.tobytes())),
    ]
    first, second = layout.split(entries, outputs)
    assert [tensor.name for tensor in first] == ["tokens", "pooled"]
    assert first[0].shape == (1, 3, 2)
    assert np.array_equal(first[0].numpy(), tokens[:1, :3])
    assert [tensor.name for tensor in second] == ["pooled", "tokens"]
    assert np.array_equal(second[1].numpy(), tokens[1:])
    assert np.array_equal(second[0].numpy(), pooled[1:])


def test_an_output_without_the_batchs_rows_is_the_models_fault() -> None:
    layout = BatchLayout(model_spec(TEXT))
    entries = [queued(layout, [ids(0, length=3)])]
    bad = [BatchOutput(index=1, datatype=DataType.FP32, shape=(2, 2), data=memoryview(bytes(16)))]
    with pytest.raises(InternalError, match="first axis must be the batch"):
        layout.split(entries, bad)


def test_strings_are_cut_where_their_lengths_say() -> None:
    spec = model_spec(
        'name: "s" backend: "identity" max_batch_size: 4 '
        'input { name: "i" data_type: TYPE_STRING dims: [ 2 ] } output { name: "o" data_type: TYPE_STRING dims: [ 2 ] }'
        "dynamic_batching { }"
    )
    layout = BatchLayout(spec)
    arrays = [np.array([[b"a", b"bcd"]], dtype=object), np.array([[b"", b"e"], [b"ff", b"g"]], dtype=object)]
    entries = [queued(layout, [Tensor.from_numpy("i", array)]) for array in arrays]
    inputs, _, _ = layout.assemble(entries)
    data = memoryview(bytearray(inputs[0].nbytes))
    inputs[0].write(data)
    answers = layout.split(entries, [BatchOutput(index=0, datatype=DataType.BYTES, shape=(3, 2), data=data)])
    assert [answer[0].numpy().tolist() for answer in answers] == [array.tolist() for array in arrays]
