"""A name server on loopback (RFC 1035) for a name whose addresses a test changes, as DNS of a headless service does."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Self

A, IN = 1, 1
ANSWERED, NAME_ERROR = 0x8580, 0x8583
"""A response, authoritative, recursion asked for and there; the last four bits are the code."""


class LoopbackDns:
    """Answers every question for `name` of type A with `addresses`, and other types with nothing."""

    def __init__(self, name: str) -> None:
        self._name = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.addresses: tuple[str, ...] = ()
        self.asked = 0

    @property
    def authority(self) -> str:
        """Host and port, as gRPC's dns: scheme has them."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(4096)
            if not question:
                return
            if len(question) > 12:
                self._socket.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 1
        kind, family = struct.unpack_from("!HH", question, end)
        known = question[12:end].lower() == self._name
        addresses = self.addresses if known and (kind, family) == (A, IN) else ()
        self.asked += bool(known and kind == A)
        flags = ANSWERED if known else NAME_ERROR
        head = question[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
        # Each answer points to the name in the question, and may be kept for no time at all.
        records = [struct.pack("!HHHIH", 0xC00C, A, IN, 0, 4) + socket.inet_aton(address) for address in addresses]
        return head + question[12 : end + 4] + b"".join(records)
