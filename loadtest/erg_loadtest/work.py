"""What one sender does, and how another process is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from erg_loadtest.answers import CheckKind, CheckRule
from erg_loadtest.arrival_shares import split_arrivals, split_limit
from erg_loadtest.arrivals import Arrivals, BurstyRate, ClosedLoop, ConstantRate, Limit, PoissonRate, Replay
from erg_loadtest.client import Target
from erg_loadtest.mlperf import Mlperf, MlperfScenario
from erg_loadtest.payloads import Payload

_ARRIVALS = {kind.__name__: kind for kind in (ClosedLoop, ConstantRate, PoissonRate, BurstyRate, Replay)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one sender does: the plan, with its requests made and its rate or callers already shared out."""

    target: Target
    arrivals: Arrivals
    limit: Limit
    warmup: Limit | None
    payloads: tuple[Payload, ...]
    max_in_flight: int
    check: CheckRule | None = None
    mlperf: Mlperf | None = None
    """LoadGen decides when requests leave; the arrivals are the warm-up's."""
    offset: int = 0

    def split(self, parts: int) -> tuple[Work, ...]:
        """One share a client process; each starts at another request, so that they are not sent in lockstep."""
        warmups: Sequence[Limit | None] = (None,) * parts if self.warmup is None else split_limit(self.warmup, parts)
        return tuple(
            Work(
                target=self.target,
                arrivals=arrivals,
                limit=limit,
                warmup=warmup,
                payloads=self.payloads,
                max_in_flight=max(1, self.max_in_flight // parts),
                check=self.check,
                mlperf=self.mlperf,
                offset=part * len(self.payloads) // parts,
            )
            for part, (arrivals, limit, warmup) in enumerate(
                zip(split_arrivals(self.arrivals, parts), split_limit(self.limit, parts), warmups, strict=True)
            )
        )

    def bodies(self) -> Iterator[bytes]:
        """What follows the header: each request's bytes and those that its answer is checked against."""
        for payload in self.payloads:
            yield from _parts(payload)

    def header(self) -> bytes:
        """Everything but the requests' bytes, as one line of JSON."""
        document = {
            "target": asdict(self.target),
            "arrivals": {"kind": type(self.arrivals).__name__, **asdict(self.arrivals)},
            "limit": asdict(self.limit),
            "warmup": None if self.warmup is None else asdict(self.warmup),
            "max_in_flight": self.max_in_flight,
            "offset": self.offset,
            "mlperf": None if self.mlperf is None else asdict(self.mlperf),
            "check": None if self.check is None else asdict(self.check),
            "payloads": [[payload.rows, *map(len, _parts(payload))] for payload in self.payloads],
        }
        return json.dumps(document).encode() + b"\n"

    @staticmethod
    def read(stream: BinaryIO) -> Work:
        """The counterpart of `header` and the bodies that follow it."""
        document: dict[str, Any] = json.loads(stream.readline())
        check, mlperf = document["check"], document["mlperf"]
        return Work(
            target=Target(**document["target"]),
            arrivals=_arrivals(document["arrivals"]),
            limit=Limit(**document["limit"]),
            warmup=None if document["warmup"] is None else Limit(**document["warmup"]),
            payloads=tuple(
                Payload(body=stream.read(size), rows=rows, expected=stream.read(*expected) if expected else None)
                for rows, size, *expected in document["payloads"]
            ),
            mlperf=None if mlperf is None else Mlperf(**{**mlperf, "scenario": MlperfScenario(mlperf["scenario"])}),
            check=None if check is None else CheckRule(**{**check, "kind": CheckKind(check["kind"])}),
            max_in_flight=document["max_in_flight"],
            offset=document["offset"],
        )


def _parts(payload: Payload) -> tuple[bytes, ...]:
    return (payload.body,) if payload.expected is None else (payload.body, payload.expected)


def _arrivals(document: dict[str, Any]) -> Arrivals:
    kind = _ARRIVALS[document.pop("kind")]
    if "offsets_ns" in document:
        document["offsets_ns"] = tuple(document["offsets_ns"])
    return kind(**document)
