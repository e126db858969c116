import numpy as np
import pytest
from erg_loadtest.answers import AnswerCheck, CheckKind, CheckRule, difference, golden_answer, read_answer
from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Payload
from erg_loadtest.tensors import InputSpec, OutputSpec, Signature
from erg_server.pb import inference_pb2
from hypothesis import given
from hypothesis import strategies as st

SIGNATURE = Signature(
    model="m",
    version="",
    max_batch_size=8,
    inputs=(InputSpec(name="x", datatype="FP32", shape=(-1, 2)),),
    outputs=(OutputSpec(name="y", datatype="FP32"), OutputSpec(name="label", datatype="BYTES")),
)
TOLERANT = CheckRule(kind=CheckKind.GOLDEN, atol=0.01, rtol=0.1)


def answer(*values, label=b"cat", name="y", request_id=""):
    response = inference_pb2.ModelInferResponse(model_name="m", id=request_id)
    response.outputs.add(name=name, datatype="FP32", shape=[1, len(values)])
    response.raw_output_contents.append(np.array(values, dtype="<f4").tobytes())
    response.outputs.add(name="label", datatype="BYTES", shape=[1])
    response.raw_output_contents.append(len(label).to_bytes(4, "little") + label)
    return response.SerializeToString()


def checked(rule, reference):
    kept = reference if rule.kind is CheckKind.GOLDEN else rule.reference(reference)
    return AnswerCheck(rule, [Payload(body=b"", rows=1, expected=kept)])


def test_floats_may_differ_by_the_tolerance_and_no_more():
    check = checked(TOLERANT, answer(1.0, 2.0))
    assert check(0, answer(1.1, 2.2))
    assert check.example is None
    assert not check(0, answer(1.0, 2.3))
    assert check.example == "prepared request 0: output 'y'[0, 1] is 2.3, expected 2.0 (1 of 2 values differ)"


def test_only_the_first_wrong_answer_is_the_example():
    check = checked(TOLERANT, answer(1.0))
    assert not check(0, answer(5.0))
    assert not check(0, answer(6.0))
    assert "is 5.0" in str(check.example)


def test_what_is_no_float_is_compared_exactly():
    check = checked(TOLERANT, answer(1.0, label=b"cat"))
    assert not check(0, answer(1.0, label=b"dog"))
    assert "output 'label'[0] is b'dog', expected b'cat'" in str(check.example)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer(1.0, name="z"), "output 'y' is missing; the answer has z, label"),
        (answer(1.0, 2.0), r"output 'y' is float32[1, 2], expected float32[1, 1]"),
        (b"\xff\xff", "not a ModelInferResponse"),
    ],
)
def test_an_answer_of_another_form_is_wrong_and_says_how(given, message):
    check = checked(TOLERANT, answer(1.0))
    assert not check(0, given)
    assert message in str(check.example)


def test_nan_is_right_only_where_nan_is_expected():
    assert checked(TOLERANT, answer(float("nan"), request_id="a"))(0, answer(float("nan"), request_id="b"))
    assert not checked(TOLERANT, answer(1.0))(0, answer(float("nan")))


def test_hashes_take_the_outputs_bit_by_bit_and_leave_the_rest_out():
    check = checked(CheckRule(kind=CheckKind.HASH), answer(1.0, request_id="a"))
    assert check(0, answer(1.0, request_id="b"))
    assert not check(0, answer(1.0000001))
    assert "bit by bit" in str(check.example)
    assert not check(0, answer(1.0, label=b"dog"))
    assert not check(0, answer(1.0, name="z"))


def test_the_same_bytes_in_another_shape_have_another_hash():
    def flat(*shape):
        response = inference_pb2.ModelInferResponse(raw_output_contents=[bytes(8)])
        response.outputs.add(name="y", datatype="FP32", shape=shape)
        return response.SerializeToString()

    assert not checked(CheckRule(kind=CheckKind.HASH), flat(1, 2))(0, flat(2, 1))


def test_golden_outputs_are_compared_and_others_left_alone():
    expected = golden_answer(SIGNATURE, {"y": np.array([[1.0]], dtype=np.float32)})
    check = AnswerCheck(TOLERANT, [Payload(body=b"", rows=1, expected=expected)])
    assert check(0, answer(1.0, label=b"anything"))
    with pytest.raises(PlanError, match="no output 'z'; it has y, label"):
        golden_answer(SIGNATURE, {"z": np.array([1.0])})


def test_typed_contents_are_read_like_raw_ones():
    response = inference_pb2.ModelInferResponse()
    response.outputs.add(name="y", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
    response.outputs.add(name="n", datatype="INT8", shape=[1]).contents.int_contents.append(-3)
    response.outputs.add(name="s", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"cat")
    outputs = read_answer(response.SerializeToString())
    assert (outputs["y"].tolist(), outputs["n"].tolist(), outputs["s"].tolist()) == ([[1.0, 2.0]], [-3], [b"cat"])
    assert difference(outputs, {"y": np.array([[1.0, 2.0]], dtype=np.float32)}, TOLERANT) is None


@pytest.mark.parametrize("raw", [b"\0\0\0", b"\0" * 8])
def test_contents_that_do_not_fill_the_shape_are_no_answer(raw):
    response = inference_pb2.ModelInferResponse(raw_output_contents=[raw])
    response.outputs.add(name="y", datatype="FP32", shape=[1])
    with pytest.raises(ValueError, match=r"output 'y' of FP32\[1\]"):
        read_answer(response.SerializeToString())


def test_strings_that_are_cut_off_are_no_answer():
    response = inference_pb2.ModelInferResponse(raw_output_contents=[b"\5\0\0\0ab"])
    response.outputs.add(name="y", datatype="BYTES", shape=[1])
    with pytest.raises(ValueError, match="cut off"):
        read_answer(response.SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_value_error(body):
    try:
        read_answer(body)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - neither outcome is wrong


@pytest.mark.parametrize("options", [{"atol": -1}, {"rtol": float("nan")}])
def test_impossible_tolerances_are_refused(options):
    with pytest.raises(PlanError, match=r"--[ar]tol"):
        CheckRule(kind=CheckKind.FIRST, **options)
