import pytest
from bench.memory import MemorySample, MemoryWatch
from bench.soak import body_of, mismatch
from erg_server.pb import inference_pb2


def answer_to(number, **changes):
    body, _ = body_of(number)
    request = inference_pb2.ModelInferRequest.FromString(body)
    response = inference_pb2.ModelInferResponse(id=changes.get("id", request.id))
    shape = changes.get("shape", list(request.inputs[0].shape))
    response.outputs.add(name="OUTPUT0", datatype="INT64", shape=shape)
    response.raw_output_contents.append(changes.get("raw", request.raw_input_contents[0]))
    return response.SerializeToString()


def test_a_request_s_own_answer_matches():
    for number in range(8):
        assert mismatch(number, body_of(number)[1], answer_to(number)) is None


@pytest.mark.parametrize("changes", [{"id": "6"}, {"raw": body_of(9)[1]}, {"shape": [2, 1]}])
def test_any_trace_of_another_request_is_found(changes):
    assert mismatch(5, body_of(5)[1], answer_to(5, **changes)) is not None


def test_no_two_requests_carry_the_same_values():
    assert len({body_of(number)[1] for number in range(2000)}) == 2000


def watch(front_mib):
    memory = MemoryWatch(server_pid=1)
    for index in range(100):
        memory.add(
            MemorySample(progress=index / 100, front_bytes=int(front_mib(index) * 2**20), workers_bytes=100 << 20)
        )
    return memory


def test_memory_that_grew_only_at_the_start_is_flat():
    assert watch(lambda index: 50 + min(index, 20)).growth() == []


def test_memory_that_keeps_growing_is_found():
    assert watch(lambda index: 50 + index).growth() == ["memory of the front grew from 87.5 to 137.0 MiB"]


def test_a_run_without_samples_is_no_proof():
    assert len(MemoryWatch(server_pid=1).growth()) == 2
