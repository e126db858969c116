"""The request codec: messages of remembered forms against protobuf and decode_request alone.

An input is a list of messages, as they come or built, and small changes of the last one. One reader reads each of them
twice. It gives what protobuf gives and refuses what protobuf refuses, with InvalidArgumentError and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from unittest import mock

from tests.fuzz import fuzzer
from tests.fuzz.script import Script

with fuzzer.instrumented(__name__):
    from erg_server.datatype import DATATYPES, DataType
    from erg_server.errors import InvalidArgumentError
    from erg_server.pb import inference_pb2 as pb
    from erg_server.request import InferenceRequest
    from erg_server.tensor import Tensor
    from erg_server.transports import infer_wire
    from erg_server.transports.base import CallContext
    from erg_server.transports.codec import REGION, REGION_BYTES, decode_request
    from erg_server.transports.infer_wire import RequestReader
    from google.protobuf.message import DecodeError

    from tests.server.transports.builders import FakeRegions, add_input, set_parameters

CONTEXT = CallContext(arrival_ns=5, deadline_ns=9)
TEXTS = ["", "m", "a", "1", "\u00e9t\u00e9", "x" * 127, "x" * 128, "y" * 130]
TIMEOUTS: list[bool | int | str] = [True, 5, "soon", 1 << 40]
SHAPES: list[list[int]] = [[], [1], [2], [2, 2], [0], [0, 1 << 40], [-1], [40], [1] * 17, [1 << 31], [130]]
DATATYPE_NAMES = [*(datatype.value for datatype in DATATYPES), "FP31", ""]


def check(raw: bytes) -> None:
    """Play a script; raises where the reader's answer is not protobuf's."""
    script = Script(raw)
    regions = FakeRegions(shared=bytearray(64))
    with mock.patch.object(infer_wire, "MAX_FORMS", script.byte() % 4 + 1):
        reader = RequestReader(regions)
        meanings: dict[int, tuple[object, InferenceRequest]] = {}
        last = b""
        while script.more:
            last = _message(script, last)
            expected = _expected(last, regions)
            for came in (last, memoryview(bytearray(last))):
                found = _read(reader, came)
                assert _comparable(found) == expected
                if found is not None and found.form is not None:
                    form, meaning = meanings.setdefault(id(found.form), (found.form, _without_bytes(found)))
                    assert form is found.form
                    assert meaning == _without_bytes(found), "requests of one form differ in more than bytes"
            assert len(reader._forms) <= infer_wire.MAX_FORMS


def _read(reader: RequestReader, came: bytes | memoryview) -> InferenceRequest | None:
    try:
        return reader.read(came, CONTEXT)
    except InvalidArgumentError:
        return None


def _expected(raw: bytes, regions: FakeRegions) -> InferenceRequest | None:
    try:
        return decode_request(pb.ModelInferRequest.FromString(raw), arrival_ns=5, deadline_ns=9, regions=regions)
    except (DecodeError, InvalidArgumentError):
        return None


def _comparable(request: InferenceRequest | None) -> InferenceRequest | None:
    if request is None:
        return None
    inputs = [Tensor(item.name, item.datatype, item.shape, bytes(item.data)) for item in request.inputs]
    return replace(request, inputs=inputs, form=None)


def _without_bytes(request: InferenceRequest) -> InferenceRequest:
    inputs = [Tensor(item.name, item.datatype, item.shape, b"") for item in request.inputs]
    return replace(request, inputs=inputs, id="", form=None)


def _message(script: Script, last: bytes) -> bytes:
    step = script.byte() % 8
    if step == 0:
        return script.take(script.short())
    if step == 1:
        return _built(script).SerializeToString()
    if step == 2:
        return last + script.text()
    if step == 3:
        return _built(script).SerializeToString() + last
    at = script.short() % (len(last) + 1)
    if step == 4:
        return last[:at] + script.text() + last[at:]
    if step == 5:
        return last[:at] + last[at + script.byte() :]
    changed = bytearray(last)
    if at < len(changed):
        changed[at] = script.byte() if step == 6 else changed[at] ^ 1 << script.byte() % 8
    return bytes(changed)


def _built(script: Script) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(
        model_name=script.one_of(TEXTS), model_version=script.one_of(TEXTS[:6]), id=script.one_of(TEXTS)
    )
    how = script.byte()
    for number in range(how & 3):
        datatype, shape, kind = script.one_of(DATATYPE_NAMES), script.one_of(SHAPES), script.byte()
        name = f"x{number}"
        if kind & 3 == 0:
            add_input(message, name, datatype, shape, fp32_contents=[0.5] * (kind >> 4))
        elif kind & 3 == 1:
            add_input(message, name, datatype, shape, int64_contents=[kind] * (kind >> 4))
        else:
            add_input(message, name, datatype, shape)
        if kind & 3 == 2:
            _set_region(message.inputs[number].parameters, kind >> 2)
        if kind & 3 == 3:
            size = script.byte()
            # Mostly what fits, as else nearly everything would be refused at once.
            message.raw_input_contents.append(bytes((kind,)) * (size if size & 1 else _fitting(datatype, shape)))
    if how & 4:
        set_parameters(message.parameters, priority=script.byte() - 8)
    if how & 8:
        set_parameters(message.parameters, timeout=script.one_of(TIMEOUTS))
    if how & 16:
        set_parameters(message.outputs.add(name="y").parameters, classification=script.byte() - 8)
    if how & 32:
        _set_region(message.outputs.add(name="z").parameters, script.byte())
    return message


def _set_region(parameters: Any, size: int) -> None:
    set_parameters(parameters, **{REGION: "shared"})
    set_parameters(parameters, **{REGION_BYTES: size})


def _fitting(datatype: str, shape: list[int]) -> int:
    itemsize = DataType(datatype).itemsize if datatype in DATATYPE_NAMES[:-2] else 1
    return max(0, min(math.prod(shape), 200)) * itemsize


if __name__ == "__main__":
    fuzzer.run("request_codec", check, max_bytes=1024)
