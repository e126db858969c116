"""The cases by grpcio: gRPC's C core as a client."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc

from tests.conformance.cases import Call, Result, fingerprint
from tests.conformance.endpoints import Endpoint

COMPRESSION = {"": None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
GIVE_UP_S = 60.0


def run(endpoint: Endpoint, calls: Mapping[str, Call], *, together: bool) -> dict[str, Result]:
    """Make every call over one channel, one after the other or all at once."""
    with endpoint.channel() as channel, ThreadPoolExecutor(len(calls) if together else 1) as pool:
        results = pool.map(lambda call: _make(channel, call), calls.values())
        return dict(zip(calls, results, strict=True))


def _make(channel: grpc.Channel, call: Call) -> Result:
    kind = {"unary": "unary_unary", "server": "unary_stream", "client": "stream_unary", "bidi": "stream_stream"}
    method: Any = getattr(channel, kind[call.shape])(call.path)
    request = iter(call.requests) if call.shape in {"client", "bidi"} else call.requests[0]
    how = {
        "metadata": call.metadata,
        "timeout": GIVE_UP_S if call.deadline_ms is None else call.deadline_ms / 1000,
        "compression": COMPRESSION[call.compression],
        "wait_for_ready": True,
    }
    answers: list[bytes] = []
    over = threading.Event()
    if call.shape in {"unary", "client"}:
        try:
            answer, made = method.with_call(request, **how)
            answers.append(answer)
        except grpc.RpcError as error:
            made = error
    else:
        if call.cancel_after is not None and call.shape == "bidi":
            request = _unended(call.requests, over)
        made = method(request, **how)
        with suppress(grpc.RpcError):
            for answer in made:
                answers.append(answer)
                if len(answers) == call.cancel_after:
                    made.cancel()
    over.set()
    return Result(
        code=made.code().value[0],
        details=made.details() or "",
        answers=tuple(map(fingerprint, answers)),
        metadata=tuple(sorted({*_own(made.initial_metadata()), *_own(made.trailing_metadata())})),
    )


def _unended(requests: Iterable[bytes], over: threading.Event) -> Iterator[bytes]:
    """Requests whose end is not said: the server might answer it with the status before the call is cancelled."""
    yield from requests
    over.wait()


def _own(metadata: Iterable[tuple[str, Any]] | None) -> list[str]:
    """Names beside gRPC's own."""
    reserved = ("grpc-", "content-type", "date", "user-agent", "accept-encoding")
    return [key for key, _ in metadata or () if not key.startswith(reserved)]
