import numpy as np
import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.scenarios import Dim, RandomScenario, apportion, parse_mix, parse_range, parse_shape, random_values
from erg_loadtest.tensors import InputSpec, Signature
from erg_server.pb import inference_pb2
from hypothesis import given
from hypothesis import strategies as st

TEXT = Signature(
    model="text",
    version="",
    max_batch_size=8,
    inputs=(
        InputSpec(name="ids", datatype="INT64", shape=(-1, -1)),
        InputSpec(name="mask", datatype="INT64", shape=(-1, -1), optional=True),
    ),
)


def parsed(payload):
    return inference_pb2.ModelInferRequest.FromString(payload.body)


def values(request, index):
    return np.frombuffer(request.raw_input_contents[index], dtype="<i8").reshape(tuple(request.inputs[index].shape))


def test_sizes_drawn_from_one_range_agree_within_a_request_and_differ_between_requests():
    mixed = (Dim(5, 128),)
    payloads = RandomScenario(shapes={"ids": mixed, "mask": mixed}, distinct=50).payloads(TEXT)
    lengths = set()
    for request in map(parsed, payloads):
        assert request.inputs[0].shape == request.inputs[1].shape
        lengths.add(request.inputs[0].shape[1])
    assert len(lengths) > 20
    assert min(lengths) >= 5
    assert max(lengths) <= 128


def test_rows_and_ranges_are_as_asked_for():
    scenario = RandomScenario(
        batch_size=4, distinct=3, shapes={"ids": (Dim(6, 6),)}, ranges={"ids": (7, 9)}, omit=frozenset({"mask"})
    )
    for payload in scenario.payloads(TEXT):
        request = parsed(payload)
        assert payload.rows == 4
        assert [entry.name for entry in request.inputs] == ["ids"]
        assert list(request.inputs[0].shape) == [4, 6]
        assert set(values(request, 0).ravel()) <= {7, 8, 9}


def test_a_seed_repeats_the_same_requests():
    def bodies(seed):
        shapes = {"ids": (Dim(1, 9),), "mask": (Dim(1, 9),)}
        return [payload.body for payload in RandomScenario(shapes=shapes, seed=seed, distinct=5).payloads(TEXT)]

    assert bodies(1) == bodies(1)
    assert bodies(1) != bodies(2)


def test_an_open_size_without_a_shape_is_refused_with_the_flag_to_add():
    with pytest.raises(PlanError, match="--shape ids:8"):
        RandomScenario().payloads(TEXT)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (RandomScenario(shapes={"nope": (Dim(1, 1),)}), "no input 'nope'; it has ids, mask"),
        (RandomScenario(shapes={"ids": (Dim(1, 1), Dim(1, 1)), "mask": (Dim(1, 1),)}), "does not fit"),
        (RandomScenario(batch_size=9), "at most 8 rows"),
    ],
)
def test_what_the_model_does_not_take_is_refused(scenario, message):
    with pytest.raises(PlanError, match=message):
        scenario.payloads(TEXT)


@pytest.mark.parametrize(
    "datatype",
    ["BOOL", "UINT8", "UINT64", "INT8", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"],
)
def test_every_datatype_can_be_sent(datatype):
    signature = Signature(
        model="m", version="", max_batch_size=0, inputs=(InputSpec(name="x", datatype=datatype, shape=(2, 3)),)
    )
    request = parsed(RandomScenario(distinct=1).payloads(signature)[0])
    sizes = {"BOOL": 1, "UINT8": 1, "INT8": 1, "FP16": 2, "BF16": 2, "FP32": 4, "BYTES": 4 + 8}
    assert len(request.raw_input_contents[0]) == 6 * sizes.get(datatype, 8)


def test_float_bounds_hold():
    drawn = random_values(
        InputSpec(name="x", datatype="FP32", shape=(1000,)), (1000,), np.random.default_rng(0), (-2.0, 3.0)
    )
    assert drawn.min() >= -2
    assert drawn.max() <= 3


def test_shapes_and_ranges_are_read():
    assert parse_shape("ids:5..128,3") == ("ids", (Dim(5, 128), Dim(3, 3)))
    assert parse_shape("a:b:7") == ("a:b", (Dim(7, 7),))
    assert parse_shape("scalar:") == ("scalar", ())
    assert parse_range("ids:0:29999") == ("ids", (0.0, 29999.0))


@pytest.mark.parametrize("text", ["ids", "ids:x", "ids:9..5", "ids:-1", ":4"])
def test_unreadable_shapes_are_refused(text):
    with pytest.raises(PlanError, match="--shape"):
        parse_shape(text)


@pytest.mark.parametrize("text", ["ids", "ids:1", "ids:b:c", "ids:3:2"])
def test_unreadable_ranges_are_refused(text):
    with pytest.raises(PlanError, match="--range"):
        parse_range(text)


def test_a_mix_is_held_exactly_and_ordered_by_the_seed():
    def lengths(seed):
        mixes = (parse_mix("0.7=ids:16;mask:16"), parse_mix("0.3=ids:128;mask:128"))
        payloads = RandomScenario(mixes=mixes, distinct=10, seed=seed).payloads(TEXT)
        return [request.inputs[0].shape[1] for request in map(parsed, payloads)]

    assert sorted(lengths(0)) == [16] * 7 + [128] * 3
    assert lengths(0) == lengths(0)
    assert lengths(0) != lengths(3)


def test_inputs_that_a_part_of_the_mix_leaves_out_have_the_shape_given_for_all():
    mixes = (parse_mix("1=ids:4"), parse_mix("1=ids:5..9"))
    for payload in RandomScenario(shapes={"mask": (Dim(2, 2),)}, mixes=mixes, distinct=4).payloads(TEXT):
        assert parsed(payload).inputs[1].shape[1] == 2


def test_a_mix_that_does_not_fit_the_model_or_the_number_of_requests_is_refused():
    with pytest.raises(PlanError, match="does not fit"):
        RandomScenario(mixes=(parse_mix("1=ids:4,4;mask:4"),)).payloads(TEXT)
    with pytest.raises(PlanError, match="raise --distinct"):
        RandomScenario(mixes=(parse_mix("1=ids:4;mask:4"), parse_mix("99=ids:5;mask:5")), distinct=3).payloads(TEXT)


@pytest.mark.parametrize("text", ["", "ids:4", "x=ids:4", "0=ids:4", "-1=ids:4", "inf=ids:4", "1=", "1=ids:4;"])
def test_unreadable_mixes_are_refused(text):
    with pytest.raises(PlanError, match="--mix"):
        parse_mix(text)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(0, 1000))
def test_a_share_is_within_one_of_its_proportion_and_all_add_up(weights, total):
    counts = apportion(weights, total)
    assert sum(counts) == total
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - weight * total / sum(weights)) < 1 + 1e-9
