"""Calls that every client makes of every server, and what must come of them; a case is a line here."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from erg_server.errors import StatusCode
from erg_server.pb import health_pb2, reflection_pb2
from erg_server.pb import inference_pb2 as pb
from google.protobuf.message import Message

from tests.conformance.endpoints import MAX_MESSAGE_BYTES

SERVICE = "/inference.GRPCInferenceService"
HEALTH = "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x03"
ODD_NAME = "naïve “模型” 🙂 100% of\nlines\t~ \x7f"
DEADLINE_MS = 100
DIGEST = "sha256:"
ANSWERS: dict[str, type[Message]] = {
    f"{SERVICE}/ModelInfer": pb.ModelInferResponse,
    f"{SERVICE}/ModelStreamInfer": pb.ModelStreamInferResponse,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client is told to do: send `requests` on one call, and cancel it after so many answers."""

    path: str
    requests: tuple[bytes, ...]
    shape: str = "unary"
    """unary, server, client or bidi: the client's idea of the method, whatever the server's is."""
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    deadline_ms: int | None = None
    cancel_after: int | None = None
    compression: str = ""

    def as_json(self, name: str) -> dict[str, Any]:
        """For a program in another language; bytes are base64."""
        return {
            "name": name,
            "path": self.path,
            "requests": [base64.b64encode(request).decode() for request in self.requests],
            "shape": self.shape,
            "metadata": [
                [key, value if isinstance(value, str) else base64.b64encode(value).decode()]
                for key, value in self.metadata
            ],
            "deadline_ms": self.deadline_ms,
            "cancel_after": self.cancel_after,
            "compression": self.compression,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a client saw. Metadata is without gRPC's own headers, which clients hide or show as they like."""

    code: int
    details: str
    answers: tuple[str, ...]
    metadata: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`details` is None where the words are the transport's or the client's own; `answers` where they are not fixed.

    A stream's answers come as their requests are done, so they are compared in `any_order`. Those of a `hurried` call
    may come too late on a busy machine.
    """

    call: Call
    code: StatusCode = StatusCode.OK
    details: str | None = ""
    answers: tuple[bytes, ...] | None = ()
    any_order: bool = False
    hurried: bool = False

    def meaning(self, result: Result) -> Result:
        """A result without what the case leaves open."""
        answers = [self._canonical(answer) for answer in result.answers]
        return Result(
            code=result.code,
            details=result.details if self.details is not None else "",
            answers=() if self.hurried else tuple(sorted(answers) if self.any_order else answers),
            metadata=result.metadata,
        )

    def check(self, result: Result) -> None:
        """Whether a result is what must come."""
        seen = self.meaning(result)
        assert (seen.code, seen.details, seen.metadata) == (self.code, self.details or "", ()), result
        assert bool(result.details) == (self.code is not StatusCode.OK), result
        if self.answers is None:
            assert seen.answers, result
        else:
            due = [self._canonical(fingerprint(answer)) for answer in self.answers]
            assert list(seen.answers) == (sorted(due) if self.any_order else due)

    def _canonical(self, answer: str) -> str:
        """Protobuf leaves the order of a message's fields open, and the transports write them in different ones."""
        kind = ANSWERS.get(self.call.path)
        if kind is None or answer.startswith(DIGEST):
            return answer
        return kind.FromString(bytes.fromhex(answer)).SerializeToString(deterministic=True).hex()


def fingerprint(raw: bytes) -> str:
    """An answer as it is compared: its bytes, or their digest where they are many."""
    return raw.hex() if len(raw) <= 4096 else f"{DIGEST}{hashlib.sha256(raw).hexdigest()}"


def infer(raw: bytes, *, model: str = "echo", name: str = "") -> bytes:
    """A request for `raw` back."""
    request = pb.ModelInferRequest(model_name=model, id=name, raw_input_contents=[raw])
    request.inputs.add(name="INPUT0", datatype="UINT8", shape=[1, len(raw)])
    return request.SerializeToString()


def inferred(raw: bytes, *, model: str = "echo", name: str = "", datatype: str = "UINT8", count: int = 0) -> bytes:
    """The answer to it."""
    response = pb.ModelInferResponse(model_name=model, model_version="1", id=name, raw_output_contents=[raw])
    response.outputs.add(name="OUTPUT0", datatype=datatype, shape=[1, count or len(raw)])
    return response.SerializeToString()


def streamed(answer: bytes) -> bytes:
    return pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse.FromString(answer)).SerializeToString()


def _unary(request: bytes, method: str = "ModelInfer", **how: Any) -> Call:
    return Call(path=f"{SERVICE}/{method}", requests=(request,), **how)


def _stream(*requests: bytes, **how: Any) -> Call:
    return Call(path=f"{SERVICE}/ModelStreamInfer", requests=requests, shape="bidi", **how)


def _health(method: str, service: str = "", **how: Any) -> Call:
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    return Call(path=f"{HEALTH}/{method}", requests=(request,), shape="server" if method == "Watch" else "unary", **how)


def _reflect(**question: str) -> Call:
    request = reflection_pb2.ServerReflectionRequest(**question)  # type: ignore[arg-type]
    return Call(path=REFLECTION, requests=(request.SerializeToString(),), shape="bidi")


def _typed() -> Case:
    request = pb.ModelInferRequest(model_name="typed")
    request.inputs.add(name="INPUT0", datatype="INT64", shape=[1, 2]).contents.int64_contents[:] = [7, -8]
    raw = (7).to_bytes(8, "little") + (-8).to_bytes(8, "little", signed=True)
    answer = inferred(raw, model="typed", datatype="INT64", count=2)
    return Case(call=_unary(request.SerializeToString()), answers=(answer,))


def _wrong_size() -> bytes:
    request = pb.ModelInferRequest.FromString(infer(b"1234567"))
    request.inputs[0].shape[:] = [1, 8]
    return request.SerializeToString()


TEXT = bytes(range(256)) * 200
SHORT = TEXT[:2048]
"""Long enough to be compressed, and short enough to be compared as a message: its fields have no fixed order."""
LARGE = bytes(range(251)) * 20_000
NAMES = tuple(str(number) for number in range(300))
GONE = pb.ModelStreamInferResponse(error_message="no model is called 'gone'")
GONE.infer_response.id = "lost"
NOT_A_REQUEST = "the message is not a valid inference.ModelInferRequest"
METADATA = (("key", "value"), ("key", "again"), ("raw-bin", b"\0\xff\x80"), ("long", "x" * 4000))
E = StatusCode
CASES: dict[str, Case] = {
    "an empty message": Case(call=_unary(b"", "ServerLive"), answers=(b"\x08\x01",)),
    "raw bytes": Case(call=_unary(infer(b"abc", name="1")), answers=(inferred(b"abc", name="1"),)),
    "typed contents": _typed(),
    "no bytes": Case(call=_unary(infer(b"")), answers=(inferred(b""),)),
    "5 MB both ways": Case(call=_unary(infer(LARGE)), answers=(inferred(LARGE),)),
    "gzip": Case(call=_unary(infer(TEXT), compression="gzip"), answers=(inferred(TEXT),)),
    "deflate": Case(call=_unary(infer(TEXT), compression="deflate"), answers=(inferred(TEXT),)),
    "metadata": Case(call=_unary(infer(b"m"), metadata=METADATA), answers=(inferred(b"m"),)),
    "a deadline that is kept": Case(call=_unary(infer(b"d"), deadline_ms=3_600_000), answers=(inferred(b"d"),)),
    "a model's metadata": Case(call=_unary(b"\n\3mlp", "ModelMetadata"), answers=None),
    "a model's configuration": Case(call=_unary(b"\n\3mlp", "ModelConfig"), answers=None),
    "no such model": Case(call=_unary(infer(b"", model="gone")), code=E.NOT_FOUND, details="no model is called 'gone'"),
    "an error in any script": Case(
        call=_unary(infer(b"", model=ODD_NAME)), code=E.NOT_FOUND, details=f"no model is called '{ODD_NAME}'"
    ),
    "a shape that its bytes are not": Case(
        call=_unary(_wrong_size()),
        code=E.INVALID_ARGUMENT,
        details="input 'INPUT0' of shape [1, 8] and datatype UINT8 needs 8 bytes, and 7 came",
    ),
    "bytes that are no message": Case(call=_unary(b"\xff\xff"), code=E.INVALID_ARGUMENT, details=NOT_A_REQUEST),
    "what the server was not started for": Case(
        call=_unary(b"\n\1r", "SystemSharedMemoryRegister"), code=E.FAILED_PRECONDITION, details=None
    ),
    "what this server does not do": Case(
        call=_unary(b"\n\1r", "CudaSharedMemoryRegister"), code=E.UNIMPLEMENTED, details=None
    ),
    # The method table is the transport's, and so are its words.
    "no such method": Case(call=_unary(b"", "Nothing"), code=E.UNIMPLEMENTED, details=None),
    "no such service": Case(call=Call(path="/a.B/C", requests=(b"",)), code=E.UNIMPLEMENTED, details=None),
    "a stream of no such method": Case(
        call=Call(path="/a.B/C", requests=(b"a", b"b"), shape="bidi"), code=E.UNIMPLEMENTED, details=None
    ),
    # Refused by its length prefix, while the client still sends it.
    "a message over the limit": Case(
        call=_unary(infer(bytes(MAX_MESSAGE_BYTES))), code=E.RESOURCE_EXHAUSTED, details=None
    ),
    # Said by whichever of client and server sees it first.
    "a deadline that passes": Case(
        call=_unary(infer(b"", model="slow"), deadline_ms=DEADLINE_MS), code=E.DEADLINE_EXCEEDED, details=None
    ),
    "a deadline of a stream": Case(
        call=_health("Watch", deadline_ms=DEADLINE_MS), code=E.DEADLINE_EXCEEDED, details=None, hurried=True
    ),
    "a call that is cancelled": Case(
        call=_health("Watch", cancel_after=1), code=E.CANCELLED, details=None, answers=(SERVING,)
    ),
    "a stream that is cancelled": Case(
        call=_stream(infer(b"c"), cancel_after=1),
        code=E.CANCELLED,
        details=None,
        answers=(streamed(inferred(b"c")),),
    ),
    "health": Case(call=_health("Check", "mlp"), answers=(SERVING,)),
    "health of nobody": Case(call=_health("Check", "x"), code=E.NOT_FOUND, details="no service or model is called 'x'"),
    "watching nobody": Case(
        call=_health("Watch", "x", cancel_after=1), code=E.CANCELLED, details=None, answers=(SERVICE_UNKNOWN,)
    ),
    "a stream of many": Case(
        call=_stream(*(infer(b"s" + name.encode(), name=name) for name in NAMES)),
        answers=tuple(streamed(inferred(b"s" + name.encode(), name=name)) for name in NAMES),
        any_order=True,
    ),
    "a stream with an error in it": Case(
        call=_stream(infer(b"1"), infer(b"2", model="gone", name="lost"), infer(b"3")),
        answers=(streamed(inferred(b"1")), GONE.SerializeToString(), streamed(inferred(b"3"))),
        any_order=True,
    ),
    "a stream that breaks": Case(
        call=_stream(infer(b"1"), b"\xff\xff"),
        code=E.INVALID_ARGUMENT,
        details=NOT_A_REQUEST,
        answers=(streamed(inferred(b"1")),),
    ),
    "a stream of nothing": Case(call=_stream()),
    "a compressed stream": Case(
        call=_stream(infer(SHORT, name="1"), infer(SHORT, name="2"), compression="gzip"),
        answers=tuple(streamed(inferred(SHORT, name=name)) for name in "12"),
        any_order=True,
    ),
    "reflection": Case(call=_reflect(list_services="*"), answers=None),
    "reflection of a file": Case(call=_reflect(file_containing_symbol="grpc.health.v1.Health"), answers=None),
}
