"""From a handler that streams to its caller: the one part of a call that waits, which is why it is not compiled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from erg_server.errors import CancelledError


class AnswerSink(Protocol):
    """The call that takes the answers."""

    @property
    def over(self) -> bool:
        """Whether nobody takes answers any more."""
        ...

    def send(self, answer: Any) -> asyncio.Future[None] | None:
        """Queue one answer. Returns what to wait for before the next, where the caller takes none."""
        ...

    def room(self) -> asyncio.Future[None] | None:
        """What to wait for while more than a bound has not gone out."""
        ...

    def finish(self) -> None:
        """The handler has given all its answers."""
        ...

    def fail(self, error: BaseException) -> None:
        """The handler ended with an error."""
        ...


async def send_answers(call: AnswerSink, start: Callable[[], AsyncGenerator[Any, None]]) -> None:
    """Start the handler and send each answer as it gives it, and wait while the caller takes nothing."""
    try:
        async with aclosing(start()) as answers:
            async for answer in answers:
                if call.over:
                    return
                wait = call.send(answer)
                while wait is not None:
                    await wait
                    wait = call.room()
    except asyncio.CancelledError:
        call.fail(CancelledError("the call was cancelled"))
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
        call.fail(error)
    else:
        call.finish()
