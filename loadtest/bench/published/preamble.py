"""How the figures were taken, in words."""

from __future__ import annotations

from bench.published.figures import Record

BUSY_CORES = 0.2
"""Other programs' use of the machine from which on a run is not to be believed."""


def preamble(record: Record) -> str:
    """The conditions of a run."""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    paragraphs = [
        (
            f"`{record.command}` on {record.date}: {record.machine}; {versions}. {record.workers} workers of one "
            "thread for every server, the same inputs of one row, the same requests in flight, each turn "
            f"{record.seconds:g} s. Servers take turns in {record.rounds} rounds, in another order each; figures are "
            "medians, in brackets the least and the most of the rounds. CPU is all of a server's processes by the "
            "kernel's count. *Raw* is ONNX Runtime in a loop without a server, a process a core, at its cheapest "
            "batch, measured in the same round."
        ),
        (
            "Erg has the configuration of the repository, and nothing is tuned. The rivals run in environments of "
            "their own with ONNX Runtime of the same version and session options, without access logs (MLServer also "
            "without metrics), and with the best of the settings below. Erg and MLServer are called over v2 gRPC, "
            "Mosec over HTTP with raw bytes as bodies, which costs it less than a protocol would. Both clients are "
            "a few lines over sockets, since libraries' cost more than the servers; they run on the servers' cores "
            "where there are no others, so a rate has their CPU time in it."
        ),
        (
            f"Dollars are CPU time at {record.usd_per_cpu_hour:g} a CPU hour, joules CPU time at "
            f"{record.watts_per_busy_core:g} W a busy core. Both were put in as examples, the same for all, and the "
            "joules are modelled, not measured."
        ),
    ]
    if record.busy_at_start > BUSY_CORES:
        paragraphs.append(
            f"**Not to be believed**: other programs used {record.busy_at_start:.1f} cores of the machine when the run "
            "began."
        )
    return "\n\n".join(paragraphs)
