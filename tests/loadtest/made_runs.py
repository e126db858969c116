"""Runs made of chosen samples and counters, for whatever reports them."""

from __future__ import annotations

import numpy as np
from erg_loadtest.arrivals import ConstantRate, Limit
from erg_loadtest.client import Target
from erg_loadtest.document import RunDocument, run_document
from erg_loadtest.load import LoadPlan
from erg_loadtest.quality import Quality
from erg_loadtest.record import RunRecord, Software
from erg_loadtest.result import LoadResult
from erg_loadtest.samples import Samples
from erg_loadtest.server_statistics import ServerPhases
from erg_loadtest.server_watch import Reading

MS = 1_000_000
S = 1_000_000_000

PHASES = ServerPhases(
    inferences=1000, executions=400, succeeded=1000, failed=0, mean_batch=2.5, total_us=5.0, queue_us=1.0, input_us=1.0,
    infer_us=2.0, output_us=1.0, batches={1: 100, 4: 300},
)  # fmt: skip


def energy_page(seconds: float, *, model: str = "m", source: str = "modelled", joules_per_s: float = 6.0) -> str:
    """What an Erg would show after so many seconds: the model's accounts, another's, and the idle one."""
    label = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    def line(name: str, value: float, **labels: str) -> str:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        return f"{name}{{{inside}}} {value!r}\n"

    def energy(account: str, of: str, watts: float) -> str:
        where = {"domain": "cpu", "device": "cpu0", "model": of, "version": "1" if of else ""}
        return line("erg_energy_joules_total", watts * seconds, **where, account=account, source=source)

    def cost(account: str, of: str, component: str, usd_per_s: float) -> str:
        where = {"model": of, "version": "1" if of else "", "device": "cpu0", "account": account}
        of_energy = source if component == "energy" else ""
        return line("erg_cost_usd_total", usd_per_s * seconds, **where, component=component, source=of_energy)

    return (
        energy("inference", label, joules_per_s * 0.75)
        + energy("padding", label, joules_per_s * 0.25)
        + energy("inference", "other", 1.0)
        + energy("idle", "", 3.0)
        + cost("inference", label, "device_time", 1e-5)
        + cost("inference", label, "energy", 2e-6)
        + cost("idle", "", "device_time", 3e-5)
        + line("erg_process_cpu_seconds_total", 0.25 * seconds, process="front")
        + line("erg_process_cpu_seconds_total", 0.5 * seconds, process="worker", worker="cpu0")
        + line("erg_worker_memory_bytes", 5e7, worker="cpu0", kind="pss")
        + line("erg_worker_memory_bytes", 9e7, worker="cpu0", kind="rss")
        + line("erg_worker_memory_bytes", 4e7, worker="cpu0", kind="models")
    )


def made_run(
    *,
    model: str = "m",
    label: str = "",
    seconds: int = 10,
    rate: int = 100,
    latency_ms: float = 5.0,
    noise: float = 0.2,
    failures: int = 0,
    pages: bool = True,
    seed: int = 0,
    quality: Quality | None = None,
    **energy: object,
) -> RunDocument:
    """A run at a constant rate whose latencies vary about `latency_ms`; the first `failures` requests failed."""
    plan, result = made_result(
        model=model, seconds=seconds, rate=rate, latency_ms=latency_ms, noise=noise, failures=failures, pages=pages,
        seed=seed, **energy,
    )  # fmt: skip
    return run_document(plan, result, command=f"erg load {model}", label=label, quality=quality)


def made_result(
    *, model, seconds, rate, latency_ms, noise, failures, pages, seed, **energy
) -> tuple[LoadPlan, LoadResult]:
    count = seconds * rate
    due_ns = np.arange(count, dtype=np.int64) * S // rate
    latency = np.random.default_rng(seed).lognormal(np.log(latency_ms), noise, size=count)
    status = np.zeros(count, dtype=np.int64)
    status[:failures] = 14
    samples = Samples(
        due_ns=due_ns,
        sent_ns=due_ns + 1000,
        done_ns=due_ns + (latency * MS).astype(np.int64),
        status=status,
        payload=np.zeros(count, dtype=np.int64),
    )
    readings = tuple(
        Reading(at_ns=at * S // 2, page=energy_page(at / 2, model=model, **energy)) for at in range(2 * seconds + 1)
    )
    plan = LoadPlan(
        model=model,
        target=Target(url="127.0.0.1:1"),
        arrivals=ConstantRate(rate_per_s=float(rate)),
        limit=Limit(duration_s=float(seconds)),
    )
    result = LoadResult.from_samples(
        samples, rows=[2], model=model, version="", url="127.0.0.1:1", arrivals=plan.arrivals, connections=1,
        processes=1, server=PHASES, cpu="not asked for", client_cpu_s=0.1,
    )  # fmt: skip
    record = RunRecord(
        samples=samples,
        rows=(2,),
        readings=readings if pages else (),
        readings_missing="" if pages else "not asked for",
        software=Software(name="erg", version="0.1"),
        started_unix_s=0.0,
    )
    from dataclasses import replace

    return plan, replace(result, record=record)
