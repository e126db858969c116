"""One process of the C++ client, which sends to one model at due times that it keeps, or in a closed loop."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click
import numpy as np
from erg_loadtest.arrivals import NS_PER_S, PoissonRate, due_offsets_ns
from erg_loadtest.payloads import Payload
from erg_loadtest.samples import Int64s, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What one client sends to one model: due times, or so many callers in a closed loop."""

    model: str
    payloads: Sequence[Payload]
    due_ns: Int64s
    in_flight: int = 0


def closed_loop(model: str, payloads: Sequence[Payload], callers: int) -> Stream:
    """Each of the callers sends its next request when it has an answer."""
    return Stream(model=model, payloads=payloads, due_ns=np.empty(0, np.int64), in_flight=callers)


def steady_ns(rate_per_s: float, seconds: float, seed: int) -> Int64s:
    """Poisson arrivals all the time."""
    offsets_ns = due_offsets_ns(PoissonRate(rate_per_s=rate_per_s, seed=seed))
    return np.fromiter(itertools.takewhile(lambda at_ns: at_ns < seconds * NS_PER_S, offsets_ns), np.int64)


class PacedClient:
    """One process of the C++ client, which keeps its due times whatever this process does."""

    def __init__(self, client: Path, folder: Path, url: str, stream: Stream, seconds: float) -> None:
        folder.mkdir(exist_ok=True)
        plan, self._samples = folder / "plan", folder / "samples"
        bodies = [payload.body for payload in stream.payloads]
        due_ns = stream.due_ns.astype("<i8")
        head = np.array([len(bodies), len(due_ns), *map(len, bodies)], "<i8")
        turns = np.arange(len(due_ns), dtype="<i8") % len(bodies)
        plan.write_bytes(b"".join((head.tobytes(), *bodies, due_ns.tobytes(), turns.tobytes())))
        command = [str(client), url, str(plan), str(self._samples), str(stream.in_flight), str(seconds)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.kill()
            raise click.ClickException(f"the client ended early, with code {self._process.wait()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self, at_ns: int) -> None:
        """Let it start at that time of the monotonic clock."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{at_ns}\n")
        self._process.stdin.flush()

    def wait(self, timeout_s: float) -> tuple[Samples, float]:
        """Every request's fate, and the CPU seconds that sending took."""
        out, _ = self._process.communicate(timeout=timeout_s)
        if self._process.returncode:
            raise click.ClickException(f"the client ended with code {self._process.returncode}")
        columns = np.fromfile(self._samples, "<i8").reshape(-1, 4).T.astype(np.int64)
        due_ns, sent_ns, done_ns, status = columns
        return (
            Samples(due_ns=due_ns, sent_ns=sent_ns, done_ns=done_ns, status=status, payload=np.zeros_like(status)),
            float(out),
        )
