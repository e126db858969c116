"""The frames between front and worker: fixed structs, one a packet, nothing pickled.

Every frame starts with its kind. RUN and DONE describe tensors that lie in a slot of the slab; LOAD carries a JSON
header and the model's configuration as protobuf; FAILED and REFUSED carry a status code and a text.
"""

from __future__ import annotations

import enum
import functools
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from erg_server import errors
from erg_server.datatype import DATATYPES, DataType
from erg_server.errors import ErgError, InternalError, StatusCode

MAX_FRAME_BYTES: Final = 128 << 10
"""Within the default buffer of a local socket; only a configuration of thousands of tensors comes near."""


class Kind(enum.IntEnum):
    """What a frame says. The first four go to the worker, the others come from it."""

    HELLO = 1
    LOAD = 2
    UNLOAD = 3
    RUN = 4
    READY = 5
    LOADED = 6
    REFUSED = 7
    DONE = 8
    FAILED = 9
    UNLOADED = 10


@dataclass(slots=True, init=False)
class SlotTensor:
    """A tensor in a slot: its position in the model's signature, and where its bytes are from the slot's start.

    Nothing changes one. It is not frozen because that makes making one several times as slow.
    """

    index: int
    datatype: DataType
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    # Written out, for a generated one is not compiled.
    def __init__(self, index: int, datatype: DataType, shape: tuple[int, ...], offset: int, nbytes: int) -> None:
        self.index = index
        self.datatype = datatype
        self.shape = shape
        self.offset = offset
        self.nbytes = nbytes


_RUN: Final = struct.Struct("<BBHI")  # kind, slot, tensors, model handle
_DONE: Final = struct.Struct("<BBHIQQQQ")  # kind, slot, tensors, flags, nanoseconds of input, infer and output, end
_FAILED: Final = struct.Struct("<BBH")  # kind, slot, status code
_HANDLE: Final = struct.Struct("<BxxxI")  # kind, model handle
_LOADED: Final = struct.Struct("<BxxxIQ")  # kind, model handle, bytes the process grew by
_REFUSED: Final = struct.Struct("<BxHI")  # kind, status code, model handle
_TENSOR: Final = struct.Struct("<HBBxxxxQQ")  # index, datatype, dimensions, offset, bytes
_DIMS: Final = tuple(struct.Struct(f"<{count}q") for count in range(33))

FINAL: Final = 1
"""Flag of a DONE frame: no other frame answers this batch."""


T = TypeVar("T")


def _checked(unpack: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Let `unpack` raise InternalError for a frame that is damaged, whatever its parts raise."""

    @functools.wraps(unpack)
    def checked(frame: bytes) -> T:
        try:
            return unpack(frame)
        except (struct.error, IndexError, ValueError, RecursionError) as error:
            what = unpack.__name__.removeprefix("unpack_").upper()
            raise InternalError(f"a {what} frame of {len(frame)} bytes is damaged: {error}") from error

    return checked


def pack_run(slot: int, handle: int, tensors: Sequence[SlotTensor]) -> bytes:
    """Start the batch whose inputs lie in `slot`."""
    return b"".join((_RUN.pack(Kind.RUN, slot, len(tensors), handle), *map(_pack_tensor, tensors)))


@_checked
def unpack_run_head(frame: bytes) -> tuple[int, int]:
    """Slot and model handle of a RUN frame."""
    _, slot, _, handle = _RUN.unpack_from(frame)
    return slot, handle


@_checked
def unpack_run(frame: bytes) -> tuple[int, int, list[SlotTensor]]:
    """Slot, model handle and inputs of a RUN frame."""
    _, slot, count, handle = _RUN.unpack_from(frame)
    return slot, handle, _unpack_tensors(frame, _RUN.size, count)


def pack_done(slot: int, times_ns: tuple[int, int, int, int], count: int, tensors: bytes) -> bytes:
    """The batch in `slot` is done; its `count` outputs lie behind its inputs, as `pack_tensors` says.

    `times_ns` are three durations, of input, infer and output, and when the batch ended: on the machine's monotonic
    clock, which all of its processes share.
    """
    return _DONE.pack(Kind.DONE, slot, count, FINAL, *times_ns) + tensors


def pack_tensors(tensors: Sequence[SlotTensor]) -> bytes:
    """Where tensors lie, as the end of a frame."""
    return b"".join(map(_pack_tensor, tensors))


@_checked
def unpack_done(frame: bytes) -> tuple[int, tuple[int, int, int, int], list[SlotTensor]]:
    """Slot, the three compute times and the end, and the outputs of a DONE frame."""
    _, slot, count, _, input_ns, infer_ns, output_ns, ended_ns = _DONE.unpack_from(frame)
    return slot, (input_ns, infer_ns, output_ns, ended_ns), _unpack_tensors(frame, _DONE.size, count)


def pack_failed(slot: int, error: ErgError) -> bytes:
    """The batch in `slot` failed."""
    return _FAILED.pack(Kind.FAILED, slot, error.code) + _text(error.message)


@_checked
def unpack_failed(frame: bytes) -> tuple[int, ErgError]:
    """Slot and error of a FAILED frame."""
    _, slot, code = _FAILED.unpack_from(frame)
    return slot, make_error(code, frame[_FAILED.size :].decode(errors="replace"))


def pack_load(handle: int, header: dict[str, Any], config: bytes) -> bytes:
    """Load a model: `header` in JSON, then its configuration as protobuf."""
    text = json.dumps(header).encode()
    frame = _HANDLE.pack(Kind.LOAD, handle) + struct.pack("<I", len(text)) + text + config
    if len(frame) > MAX_FRAME_BYTES:
        raise InternalError(f"the model's configuration has {len(config)} bytes, more than a frame takes")
    return frame


@_checked
def unpack_load(frame: bytes) -> tuple[int, dict[str, Any], bytes]:
    """Handle, header and configuration of a LOAD frame."""
    _, handle = _HANDLE.unpack_from(frame)
    (size,) = struct.unpack_from("<I", frame, _HANDLE.size)
    start = _HANDLE.size + 4
    if size > len(frame) - start:
        raise ValueError(f"its header claims {size} bytes")
    return handle, _json_object(frame[start : start + size]), frame[start + size :]


def pack_unload(handle: int) -> bytes:
    """Forget a model."""
    return _HANDLE.pack(Kind.UNLOAD, handle)


@_checked
def unpack_unload(frame: bytes) -> int:
    """The handle of an UNLOAD frame."""
    handle: int = _HANDLE.unpack_from(frame)[1]
    return handle


def pack_unloaded(handle: int) -> bytes:
    """A model is unloaded: no batch of it will run, and its memory is free."""
    return _HANDLE.pack(Kind.UNLOADED, handle)


@_checked
def unpack_unloaded(frame: bytes) -> int:
    """The handle of an UNLOADED frame."""
    handle: int = _HANDLE.unpack_from(frame)[1]
    return handle


def pack_loaded(handle: int, memory_bytes: int) -> bytes:
    """A model is loaded; the process grew by `memory_bytes`."""
    return _LOADED.pack(Kind.LOADED, handle, max(0, memory_bytes))


@_checked
def unpack_loaded(frame: bytes) -> tuple[int, int]:
    """Handle and memory of a LOADED frame."""
    _, handle, memory_bytes = _LOADED.unpack_from(frame)
    return handle, memory_bytes


def pack_refused(handle: int, error: ErgError) -> bytes:
    """A model does not load."""
    return _REFUSED.pack(Kind.REFUSED, error.code, handle) + _text(error.message)


@_checked
def unpack_refused(frame: bytes) -> tuple[int, ErgError]:
    """Handle and error of a REFUSED frame."""
    _, code, handle = _REFUSED.unpack_from(frame)
    return handle, make_error(code, frame[_REFUSED.size :].decode(errors="replace"))


def pack_hello(slot_bytes: int, slots: int, device: dict[str, Any]) -> bytes:
    """The first frame, which carries the slab's descriptor."""
    return bytes((Kind.HELLO,)) + json.dumps({"slot_bytes": slot_bytes, "slots": slots, "device": device}).encode()


@_checked
def unpack_hello(frame: bytes) -> dict[str, Any]:
    """What the first frame says."""
    return _json_object(frame[1:])


_ERRORS: Final = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ErgError) and kind is not ErgError
}


def make_error(code: int, message: str) -> ErgError:
    """The typed error of a status code."""
    try:
        return _ERRORS.get(StatusCode(code), InternalError)(message)
    except ValueError:
        return InternalError(message)


def _pack_tensor(tensor: SlotTensor) -> bytes:
    shape = tensor.shape
    return _TENSOR.pack(tensor.index, tensor.datatype.wire_id, len(shape), tensor.offset, tensor.nbytes) + _DIMS[
        len(shape)
    ].pack(*shape)


def _unpack_tensors(frame: bytes, at: int, count: int) -> list[SlotTensor]:
    tensors = []
    for _ in range(count):
        index, datatype, dimensions, offset, nbytes = _TENSOR.unpack_from(frame, at)
        at += _TENSOR.size
        shape = _DIMS[dimensions].unpack_from(frame, at)
        at += dimensions * 8
        if shape and min(shape) < 0:
            raise ValueError(f"a tensor of shape {list(shape)}")
        tensors.append(SlotTensor(index, DATATYPES[datatype], shape, offset, nbytes))
    if at != len(frame):
        raise ValueError(f"{len(frame) - at} bytes follow its tensors")
    return tensors


def _json_object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("its JSON is no object")  # noqa: TRY004 (ValueError is what marks a damaged frame)
    return value


def _text(message: str) -> bytes:
    return message.encode(errors="replace")[: MAX_FRAME_BYTES // 2]
