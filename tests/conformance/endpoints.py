"""Real server processes of both transports, plain and with TLS, over one repository: what every client is sent to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme

from tests.e2e.server_process import ServerProcess, write_identity, write_mlp

TRANSPORTS = ("erg", "grpcio")
KINDS = tuple((transport, tls) for tls in (False, True) for transport in TRANSPORTS)
MAX_MESSAGE_BYTES = 8 << 20
SLOW_MS = 500
MLP = """
name: "mlp"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]
dynamic_batching { }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server as a client sees it."""

    transport: str
    address: str
    process: ServerProcess
    root_certificate: Path | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.root_certificate is None else "https"

    def channel(self) -> grpc.Channel:
        """grpcio's own channel to it."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if self.root_certificate is None:
            return grpc.insecure_channel(self.address, options=options)
        known = grpc.ssl_channel_credentials(self.root_certificate.read_bytes())
        return grpc.secure_channel(self.address, known, options=options)


Endpoints = dict[tuple[str, bool], Endpoint]


def fill_repository(root: Path) -> Path:
    """`echo` answers with its bytes, `typed` with its numbers, `slow` later than any deadline that a case states."""
    write_identity(root, "echo", datatype="TYPE_UINT8", dims="-1")
    write_identity(root, "typed", datatype="TYPE_INT64", dims="-1")
    delay = f'parameters {{ key: "execution_delay_ms" value {{ string_value: "{SLOW_MS}" }} }}'
    write_identity(root, "slow", datatype="TYPE_UINT8", dims="-1", extra=delay)
    write_mlp(root / "mlp" / "1")
    (root / "mlp" / "config.pbtxt").write_text(MLP)
    return root


@contextmanager
def running(folder: Path) -> Iterator[Endpoints]:
    """Every kind of server, started and ended side by side."""
    root = fill_repository(folder / "repository")
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    certificate, chain, key = folder / "root.pem", folder / "chain.pem", folder / "key.pem"
    authority.cert_pem.write_to_path(str(certificate))
    leaf.cert_chain_pems[0].write_to_path(str(chain))
    leaf.private_key_pem.write_to_path(str(key))
    flags = ["--model-repository", str(root), "--cpu-workers", "1", "--max-message-bytes", str(MAX_MESSAGE_BYTES)]
    secure = ["--grpc-use-ssl", "--grpc-server-cert", str(chain), "--grpc-server-key", str(key)]

    def start(kind: tuple[str, bool]) -> Endpoint:
        transport, tls = kind
        process = ServerProcess(*flags, *(secure if tls else ()), "--grpc-transport", transport)
        stack.push(process)
        return Endpoint(
            transport=transport,
            address=process.grpc_address,
            process=process,
            root_certificate=certificate if tls else None,
        )

    with ExitStack() as stack, ThreadPoolExecutor(len(KINDS)) as pool:
        yield dict(zip(KINDS, pool.map(start, KINDS), strict=True))
