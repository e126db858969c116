"""Random traffic for a meter, and what must come of it, added up by other means."""

from __future__ import annotations

from dataclasses import dataclass

from erg_server.request import Phases
from erg_server.telemetry.meter import FAILURE_REASONS, FailureReason, ModelMeter
from hypothesis import strategies as st

durations = st.integers(0, 10**13)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request that was answered."""

    rows: int
    before_queue_ns: int
    queue_ns: int
    after_queue_ns: int
    compute_ns: tuple[int, int, int]

    def count(self, meter: ModelMeter) -> None:
        queued_ns = 10**15 + self.before_queue_ns
        dispatched_ns = queued_ns + self.queue_ns
        phases = Phases(
            arrival_ns=10**15,
            queued_ns=queued_ns,
            dispatched_ns=dispatched_ns,
            completed_ns=dispatched_ns + self.after_queue_ns,
            compute_input_ns=self.compute_ns[0],
            compute_infer_ns=self.compute_ns[1],
            compute_output_ns=self.compute_ns[2],
        )
        meter.succeeded([phases], self.rows)

    @property
    def total_ns(self) -> int:
        return self.before_queue_ns + self.queue_ns + self.after_queue_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request that was not."""

    reason: FailureReason
    duration_ns: int

    def count(self, meter: ModelMeter) -> None:
        meter.failed(self.reason, self.duration_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A batch."""

    rows: int
    reason: str
    times_ns: tuple[int, int, int]
    padded: int
    real: int

    def count(self, meter: ModelMeter) -> None:
        input_ns, infer_ns, output_ns = self.times_ns
        meter.executed(
            self.rows,
            self.reason,
            input_ns=input_ns,
            infer_ns=infer_ns,
            output_ns=output_ns,
            padded_elements=self.padded,
            real_elements=self.real,
        )


Event = Answered | Failed | Executed
_three = st.tuples(durations, durations, durations)
events = st.lists(
    st.one_of(
        st.builds(
            Answered,
            rows=st.integers(0, 64),
            before_queue_ns=durations,
            queue_ns=durations,
            after_queue_ns=durations,
            compute_ns=_three,
        ),
        st.builds(Failed, reason=st.sampled_from(FAILURE_REASONS), duration_ns=durations),
        st.builds(
            Executed,
            rows=st.integers(0, 600),
            reason=st.sampled_from(["full", "idle", "delay"]),
            times_ns=_three,
            padded=st.integers(0, 10**6),
            real=st.integers(0, 10**6),
        ),
    ),
    max_size=30,
)


def metered(traffic: list[Event], name: str = "minilm", version: str = "1") -> ModelMeter:
    """A meter that counted the traffic."""
    meter = ModelMeter(name, version)
    for event in traffic:
        event.count(meter)
    return meter
