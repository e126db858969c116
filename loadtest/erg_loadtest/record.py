"""What a report needs of a run beside its figures: when each request was answered, what was read of the server."""

from __future__ import annotations

from dataclasses import dataclass

from erg_server.pb import inference_pb2
from grpc.aio import AioRpcError

from erg_loadtest.client import InferClient, describe_error
from erg_loadtest.samples import Samples
from erg_loadtest.server_watch import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What the server says it is; empty, with `missing` saying why, where it does not."""

    name: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What one run left behind."""

    samples: Samples
    rows: tuple[int, ...]
    """Of each prepared request."""
    readings: tuple[Reading, ...]
    readings_missing: str
    """Why there are none."""
    software: Software
    started_unix_s: float


async def read_software(client: InferClient) -> Software:
    """The server's own name and version, by ServerMetadata."""
    try:
        answer = await client.ask(
            "ServerMetadata", inference_pb2.ServerMetadataRequest(), inference_pb2.ServerMetadataResponse.FromString
        )
    except AioRpcError as error:
        return Software(missing=describe_error(error))
    return Software(name=answer.name, version=answer.version, extensions=tuple(answer.extensions))
