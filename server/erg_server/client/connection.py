"""Unary calls to a server over grpcio; what fails becomes an ErgError with the server's status and words."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc

from erg_server.errors import ErgError, InvalidArgumentError, StatusCode

SERVICE = "inference.GRPCInferenceService"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The address that was stated is the one that is called, whatever a proxy variable says.
    ("grpc.enable_http_proxy", 0),
)


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


_Answer = TypeVar("_Answer")


class CallError(ErgError):
    """A call that the server did not answer, with the status that it, or the way to it, ended with."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a client: whom it believes, and who it is where the server asks."""

    roots: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials of a channel.

        Raises:
            InvalidArgumentError: a file is missing, no PEM, or the key is not the certificate's.
        """
        # OpenSSL says now what is wrong; gRPC's core says with the first call that something is.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.roots)
            roots = self.roots.read_bytes()
        except OSError as error:
            raise InvalidArgumentError(f"--ca-cert {self.roots}: {error.strerror or error}") from error
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(roots)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            return grpc.ssl_channel_credentials(roots, self.key.read_bytes(), self.certificate.read_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidArgumentError(f"--cert {self.certificate} with --key {self.key}: {reason}") from error


class Connection:
    """One channel to `url`, host:port. Each call has `timeout_s` and does not wait for a server that is not there."""

    def __init__(self, url: str, *, timeout_s: float, tls: TlsFiles | None = None) -> None:
        self.url = url
        self._timeout_s = timeout_s
        if tls is None:
            self._channel = grpc.insecure_channel(url, options=_OPTIONS)
        else:
            self._channel = grpc.secure_channel(url, tls.credentials(), options=_OPTIONS)

    def ask(self, method: str, question: _Message, answer: type[_Answer]) -> _Answer:
        """Call a method of the inference service; raises CallError."""
        read: Any = answer
        call: Any = self._channel.unary_unary(
            f"/{SERVICE}/{method}", lambda message: message.SerializeToString(), read.FromString
        )
        try:
            answered: _Answer = call(question, timeout=self._timeout_s)
        except grpc.RpcError as error:
            status: Any = error
            code = StatusCode(status.code().value[0])
            raise CallError(code, f"{method} at {self.url}: {code.name}: {status.details()}") from None
        return answered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is readable without a password")
