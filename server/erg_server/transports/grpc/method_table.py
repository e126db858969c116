"""The methods that are served, by path: what a new stream's headers become."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from erg_server.errors import StatusCode
from erg_server.transports.base import Method
from erg_server.transports.grpc.call import refuse
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.stream import Call, Stream
from erg_server.transports.grpc.streaming_call import StreamingCall
from erg_server.transports.grpc.unary_call import UnaryCall


class MethodTable:
    """Owns the table, and starts calls by it."""

    def __init__(self, methods: Sequence[Method], loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int]) -> None:
        self._methods: dict[str, Method] = {}
        self._loop = loop
        self._now_ns = now_ns
        for method in methods:
            self.add(method)

    def add(self, method: Method) -> None:
        """Serve a method, instead of another at its path."""
        self._methods[method.path] = method

    def start_call(self, connection: Connection, stream: Stream) -> Call | None:
        """The call of a new stream, or None for one that is refused and has been told so."""
        head = stream.head
        if head.refusal is not None:
            http_status, code, message = head.refusal
            refuse(connection, stream, code, message, http_status)
            return None
        method = self._methods.get(head.path)
        if method is None:
            refuse(connection, stream, StatusCode.UNIMPLEMENTED, f"there is no method {head.path}")
            return None
        if method.unary is not None:
            return UnaryCall(connection, stream, method, self._loop, self._now_ns())
        return StreamingCall(connection, stream, method, self._loop, self._now_ns())
