import sys

import numpy as np
import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.image_data import NORMALIZATIONS, ImageOptions, Normalization, parse_normalization, parse_size
from erg_loadtest.input_data import FileScenario
from erg_loadtest.tensors import InputSpec, Signature
from erg_server.pb import inference_pb2
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


def signature(shape, datatype="FP32", max_batch_size=8):
    spec = InputSpec(name="pixels", datatype=datatype, shape=shape)
    return Signature(model="m", version="", max_batch_size=max_batch_size, inputs=(spec,))


@pytest.fixture
def folder(tmp_path):
    """Two pictures of one colour each: red and wide, grey and small."""
    Image.new("RGB", (60, 20), (255, 0, 51)).save(tmp_path / "a.png")
    Image.new("L", (5, 5), 102).save(tmp_path / "b.JPG", format="JPEG")
    (tmp_path / "readme.txt").write_text("no image")
    return tmp_path


def tensors(folder, model, dtype="<f4", batch_size=1, **options):
    scenario = FileScenario(path=folder, batch_size=batch_size, images=ImageOptions(**options))
    requests = [inference_pb2.ModelInferRequest.FromString(payload.body) for payload in scenario.payloads(model)]
    return [
        np.frombuffer(request.raw_input_contents[0], dtype).reshape(tuple(request.inputs[0].shape))
        for request in requests
    ]


def test_every_image_is_fitted_to_the_model_and_floats_run_from_0_to_1(folder):
    red, grey = tensors(folder, signature((-1, 3, 8, 12)))
    assert red.shape == grey.shape == (1, 3, 8, 12)
    assert red[0, :, 0, 0] == pytest.approx([1.0, 0.0, 0.2])
    assert grey[0, :, 7, 11] == pytest.approx([0.4, 0.4, 0.4], abs=0.01)


def test_channels_go_last_where_the_shape_has_them_last(folder):
    red, _ = tensors(folder, signature((-1, 8, 12, 3), "UINT8"), "u1")
    assert red.shape == (1, 8, 12, 3)
    assert red[0, 0, 0].tolist() == [255, 0, 51]


def test_images_of_one_batch_share_a_request(folder):
    (both,) = tensors(folder, signature((-1, 3, 8, 8)), batch_size=2)
    assert both.shape == (2, 3, 8, 8)


def test_one_channel_is_grey(folder):
    _, grey = tensors(folder, signature((-1, 1, 4, 4), "UINT8"), "u1")
    assert abs(int(grey[0, 0, 2, 2]) - 102) <= 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raw", [255, 0, 51]),
        ("signed", [1, -1, -0.6]),
        ("imagenet", [2.2489, -2.0357, -0.9156]),
        ("efficientnet-lite", [1, -127 / 128, -76 / 128]),
    ],
)
def test_normalizations_are_what_models_are_trained_with(folder, name, expected):
    red, _ = tensors(folder, signature((-1, 3, 4, 4)), normalization=NORMALIZATIONS[name])
    assert red[0, :, 0, 0] == pytest.approx(expected, abs=1e-3)


def test_integers_are_rounded_and_kept_in_their_range(folder):
    model = signature((-1, 3, 4, 4), "UINT8")
    red, _ = tensors(folder, model, "u1", normalization=Normalization(mean=(0, 1, 50.4), std=(0.5, 1, 1)))
    assert red[0, :, 0, 0].tolist() == [255, 0, 1]


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    picture = Image.new("RGB", (8, 8), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 8, 4))
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=turned)
    (pixels,) = tensors(tmp_path, signature((-1, 1, 8, 8)))
    assert (pixels[0, 0, 0, 0], pixels[0, 0, 0, 7], pixels[0, 0, 7, 7]) == (0, 1, 1)


def test_open_sizes_are_given_by_hand(folder):
    with pytest.raises(PlanError, match="--image-size HxW"):
        tensors(folder, signature((-1, 3, -1, -1)))
    assert tensors(folder, signature((-1, 3, -1, -1)), size=(6, 7))[0].shape == (1, 3, 6, 7)
    with pytest.raises(PlanError, match=r"has shape \[3, 6, 7\]"):
        tensors(folder, signature((-1, 3, 8, 8)), size=(6, 7))


def test_an_ambiguous_layout_is_given_by_hand(folder):
    with pytest.raises(PlanError, match="--image-layout"):
        tensors(folder, signature((-1, -1, -1, -1)), size=(4, 4))
    assert tensors(folder, signature((-1, -1, -1, -1)), size=(4, 5), layout="nhwc")[0].shape == (1, 4, 5, 3)
    with pytest.raises(PlanError, match="7 channels"):
        tensors(folder, signature((-1, 7, 4, 4)), layout="nchw")


def test_without_a_known_batch_axis_four_sizes_have_one(folder):
    assert tensors(folder, signature((-1, 3, 4, 4), max_batch_size=0))[0].shape == (1, 3, 4, 4)
    assert tensors(folder, signature((3, 4, 4), max_batch_size=0))[0].shape == (3, 4, 4)


def test_a_model_of_strings_gets_the_files(folder):
    model = signature((-1, 1), "BYTES")
    request = inference_pb2.ModelInferRequest.FromString(FileScenario(path=folder).payloads(model)[0].body)
    assert request.raw_input_contents[0][4:] == (folder / "a.png").read_bytes()


def test_what_is_no_image_is_refused_by_name(folder):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    with pytest.raises(PlanError, match=r"broken\.png: not an image"):
        tensors(folder, signature((-1, 3, 4, 4)))


def test_a_folder_without_images_and_a_model_of_two_inputs_are_refused(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PlanError, match=r"holds no \.jpeg, \.jpg, \.png"):
        tensors(empty, signature((-1, 3, 4, 4)))
    pair = signature((-1, 3, 4, 4)).inputs[0], InputSpec(name="b", datatype="FP32", shape=(-1,))
    with pytest.raises(PlanError, match="needs 2 inputs"):
        tensors(folder, Signature(model="m", version="", max_batch_size=1, inputs=pair))
    with pytest.raises(PlanError, match="three sizes"):
        tensors(folder, signature((-1, 3)))


def test_without_the_library_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PlanError, match=r"erg\[loadtest\]"):
        tensors(folder, signature((-1, 3, 4, 4)))


def test_sizes_and_normalizations_are_read():
    assert parse_size("224x320") == (224, 320)
    assert parse_normalization("unit") == NORMALIZATIONS["unit"]
    assert parse_normalization("127.5/128") == Normalization(mean=(127.5,) * 3, std=(128.0,) * 3)
    assert parse_normalization("1,2,3/4,5,6") == Normalization(mean=(1, 2, 3), std=(4, 5, 6))


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "1,2/3", "x/1", "1/0", "nan/1"])
def test_unreadable_normalizations_are_refused(text):
    with pytest.raises(PlanError, match=r"mean|normalization"):
        parse_normalization(text)


@given(st.text(max_size=12))
def test_any_size_is_two_numbers_or_a_typed_error(text):
    try:
        height, width = parse_size(text)
    except PlanError:
        return
    assert f"{height}x{width}" == "x".join(str(int(side)) for side in text.lower().split("x"))


@pytest.mark.parametrize("size", [(0, 5), (5, 99999)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(PlanError, match="image size"):
        ImageOptions(size=size)
