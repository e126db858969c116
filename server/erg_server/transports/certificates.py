"""The files that TLS is made of, looked at again at each handshake, so that a renewed certificate needs no restart."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from erg_server.errors import InvalidArgumentError

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """PEM files: the server's certificate chain and key; for mutual TLS, the roots that callers' certificates need."""

    certificate: Path
    key: Path
    client_roots: Path | None = None

    def stamp(self) -> Stamp:
        """What changes when a file does; raises OSError where one is missing."""
        found = [path.stat() for path in (self.certificate, self.key, self.client_roots) if path is not None]
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and later, HTTP/2 by ALPN; mutual where there are roots.

        Raises:
            InvalidArgumentError: a file is missing, no PEM, or the key is not the certificate's.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.client_roots is not None:
                context.load_verify_locations(self.client_roots)
                context.verify_mode = ssl.CERT_REQUIRED
                # A resumed session is not checked again, by roots that may have changed since.
                context.options |= ssl.OP_NO_TICKET
                context.num_tickets = 0
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidArgumentError(
                f"TLS cannot use {self.certificate}, {self.key}{self._roots()}: {reason}; "
                "give PEM files by --grpc-server-cert, --grpc-server-key and --grpc-root-cert"
            ) from error
        return context

    def expiries(self) -> dict[Path, float]:
        """When each file's certificates end, in Unix time: a chain with its first, roots with their last.

        A chain is of no use without any of its certificates, while callers are let in as long as one root is left. A
        file that OpenSSL takes and this reader does not is left out, which the log tells.

        Raises:
            OSError: a file is missing.
        """
        # It takes 14 MB of memory, which servers without TLS are spared.
        from cryptography import x509  # noqa: PLC0415

        found: dict[Path, float] = {}
        for path, decides in ((self.certificate, min), (self.client_roots, max)):
            if path is None:
                continue
            try:
                certificates = x509.load_pem_x509_certificates(path.read_bytes())
            except ValueError as error:
                log.warning("%s: nobody can tell when it expires: %s", path, error)
            else:
                found[path] = decides(each.not_valid_after_utc for each in certificates).timestamp()
        return found

    def _roots(self) -> str:
        return f" and {self.client_roots}" if self.client_roots is not None else ""


class ReloadingCertificates:
    """Gives new connections what the files hold now; open ones keep what they began with."""

    def __init__(self, files: CertificateFiles) -> None:
        self.files = files
        # Listeners keep this one; its callback hands each handshake over to the current one.
        self.listening = files.context()
        self.listening.sni_callback = self._choose
        self.stamp = files.stamp()
        self._current = files.context()
        self._expiries = files.expiries()
        self._failed: Stamp | None = None

    @property
    def expiries(self) -> Mapping[Path, float]:
        """When what new connections get ends, by file; see `CertificateFiles.expiries`."""
        return self._expiries

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
        self.reload()
        connection.context = self._current

    def reload(self) -> bool:
        """Read the files again if they changed; what cannot be used is told once, and the last good ones stay."""
        try:
            stamp = self.files.stamp()
            if stamp in {self.stamp, self._failed}:
                return False
            self._current, self._expiries = self.files.context(), self.files.expiries()
        except (OSError, InvalidArgumentError) as error:
            message = error.message if isinstance(error, InvalidArgumentError) else str(error)
            log.warning("%s; the certificate read before is served on", message)
            self._failed = None if isinstance(error, OSError) else stamp
            return False
        self.stamp = stamp
        log.info("the certificate in %s was read again", self.files.certificate)
        return True


def _no_password() -> str:
    raise ValueError("the key is encrypted; it must be readable without a password")
