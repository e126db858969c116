"""The gRPC front ends of real server processes, as operators start them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from erg_server.pb import inference_pb2 as pb

from tests.e2e.server_process import ServerProcess, write_identity

pytestmark = pytest.mark.e2e
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
PING = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    write_identity(root, "echo", datatype="TYPE_UINT8", dims="-1")
    return root


@pytest.fixture(scope="module")
def flags(small: Path) -> list[str]:
    return ["--model-repository", str(small), "--cpu-workers", "1"]


@pytest.fixture(scope="module")
def plain(flags: list[str]) -> Iterator[ServerProcess]:
    with ServerProcess(*flags) as process:
        yield process


def infer(channel: grpc.Channel, raw: bytes, **how: object) -> bytes:
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    request = pb.ModelInferRequest(
        model_name="echo",
        inputs=[pb.ModelInferRequest.InferInputTensor(name="INPUT0", datatype="UINT8", shape=[1, len(raw)])],
        raw_input_contents=[raw],
    )
    answer = call(request, wait_for_ready=True, timeout=60, **how)  # type: ignore[arg-type]
    assert isinstance(answer, pb.ModelInferResponse)
    return answer.raw_output_contents[0]


def test_requests_of_every_size_come_back(plain: ServerProcess) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(plain.grpc_address, options=options) as channel:
        for size in (0, 1, 16_379, 16_384, 65_530, 65_536, 600_000, 5_000_000):
            raw = (bytes(range(251)) * (size // 251 + 1))[:size]
            assert infer(channel, raw) == raw
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert infer(channel, b"again" * 10_000, compression=compression) == b"again" * 10_000


def test_a_flooding_connection_is_closed_while_others_are_served(plain: ServerProcess) -> None:
    host, port = plain.grpc_address.rsplit(":", 1)
    codes: list[bytes] = []

    def flood() -> None:
        with socket.create_connection((host, int(port))) as bad:
            heard = b""
            try:
                bad.sendall(PREFACE + PING * 5000)
                while part := bad.recv(1 << 16):
                    heard += part
            except ConnectionError:
                pass
            codes.append(heard)

    floods = [threading.Thread(target=flood) for _ in range(4)]
    with grpc.insecure_channel(plain.grpc_address) as channel:
        assert infer(channel, b"before") == b"before"
        for thread in floods:
            thread.start()
        for number in range(50):
            assert infer(channel, b"%d" % number) == b"%d" % number
        for thread in floods:
            thread.join()
        assert infer(channel, b"after") == b"after"
    assert all(b"too many PING frames" in heard for heard in codes)


@pytest.mark.parametrize("transport", ["erg", "grpcio"])
def test_mutual_tls_a_unix_socket_and_a_shared_port_by_flags(flags: list[str], tmp_path: Path, transport: str) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "root.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    more = [
        "--grpc-transport", transport, "--grpc-use-ssl-mutual", "--grpc-root-cert", str(tmp_path / "root.pem"),
        "--grpc-server-cert", str(tmp_path / "cert.pem"), "--grpc-server-key", str(tmp_path / "key.pem"),
        "--grpc-unix-socket", str(tmp_path / "erg.sock"), "--reuse-grpc-port", "--grpc-max-connection-age", "3600000",
    ]  # fmt: skip
    known = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
    )
    with ServerProcess(*flags, *more) as process:
        with grpc.secure_channel(process.grpc_address, known) as channel:
            assert infer(channel, b"known") == b"known"
        target = [("grpc.ssl_target_name_override", "127.0.0.1")]
        with grpc.secure_channel(f"unix:{tmp_path / 'erg.sock'}", known, options=target) as channel:
            assert infer(channel, b"unix") == b"unix"
        unknown = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(process.grpc_address, unknown) as channel:
            live = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerLive",
                request_serializer=pb.ServerLiveRequest.SerializeToString,
                response_deserializer=pb.ServerLiveResponse.FromString,
            )
            with pytest.raises(grpc.RpcError) as caught:
                live(pb.ServerLiveRequest(), timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["--grpc-use-ssl"], "--grpc-server-cert"),
        (["--grpc-server-cert", "c.pem", "--grpc-server-key", "k.pem"], "--grpc-use-ssl"),
        (["--grpc-use-ssl", "--grpc-server-cert", "c.pem", "--grpc-server-key", "k.pem"], "c.pem"),
        (["--grpc-use-ssl-mutual", "--grpc-server-cert", "c", "--grpc-server-key", "k"], "--grpc-root-cert"),
        (["--grpc-keepalive-time", "0"], "--grpc-keepalive-time"),
        (["--grpc-max-connection-age", "-1"], "--grpc-max-connection-age"),
    ],
)
def test_settings_that_contradict_are_told_at_start(flags: list[str], wrong: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "erg_server", "serve", *flags, *wrong],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert text in done.stderr
    assert "Traceback" not in done.stderr
