"""`erg serve` that says on SIGUSR1 what it holds; in everything else it is the command as it is.

    python -m bench.watched_server REPORT serve --model-repository FOLDER ...

What is held shows in the objects that are alive: no counter of the server's own has to be believed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from erg_server.transports.grpc.limits import BufferAccount

PASSING = frozenset(
    (
        "Connection", "ConnectionProtocol", "Outbox", "HeaderDecoder", "Watch", "Stream", "UnaryCall", "StreamingCall",
        "MessageReader", "Inbox", "CallContext", "InferenceRequest", "InferenceResponse", "QueuedRequest", "Phases",
        "Tensor", "DispatchedBatch", "BatchResult", "ConcatenatedInput", "BatchOutput",
    )
)  # fmt: skip
"""Classes whose objects live as long as a connection, a call or a batch: none may be left when those are over."""
_ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a server holds at one moment."""

    connections: int
    held_bytes: int
    passing: Mapping[str, int]
    """Objects of `PASSING` classes, those of which there are any."""


def count_held() -> Held:
    """What this process holds now; garbage is collected first, what start-up froze is looked at too."""
    gc.unfreeze()
    gc.collect()
    kinds: Counter[str] = Counter()
    held_bytes = 0
    for entry in gc.get_objects():
        kind = type(entry)
        # A class made by a library may say anything here.
        if str(kind.__module__).startswith("erg_server."):
            kinds[kind.__name__] += 1
            if isinstance(entry, BufferAccount):
                held_bytes += entry.held_bytes
    gc.freeze()
    return Held(
        connections=kinds["ConnectionProtocol"],
        held_bytes=held_bytes,
        passing={name: kinds[name] for name in sorted(PASSING) if kinds[name]},
    )


def ask_held(pid: int, report: Path) -> Held:
    """Have the server at `pid` write its report, and read it; raises TimeoutError where none comes."""
    report.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until_s = time.monotonic() + _ANSWER_WITHIN_S
    while not report.exists():
        if time.monotonic() > until_s:
            raise TimeoutError(f"process {pid} wrote no {report}")
        time.sleep(0.02)
    return Held(**json.loads(report.read_text(encoding="utf-8")))


def write_held(report: Path) -> None:
    """Write the report in one step, so that a reader never sees half of it."""
    held = count_held()
    staged = report.with_suffix(".new")
    staged.write_text(
        json.dumps({"connections": held.connections, "held_bytes": held.held_bytes, "passing": dict(held.passing)}),
        encoding="utf-8",
    )
    staged.replace(report)


if __name__ == "__main__":
    # Imported here: who only asks needs no command line.
    from erg_server.cli import main

    signal.signal(signal.SIGUSR1, lambda _number, _frame: write_held(Path(sys.argv[1])))
    main(sys.argv[2:], prog_name="erg")
