"""The dashboard of serving: objectives, latency by phase, batching, queues, devices, memory and replicas."""

from __future__ import annotations

from scripts.dashboard_parts import MODELS, SERVERS, Levels, Query, board, figure, graph, listing

RATE = "[$__rate_interval]"
ANSWERED = f"nv_inference_request_success{{{MODELS}}}"
FAILED = f'erg_request_failures_total{{{MODELS},reason!="CANCELED"}}'
UNANSWERED = f"erg_request_failures_total{{{MODELS}}}"
REFUSED = f"erg_request_refusals_total{{{MODELS}}}"
PARTS = 'kind=~"base|models|rest|slab"'
LATE = f'erg_deadline_requests_total{{{MODELS},outcome="late"}}'


def missed_share(window: str, by: str) -> str:
    """Of the requests that callers did not cancel, those that were late, refused, dropped or failed."""
    late, failed, answered = (f"sum{by} (rate({name}{window}))" for name in (LATE, FAILED, ANSWERED))
    return f"({late} + {failed}) / ({answered} + {failed} > 0)"


def quantile(share: float, histogram: str) -> str:
    """A quantile by model, as Prometheus reads it from a histogram's buckets."""
    return f"histogram_quantile({share:g}, sum by (model, le) (rate({histogram}_bucket{{{MODELS}}}{RATE})))"


def phase(name: str) -> str:
    """Mean seconds of one of the phases that Triton's counters sum up in microseconds."""
    spent = f"sum by (model) (rate(nv_inference_{name}_duration_us{{{MODELS}}}{RATE}))"
    return f"{spent} / 1e6 / (sum by (model) (rate({ANSWERED}{RATE})) > 0)"


OVERVIEW = (
    figure(
        "Servers ready", "Servers that get requests, by /readyz.", "short",
        Query(f"sum(erg_server_ready{{{SERVERS}}})"), levels=Levels(warn=1, bad=0.5),
    ),
    figure(
        "Requests", "Answered, refused or failed, each second. What callers cancelled is not in it.", "reqps",
        Query(f"sum(rate({ANSWERED}{RATE})) + sum(rate({FAILED}{RATE}))"),
    ),
    figure(
        "Attained", "Requests answered, and in time where they had a deadline, over the shown time.", "percentunit",
        Query(f"1 - {missed_share('[$__range]', '')}"), levels=Levels(warn=0.995, bad=0.99),
    ),
    figure(
        "Burn, 1 hour", "Missed requests over the 1 % that a p99 allows. ErgObjectiveBurnFast fires from 14.4.",
        "short",
        Query(f"max({missed_share('[1h]', ' by (model)')}) / 0.01"), levels=Levels(warn=1, bad=14.4),
    ),
    figure(
        "Waiting", "Requests in queues now.", "short", Query(f"sum(erg_queue_depth_requests{{{MODELS}}})"),
    ),
    figure(
        "Replicas needed", "What the load takes, by the servers' own latency models. ErgReplicasInsufficient compares "
        "it with the servers there are.", "short", Query(f"sum(erg_replicas_needed{{{SERVERS}}})"),
    ),
    listing(
        "Alerts that fire", "What Prometheus has firing of Erg's rules; docs/kubernetes.md has a runbook for each.",
        "short", Query('ALERTS{alertname=~"Erg.+",alertstate="firing",namespace=~"$namespace",job=~"$job"}'),
    ),
)  # fmt: skip

OBJECTIVES = (
    graph(
        "Attainment by model", "Share of requests answered, and in time where they had a deadline. An objective is a "
        "p99: below 0.99 it is missed.", "percentunit",
        Query(f"1 - {missed_share(RATE, ' by (model)')}", "{{model}}"),
        levels=Levels(warn=0.99, bad=0.97), least=None, most=1,
    ),
    graph(
        "Burn of the error budget",
        "1 uses up a month's budget in a month. ErgObjectiveBurnFast needs 14.4 over 1 hour "
        "and 5 minutes, ErgObjectiveBurnSlow 6 over 6 hours and 30 minutes.", "short",
        Query(f"{missed_share('[5m]', ' by (model)')} / 0.01", "{{model}}, 5 minutes"),
        Query(f"{missed_share('[1h]', ' by (model)')} / 0.01", "{{model}}, 1 hour"),
        levels=Levels(warn=6, bad=14.4),
    ),
    graph(
        "Requests with a deadline", "Answered in time, answered late, or dropped from the queue before they ran.",
        "reqps",
        Query(f"sum by (outcome) (rate(erg_deadline_requests_total{{{MODELS}}}{RATE}))", "{{outcome}}"), stacked=True,
    ),
    graph(
        "Refused, by reason",
        "Not taken into a queue: the deadline is nearer than what the model takes, what waits would "
        "make it late, the queue is full, its priority is none of the model's, or it was unloaded.", "reqps",
        Query(f"sum by (model, reason) (rate({REFUSED}{RATE})) > 0", "{{model}} {{reason}}"),
        stacked=True,
    ),
    graph(
        "Time to spare", "Of the tightest deadline that waits: below 0 it is late already.", "s",
        Query(f"min by (model) (erg_slack_seconds{{{MODELS}}})", "{{model}}"), least=None,
        levels=Levels(warn=0.01, bad=0),
    ),
    graph(
        "Failed, by reason", "Refused and dropped (REJECTED), given up by the caller, failed in the backend, or "
        "otherwise.", "reqps",
        Query(f"sum by (model, reason) (rate({UNANSWERED}{RATE})) > 0", "{{model}} {{reason}}"),
    ),
)  # fmt: skip

LATENCY = (
    graph(
        "Requests", "From a request's last byte to its answer.", "s",
        Query(quantile(0.5, "erg_request_duration_seconds"), "{{model}} p50"),
        Query(quantile(0.99, "erg_request_duration_seconds"), "{{model}} p99"),
    ),
    graph(
        "In the queue", "From admission to the batch.", "s",
        Query(quantile(0.5, "erg_queue_duration_seconds"), "{{model}} p50"),
        Query(quantile(0.99, "erg_queue_duration_seconds"), "{{model}} p99"),
    ),
    graph(
        "On the worker", "A batch: its inputs, the model and its outputs.", "s",
        Query(quantile(0.5, "erg_compute_duration_seconds"), "{{model}} p50"),
        Query(quantile(0.99, "erg_compute_duration_seconds"), "{{model}} p99"),
    ),
    graph(
        "Mean by phase", "Where an answered request's time goes.", "s",
        Query(phase("queue"), "{{model}} queue"), Query(phase("compute_input"), "{{model}} inputs"),
        Query(phase("compute_infer"), "{{model}} model"), Query(phase("compute_output"), "{{model}} outputs"),
        width=12, stacked=True,
    ),
    graph(
        "Predicted batch times", "What the scheduler expects of batches by rows, which 99 of 100 do not exceed.", "s",
        Query(f'max by (model, rows) (erg_predicted_batch_seconds{{{MODELS},statistic="p99"}})', "{{model}} {{rows}}"),
        width=12,
    ),
)  # fmt: skip

BATCHING = (
    graph(
        "Rows in a batch", "Mean, and what 9 of 10 batches do not exceed.", "short",
        Query(f"sum by (model) (rate(erg_batch_rows_sum{{{MODELS}}}{RATE})) "
              f"/ (sum by (model) (rate(erg_batch_rows_count{{{MODELS}}}{RATE})) > 0)", "{{model}} mean"),
        Query(quantile(0.9, "erg_batch_rows"), "{{model}} p90"),
    ),
    graph(
        "Why batches went", "Full or of a preferred size, after their delay, because a worker was idle, or for other "
        "reasons: many full ones mean that workers are the limit.", "ops",
        Query(f"sum by (reason) (rate(erg_batch_releases_total{{{MODELS}}}{RATE}))", "{{reason}}"), stacked=True,
    ),
    graph(
        "Padding", "Share of input elements that fill requests up to the longest of their batch.", "percentunit",
        Query(f'sum by (model) (rate(erg_input_elements_total{{{MODELS},kind="padding"}}{RATE})) '
              f"/ (sum by (model) (rate(erg_input_elements_total{{{MODELS}}}{RATE})) > 0)", "{{model}}"),
        levels=Levels(warn=0.3, bad=0.5), most=1,
    ),
    graph(
        "Requests that wait", "In the queues of all servers.", "short",
        Query(f"sum by (model) (erg_queue_depth_requests{{{MODELS}}})", "{{model}}"), width=12,
    ),
    graph(
        "Work that waits", "Device-seconds that the queues hold, by the latency models.", "s",
        Query(f"sum by (model) (erg_queue_seconds{{{MODELS}}})", "{{model}}"), width=12,
    ),
)  # fmt: skip

DEVICES = (
    graph(
        "Busy", "Share of time in which devices ran batches, by server and device.", "percentunit",
        Query(f"sum by (pod, instance, device) (rate(erg_device_busy_seconds_total{{{SERVERS}}}{RATE}))",
              "{{pod}} {{instance}} {{device}}"),
        levels=Levels(warn=0.8, bad=0.95),
    ),
    graph(
        "Busy, by model", "Devices that each model keeps busy.", "short",
        Query(f"sum by (model) (rate(erg_device_busy_seconds_total{{{MODELS}}}{RATE}))", "{{model}}"), stacked=True,
    ),
    graph(
        "Workers away and restarted",
        "Workers that take no batches, and restarts in 15 minutes: see ErgWorkerMissing and "
        "ErgWorkerRestarted.", "short",
        Query(f"sum by (pod, worker) (1 - erg_worker_ready{{{SERVERS}}}) > 0", "{{pod}} {{worker}} away"),
        Query(f"sum by (pod, worker) (increase(erg_worker_restarts_total{{{SERVERS}}}[15m])) > 0",
              "{{pod}} {{worker}} restarts"),
        levels=Levels(bad=1),
    ),
    graph(
        "CPU by process", "Cores that the front process and the workers use.", "short",
        Query(f"sum by (process) (rate(erg_process_cpu_seconds_total{{{SERVERS}}}{RATE}))", "{{process}}"),
        stacked=True,
    ),
    graph(
        "Power", "Of each counter's domain, and whether it is measured or modelled.", "watt",
        Query(f"sum by (domain, source) (erg_power_watts{{{SERVERS}}})", "{{domain}}, {{source}}"),
    ),
    graph(
        "GPUs", "Time in which a GPU ran anything, and its memory in use. Servers without a GPU have no series.",
        "percentunit",
        Query(f"max by (gpu_uuid) (nv_gpu_utilization{{{SERVERS}}})", "{{gpu_uuid}} busy"),
        Query(f"max by (gpu_uuid) (nv_gpu_memory_used_bytes{{{SERVERS}}} / nv_gpu_memory_total_bytes{{{SERVERS}}})",
              "{{gpu_uuid}} memory"), most=1, levels=Levels(bad=0.95),
    ),
)  # fmt: skip

MEMORY = (
    graph(
        "Of the limit",
        "Memory in use over the container's limit, or the host's memory: ErgMemoryHeadroomLow fires from "
        "0.9.", "percentunit",
        Query(f"max by (pod, instance) (erg_memory_used_bytes{{{SERVERS}}} / erg_memory_limit_bytes{{{SERVERS}}})",
              "{{pod}} {{instance}}"), most=1, levels=Levels(warn=0.8, bad=0.9),
    ),
    graph(
        "By model", "What loading each model took, over all workers.", "bytes",
        Query(f"sum by (model) (erg_model_memory_bytes{{{MODELS}}})", "{{model}}"), stacked=True,
    ),
    graph(
        "By worker", "Of all processes, resident; and what workers hold by kind.", "bytes",
        Query(f"sum by (process) (erg_process_resident_bytes{{{SERVERS}}})", "{{process}} resident"),
        Query(f"sum by (kind) (erg_worker_memory_bytes{{{SERVERS},{PARTS}}})", "workers' {{kind}}"),
    ),
    graph(
        "Budget", "Memory counted for loaded models, and --memory-budget where there is one.", "bytes",
        Query(f"sum by (pool) (erg_models_resident_bytes{{{SERVERS}}})", "{{pool}} loaded"),
        Query(f"sum by (pool) (erg_memory_budget_bytes{{{SERVERS}}})", "{{pool}} budget"), width=12,
    ),
    graph(
        "Loads and evictions", "Models that came and went, an hour: see ErgModelsThrash.", "short",
        Query(f"sum by (model) (rate(erg_model_loads_total{{{MODELS}}}{RATE})) * 3600", "{{model}} loads"),
        Query(f"sum by (model) (rate(erg_model_evictions_total{{{MODELS}}}{RATE})) * 3600", "{{model}} evictions"),
        width=12,
    ),
)  # fmt: skip

REPLICAS = (
    graph(
        "Needed and ready", "Servers that the load takes to meet its objectives, and servers that are ready: where the "
        "first stays above the second, ErgReplicasInsufficient fires.", "short",
        Query(f"sum(erg_replicas_needed{{{SERVERS}}})", "needed"),
        Query(f"sum(erg_server_ready{{{SERVERS}}})", "ready"),
        width=12,
    ),
    graph(
        "Certificates", "Time until what is served ends: ErgCertificateExpiresSoon fires from 14 days.", "dtdurations",
        Query(f"min by (file) (erg_tls_certificate_expiry_timestamp_seconds{{{SERVERS}}}) - time()", "{{file}}"),
        width=12, levels=Levels(warn=14 * 86400, bad=2 * 86400), least=None,
    ),
)  # fmt: skip


def serving() -> str:
    """The dashboard's JSON."""
    return board(
        "Erg: serving",
        "erg-serving",
        "Objectives, latency by phase, batching, devices and memory of Erg's servers.",
        (
            ("Overview", OVERVIEW),
            ("Objectives", OBJECTIVES),
            ("Latency by phase", LATENCY),
            ("Queues and batches", BATCHING),
            ("Devices", DEVICES),
            ("Memory", MEMORY),
            ("Replicas and certificates", REPLICAS),
        ),
    )
