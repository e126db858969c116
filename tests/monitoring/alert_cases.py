"""For each alert, series that must fire it after its `for`, and series like those that must not.

They are in promtool's notation. A step is a minute unless the case says otherwise: `0+80x70` is 0, 80, 160 and so on to
70 minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

Series = dict[str, str]

DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """What must leave the alert silent at a moment; `why` names it."""

    why: str
    series: Series
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`pending` is a moment before the `for` is over ("" where there is none), `fires` the first when it is."""

    alert: str
    series: Series
    pending: str
    fires: str
    labels: dict[str, str]
    quiet: tuple[Quiet, ...]
    step: str = "1m"


MODEL = 'namespace="ml",job="erg",pod="erg-0",instance="10.0.0.1:8002",model="minilm",version="1"'
POD = 'namespace="ml",job="erg",pod="erg-0",instance="10.0.0.1:8002"'
CERTIFICATE = f'erg_tls_certificate_expiry_timestamp_seconds{{{POD},file="/tls/tls.crt"}}'
OF_MODEL = {"namespace": "ml", "job": "erg", "model": "minilm"}
OF_POD = {"namespace": "ml", "job": "erg", "pod": "erg-0", "instance": "10.0.0.1:8002"}


def traffic(*, good: str, late: str = "0x400", refused: str = "0x400", canceled: str = "0x400") -> Series:
    """The counters of one model: answered (late ones too), late, refused, and given up by their callers."""
    return {
        f"nv_inference_request_success{{{MODEL}}}": good,
        f'erg_deadline_requests_total{{{MODEL},outcome="met"}}': good,
        f'erg_deadline_requests_total{{{MODEL},outcome="late"}}': late,
        f'erg_deadline_requests_total{{{MODEL},outcome="dropped"}}': "0x400",
        f'erg_request_failures_total{{{MODEL},reason="REJECTED"}}': refused,
        f'erg_request_failures_total{{{MODEL},reason="CANCELED"}}': canceled,
        f'erg_request_failures_total{{{MODEL},reason="BACKEND"}}': "0x400",
        f'erg_request_failures_total{{{MODEL},reason="OTHER"}}': "0x400",
    }


def worker(values: str, name: str = "erg_worker_ready") -> Series:
    return {f'{name}{{{POD},worker="gpu0"}}': values}


def replicas(first: str, second: str) -> Series:
    """What two servers that are ready say is needed."""
    of_second = 'namespace="ml",job="erg",pod="erg-1",instance="10.0.0.2:8002"'
    return {
        f"erg_replicas_needed{{{POD}}}": first,
        f"erg_replicas_needed{{{of_second}}}": second,
        f"erg_server_ready{{{POD}}}": "1x40",
        f"erg_server_ready{{{of_second}}}": "1x40",
    }


CASES = (
    Case(
        alert="ErgObjectiveBurnFast",
        series=traffic(good="0+80x70", refused="0+20x70"),
        pending="2m",
        fires="3m",
        labels=OF_MODEL,
        quiet=(
            Quiet(
                why="late answers that are fewer than a fast burn",
                series=traffic(good="0+100x90", late="0+10x90"),
                at="80m",
            ),
            Quiet(why="it was bad, and is over", series=traffic(good="0+100x90", refused="0+40x30 1200x60"), at="40m"),
            Quiet(
                why="three bad minutes of an hour",
                series=traffic(good="0+100x90", refused="0x60 50 100 150x20"),
                at="64m",
            ),
            Quiet(why="callers that cancel", series=traffic(good="0+50x90", canceled="0+50x90"), at="80m"),
            Quiet(
                why="nine misses of twenty requests", series=traffic(good="0x10 11x80", refused="0x10 8x80"), at="13m"
            ),
            Quiet(why="nobody calls", series=traffic(good="0x90"), at="80m"),
        ),
    ),
    Case(
        alert="ErgObjectiveBurnSlow",
        series=traffic(good="0+500x100", late="0+40x100"),
        pending="15m",
        fires="20m",
        labels=OF_MODEL,
        step="5m",
        quiet=(
            Quiet(why="misses that a month can bear", series=traffic(good="0+500x100", late="0+20x100"), at="7h"),
            Quiet(why="bad hours that are over", series=traffic(good="0+500x100", late="0+90x50 4500x50"), at="5h"),
        ),
    ),
    Case(
        alert="ErgRequestsRefused",
        series=traffic(good="0+90x40", refused="0+10x40"),
        pending="10m",
        fires="11m",
        labels=OF_MODEL,
        quiet=(
            Quiet(why="1 % refused", series=traffic(good="0+99x40", refused="0+1x40"), at="30m"),
            Quiet(why="late, but answered", series=traffic(good="0+90x40", late="0+50x40"), at="30m"),
        ),
    ),
    Case(
        alert="ErgQueueGrowing",
        series={f"erg_queue_depth_requests{{{MODEL}}}": "0+20x60"},
        pending="14m",
        fires="16m",
        labels=OF_MODEL,
        quiet=(
            Quiet(why="long and steady", series={f"erg_queue_depth_requests{{{MODEL}}}": "500x60"}, at="50m"),
            Quiet(
                why="bursts that are worked off",
                series={
                    f"erg_queue_depth_requests{{{MODEL}}}": "0 200 0 300 0 400 0 500 0 600 0 700 0 800 0 900 0 999"
                },
                at="19m",
            ),
            Quiet(why="a few that wait", series={f"erg_queue_depth_requests{{{MODEL}}}": "1x20 5x40"}, at="32m"),
        ),
    ),
    Case(
        alert="ErgWorkerRestarted",
        series=worker("0x5 1x20", "erg_worker_restarts_total"),
        pending="",
        fires="6m",
        labels=OF_POD | {"worker": "gpu0"},
        quiet=(
            Quiet(why="before it died", series=worker("0x5 1x40", "erg_worker_restarts_total"), at="5m"),
            Quiet(why="long after", series=worker("0x5 1x40", "erg_worker_restarts_total"), at="25m"),
            Quiet(why="a new server counts anew", series=worker("7x5 0x40", "erg_worker_restarts_total"), at="9m"),
        ),
    ),
    Case(
        alert="ErgWorkerCrashLooping",
        series=worker("0x2 1 2 3 4x30", "erg_worker_restarts_total"),
        pending="10m",
        fires="11m",
        labels=OF_POD | {"worker": "gpu0"},
        quiet=(Quiet(why="three in a while", series=worker("0x2 1 2 3x30", "erg_worker_restarts_total"), at="14m"),),
    ),
    Case(
        alert="ErgWorkerMissing",
        series=worker("1x3 0x20"),
        pending="5m",
        fires="6m",
        labels=OF_POD | {"worker": "gpu0"},
        quiet=(Quiet(why="a restart", series=worker("1x3 0 0 1x20"), at="6m"),),
    ),
    Case(
        alert="ErgModelUnavailable",
        series={
            f'erg_model_ready{{{POD},model="minilm"}}': "0x30",
            'erg_model_ready{namespace="ml",job="erg",pod="erg-1",instance="b",model="minilm"}': "1x4 0x30",
        },
        pending="14m",
        fires="15m",
        labels=OF_MODEL,
        quiet=(
            Quiet(
                why="another server has it",
                series={
                    f'erg_model_ready{{{POD},model="minilm"}}': "0x30",
                    'erg_model_ready{namespace="ml",job="erg",pod="erg-1",instance="b",model="minilm"}': "1x30",
                },
                at="25m",
            ),
        ),
    ),
    Case(
        alert="ErgModelLoadFailed",
        series={f"erg_model_load_failed{{{MODEL}}}": "0x3 1x10"},
        pending="4m",
        fires="5m",
        labels=OF_POD | {"model": "minilm", "version": "1"},
        quiet=(Quiet(why="every version loaded", series={f"erg_model_load_failed{{{MODEL}}}": "0x10"}, at="8m"),),
    ),
    Case(
        alert="ErgServerNotReady",
        series={f"erg_server_ready{{{POD}}}": "1x2 0x30"},
        pending="17m",
        fires="18m",
        labels=OF_POD,
        quiet=(Quiet(why="a start of ten minutes", series={f"erg_server_ready{{{POD}}}": "0x10 1x20"}, at="20m"),),
    ),
    Case(
        alert="ErgServerUnreachable",
        series={f"up{{{POD}}}": "1x2 0x30", f"erg_server_ready{{{POD}}}": "1x2 stale"},
        pending="7m",
        fires="8m",
        labels=OF_POD,
        quiet=(
            Quiet(
                why="a pod that is gone",
                series={f"up{{{POD}}}": "1x2 stale", f"erg_server_ready{{{POD}}}": "1x2 stale"},
                at="20m",
            ),
            Quiet(why="a target that is no server of ours", series={f"up{{{POD}}}": "0x30"}, at="20m"),
        ),
    ),
    Case(
        alert="ErgMemoryHeadroomLow",
        series={
            f'erg_memory_used_bytes{{{POD},scope="container"}}': "95x30",
            f'erg_memory_limit_bytes{{{POD},scope="container"}}': "100x30",
        },
        pending="9m",
        fires="10m",
        labels=OF_POD | {"scope": "container"},
        quiet=(
            Quiet(
                why="a tenth is free",
                series={
                    f'erg_memory_used_bytes{{{POD},scope="host"}}': "89x30",
                    f'erg_memory_limit_bytes{{{POD},scope="host"}}': "100x30",
                },
                at="20m",
            ),
        ),
    ),
    Case(
        alert="ErgGpuMemoryHeadroomLow",
        series={
            f'nv_gpu_memory_used_bytes{{{POD},gpu_uuid="GPU-1"}}': "97x30",
            f'nv_gpu_memory_total_bytes{{{POD},gpu_uuid="GPU-1"}}': "100x30",
        },
        pending="9m",
        fires="10m",
        labels=OF_POD | {"gpu_uuid": "GPU-1"},
        quiet=(
            Quiet(
                why="a GPU that is nearly full",
                series={
                    f'nv_gpu_memory_used_bytes{{{POD},gpu_uuid="GPU-1"}}': "94x30",
                    f'nv_gpu_memory_total_bytes{{{POD},gpu_uuid="GPU-1"}}': "100x30",
                },
                at="20m",
            ),
        ),
    ),
    Case(
        alert="ErgModelsThrash",
        series={
            f"erg_model_evictions_total{{{MODEL}}}": "0+2x60",
            f'erg_model_evictions_total{{{POD},model="other",version="1"}}': "0+2x60",
        },
        pending="20m",
        fires="25m",
        labels=OF_POD,
        quiet=(
            Quiet(why="models that come and go", series={f"erg_model_evictions_total{{{MODEL}}}": "0+1x60"}, at="50m"),
        ),
    ),
    Case(
        alert="ErgEnergyDrift",
        series={f'erg_energy_drift_joules{{{POD},domain="cpu",source="measured"}}': "0x3 -0.000001x10"},
        pending="8m",
        fires="9m",
        labels=OF_POD | {"domain": "cpu", "source": "measured"},
        quiet=(
            Quiet(
                why="books that agree",
                series={f'erg_energy_drift_joules{{{POD},domain="cpu",source="measured"}}': "0x20"},
                at="15m",
            ),
        ),
    ),
    Case(
        alert="ErgEnergySourceSilent",
        series={f'erg_energy_missing_samples_total{{{POD},domain="gpu0",source="measured"}}': "0+600x30"},
        pending="5m",
        fires="6m",
        labels=OF_POD | {"domain": "gpu0", "source": "measured"},
        quiet=(
            Quiet(
                why="a reading now and then",
                series={f'erg_energy_missing_samples_total{{{POD},domain="gpu0",source="measured"}}': "0+5x30"},
                at="20m",
            ),
        ),
    ),
    Case(
        alert="ErgCertificateExpiresSoon",
        series={CERTIFICATE: f"{13 * DAY_S}x90"},
        pending="59m",
        fires="60m",
        labels=OF_POD | {"file": "/tls/tls.crt"},
        quiet=(
            Quiet(
                why="three weeks are left",
                series={CERTIFICATE: f"{21 * DAY_S}x90"},
                at="80m",
            ),
            Quiet(
                why="renewed within the hour",
                series={CERTIFICATE: f"{13 * DAY_S}x50 {90 * DAY_S}x40"},
                at="80m",
            ),
        ),
    ),
    Case(
        alert="ErgCertificateExpiring",
        series={CERTIFICATE: "60x30"},
        pending="4m",
        fires="5m",
        labels=OF_POD | {"file": "/tls/tls.crt"},
        quiet=(
            Quiet(
                why="a week is left",
                series={CERTIFICATE: f"{7 * DAY_S}x30"},
                at="20m",
            ),
        ),
    ),
    Case(
        alert="ErgReplicasInsufficient",
        series=replicas("0.3x2 1.5x30", "0.4x2 0.9x30"),
        pending="17m",
        fires="18m",
        labels={"namespace": "ml", "job": "erg"},
        quiet=(
            Quiet(why="the second server suffices", series=replicas("1.1x30", "0.9x30"), at="20m"),
            Quiet(why="a burst", series=replicas("0.5x5 3x10 0.5x20", "0.5x30"), at="20m"),
            Quiet(
                why="another job has its own",
                series=replicas("0.5x30", "0.4x30") | {'erg_replicas_needed{namespace="ml",job="big"}': "9x30"},
                at="20m",
            ),
        ),
    ),
)
