"""Messages and regions for the codec's tests."""

from __future__ import annotations

from typing import Any

from erg_server.errors import InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceRequest
from erg_server.tensor import Buffer
from erg_server.transports.codec import Regions, decode_request


class FakeRegions:
    """Regions in this process's memory."""

    def __init__(self, **regions: bytearray) -> None:
        self.regions = regions

    def check(self, name: str, offset: int, byte_size: int) -> None:
        if name not in self.regions or not 0 <= offset <= offset + byte_size <= len(self.regions[name]):
            raise InvalidArgumentError(f"no bytes {offset} to {offset + byte_size} in '{name}'")

    def read(self, name: str, offset: int, byte_size: int) -> Buffer:
        self.check(name, offset, byte_size)
        return bytes(self.regions[name][offset : offset + byte_size])

    def write(self, name: str, offset: int, data: Buffer) -> None:
        self.check(name, offset, len(data))
        self.regions[name][offset : offset + len(data)] = data


def infer_message(*raw: bytes, **fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(**({"model_name": "m", "raw_input_contents": raw} | fields))


def add_input(message: pb.ModelInferRequest, name: str, datatype: str, shape: list[int], **contents: Any) -> None:
    item = message.inputs.add(name=name, datatype=datatype, shape=shape)
    if contents:
        item.contents.CopyFrom(pb.InferTensorContents(**contents))


def set_parameters(parameters: Any, **values: bool | float | str) -> None:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in values.items():
        setattr(parameters[name], kinds[type(value)], value)


def decode(message: pb.ModelInferRequest, regions: Regions | None = None) -> InferenceRequest:
    return decode_request(message, arrival_ns=1, deadline_ns=None, regions=regions or FakeRegions())
