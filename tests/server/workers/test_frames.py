"""The frames between front and worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from erg_server import errors
from erg_server.datatype import DATATYPES
from erg_server.errors import ErgError, InternalError, InvalidArgumentError, StatusCode
from erg_server.workers import frames
from erg_server.workers.frames import MAX_FRAME_BYTES, Kind, SlotTensor
from hypothesis import given
from hypothesis import strategies as st

handles = st.integers(0, 2**32 - 1)
slots = st.integers(0, 255)
sizes = st.integers(0, 2**64 - 1)
tensors = st.lists(
    st.builds(
        SlotTensor,
        st.integers(0, 2**16 - 1),
        st.sampled_from(DATATYPES),
        st.lists(st.integers(0, 2**63 - 1), max_size=32).map(tuple),
        sizes,
        sizes,
    ),
    max_size=8,
)
json_objects = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=4)
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ErgError) and kind is not ErgError
]
typed_errors = st.builds(lambda kind, message: kind(message), st.sampled_from(KINDS), st.text())
UNPACKERS: list[Callable[[bytes], Any]] = [
    frames.unpack_run_head, frames.unpack_run, frames.unpack_done, frames.unpack_failed, frames.unpack_load,
    frames.unpack_unload, frames.unpack_loaded, frames.unpack_refused, frames.unpack_hello, frames.unpack_unloaded,
]  # fmt: skip
SAMPLE = SlotTensor(1, DATATYPES[3], (2, 3), 64, 48)
SAMPLES: dict[Callable[[bytes], Any], bytes] = {
    frames.unpack_run: frames.pack_run(1, 9, [SAMPLE, SAMPLE]),
    frames.unpack_done: frames.pack_done(1, (1, 2, 3, 4), 1, frames.pack_tensors([SAMPLE])),
    frames.unpack_load: frames.pack_load(9, {"name": "m"}, b""),
    frames.unpack_unload: frames.pack_unload(9),
    frames.unpack_unloaded: frames.pack_unloaded(9),
    frames.unpack_loaded: frames.pack_loaded(9, 5),
    frames.unpack_hello: frames.pack_hello(4096, 2, {"kind": "cpu"}),
}


@given(slots, handles, tensors)
def test_a_run_frame_comes_back(slot: int, handle: int, items: list[SlotTensor]) -> None:
    frame = frames.pack_run(slot, handle, items)
    assert frame[0] == Kind.RUN
    assert frames.unpack_run(frame) == (slot, handle, items)


@given(slots, st.tuples(sizes, sizes, sizes, sizes), tensors)
def test_a_done_frame_comes_back(slot: int, times: tuple[int, int, int, int], items: list[SlotTensor]) -> None:
    frame = frames.pack_done(slot, times, len(items), frames.pack_tensors(items))
    assert frame[0] == Kind.DONE
    assert frames.unpack_done(frame) == (slot, times, items)


@given(handles, json_objects, st.binary())
def test_a_load_frame_comes_back(handle: int, header: dict[str, Any], config: bytes) -> None:
    frame = frames.pack_load(handle, header, config)
    assert frame[0] == Kind.LOAD
    assert frames.unpack_load(frame) == (handle, header, config)


@given(handles, sizes)
def test_unload_and_loaded_frames_come_back(handle: int, nbytes: int) -> None:
    assert frames.unpack_unload(frames.pack_unload(handle)) == handle
    assert frames.unpack_unloaded(frames.pack_unloaded(handle)) == handle
    assert frames.unpack_loaded(frames.pack_loaded(handle, nbytes)) == (handle, nbytes)


@given(slots, handles, typed_errors)
def test_an_errors_type_and_text_come_back(slot: int, handle: int, error: ErgError) -> None:
    for number, came in (
        frames.unpack_failed(frames.pack_failed(slot, error)),
        frames.unpack_refused(frames.pack_refused(handle, error)),
    ):
        assert number in {slot, handle}
        assert type(came) is type(error)
        assert came.message == error.message.encode(errors="replace").decode()


def test_a_hello_frame_comes_back() -> None:
    device = {"kind": "cpu", "id": 1, "cores": [0, 1], "gpu_uuid": ""}
    frame = frames.pack_hello(4096, 2, device)
    assert frame[0] == Kind.HELLO
    assert frames.unpack_hello(frame) == {"slot_bytes": 4096, "slots": 2, "device": device}


def test_a_worker_that_shrank_while_it_loaded_grew_by_nothing() -> None:
    assert frames.unpack_loaded(frames.pack_loaded(1, -5)) == (1, 0)


@pytest.mark.parametrize("unpack", SAMPLES, ids=lambda unpack: unpack.__name__)
def test_a_frame_cut_anywhere_is_an_error_that_names_it(unpack: Callable[[bytes], Any]) -> None:
    frame = SAMPLES[unpack]
    unpack(frame)
    for cut in range(1, len(frame)):
        with pytest.raises(InternalError, match=unpack.__name__.removeprefix("unpack_").upper() + f" frame of {cut} "):
            unpack(frame[:cut])


@pytest.mark.parametrize("unpack", [frames.unpack_run, frames.unpack_done])
def test_bytes_behind_the_last_tensor_are_an_error(unpack: Callable[[bytes], Any]) -> None:
    with pytest.raises(InternalError, match="8 bytes follow"):
        unpack(SAMPLES[unpack] + bytes(8))


@pytest.mark.parametrize("unpack", UNPACKERS, ids=lambda unpack: unpack.__name__)
@given(frame=st.binary(min_size=1, max_size=300))
def test_garbage_is_read_or_is_an_internal_error_and_nothing_else(unpack: Callable[[bytes], Any], frame: bytes) -> None:
    with contextlib.suppress(InternalError):
        unpack(frame)


@given(tensors.filter(bool), st.data())
def test_a_flipped_byte_never_escapes_as_another_exception(items: list[SlotTensor], data: st.DataObject) -> None:
    frame = bytearray(frames.pack_run(0, 1, items))
    frame[data.draw(st.integers(1, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        _, _, came = frames.unpack_run(bytes(frame))
    except InternalError:
        return
    assert all(min(item.shape, default=0) >= 0 for item in came)


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b"[" * 100_000], ids=["list", "half", "bytes", "deep"])
def test_a_hello_that_is_no_object_is_an_error(text: bytes) -> None:
    with pytest.raises(InternalError, match="HELLO frame"):
        frames.unpack_hello(bytes((Kind.HELLO,)) + text)


def test_a_configuration_too_large_for_a_frame_is_refused() -> None:
    with pytest.raises(InternalError, match="more than a frame takes"):
        frames.pack_load(1, {}, bytes(MAX_FRAME_BYTES))


def test_an_error_message_of_any_length_fits_a_frame() -> None:
    error = InvalidArgumentError("é" * MAX_FRAME_BYTES)
    for frame in (frames.pack_failed(1, error), frames.pack_refused(1, error)):
        assert len(frame) <= MAX_FRAME_BYTES
    _, came = frames.unpack_failed(frames.pack_failed(1, error))
    assert came.message.startswith("ééé")


@pytest.mark.parametrize("code", [*range(1, 17), 99])
def test_every_status_code_makes_an_error_of_that_code_or_an_internal_one(code: int) -> None:
    error = frames.make_error(code, "text")
    assert error.message == "text"
    assert error.code in {code, StatusCode.INTERNAL}
    assert (error.code == code) == (code in {kind.code for kind in KINDS})
