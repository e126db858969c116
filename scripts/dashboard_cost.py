"""The dashboard of cost: dollars and joules for 1,000 inferences, idle time, waste, energy and carbon."""

from __future__ import annotations

from scripts.dashboard_parts import MODELS, SERVERS, Levels, Query, board, figure, graph, listing

RATE = "[$__rate_interval]"
WASTE = "padding|late|cancelled|failed"
"""Accounts of work that was of use to nobody."""


def per_1000(spent: str, window: str, by: str) -> str:
    """What is spent on 1,000 answered rows; `by` is empty for all models together."""
    inferences = f"sum{by} (rate(nv_inference_count{{{MODELS}}}{window}))"
    return f"1000 * sum{by} (rate({spent}{window})) / ({inferences} > 0)"


DOLLARS = f'erg_cost_usd_total{{{MODELS},model!=""}}'
JOULES = f'erg_energy_joules_total{{{MODELS},model!=""}}'
ALL_DOLLARS = f"erg_cost_usd_total{{{SERVERS}}}"
IDLE_DOLLARS = f'erg_cost_usd_total{{{SERVERS},account="idle"}}'
ALL_JOULES = f"erg_energy_joules_total{{{SERVERS}}}"
BUSY = f'erg_device_busy_seconds_total{{{MODELS},model!=""}}'

OVERVIEW = (
    figure(
        "Dollars for 1,000 inferences", "Of the chosen models over the shown time: all of their accounts, waste too, "
        "without idle time. Needs --price-file.", "currencyUSD",
        Query(per_1000(DOLLARS, "[$__range]", "")),
    ),
    figure(
        "With idle time", "All that the servers cost over the shown time, over what they answered.", "currencyUSD",
        Query(f"1000 * sum(rate({ALL_DOLLARS}[$__range])) "
              f"/ (sum(rate(nv_inference_count{{{SERVERS}}}[$__range])) > 0)"),
    ),
    figure(
        "Joules for 1,000 inferences", "Of the chosen models over the shown time, without idle power.", "joule",
        Query(per_1000(JOULES, "[$__range]", "")),
    ),
    figure(
        "Idle share", "Of dollars over the shown time: what devices cost while they ran nothing.", "percentunit",
        Query(f"sum(rate({IDLE_DOLLARS}[$__range])) / sum(rate({ALL_DOLLARS}[$__range]))"),
        levels=Levels(warn=0.4, bad=0.7),
    ),
    figure(
        "Wasted share", "Of the models' device time: padding, and work that was late, cancelled or failed.",
        "percentunit",
        Query(f'sum(rate(erg_device_busy_seconds_total{{{MODELS},account=~"{WASTE}"}}[$__range])) '
              f"/ sum(rate({BUSY}[$__range]))"), levels=Levels(warn=0.1, bad=0.25),
    ),
    figure(
        "Spent", "Dollars over the shown time, idle time included.", "currencyUSD",
        Query(f"sum(increase({ALL_DOLLARS}[$__range]))"),
    ),
)  # fmt: skip

MODELS_ROW = (
    graph(
        "Dollars for 1,000 inferences", "By model: all of its accounts, waste too, without idle time.", "currencyUSD",
        Query(per_1000(DOLLARS, RATE, " by (model)"), "{{model}}"), width=12,
    ),
    graph(
        "Joules for 1,000 inferences",
        "By model. What is modelled by stated watts is not measured: the legend says which.",
        "joule",
        Query(f"1000 * sum by (model, source) (rate({JOULES}{RATE})) / on (model) group_left () "
              f"(sum by (model) (rate(nv_inference_count{{{MODELS}}}{RATE})) > 0)", "{{model}}, {{source}}"), width=12,
    ),
    listing(
        "Models over the shown time", "Answered rows, dollars and joules of each model.", "short",
        Query(f"sum by (model) (increase(nv_inference_count{{{MODELS}}}[$__range]))", "Inferences"),
        Query(f"sum by (model) (increase({DOLLARS}[$__range]))", "Dollars"),
        Query(per_1000(DOLLARS, "[$__range]", " by (model)"), "Dollars for 1,000"),
        Query(f"sum by (model) (increase({JOULES}[$__range]))", "Joules"),
        Query(per_1000(JOULES, "[$__range]", " by (model)"), "Joules for 1,000"),
    ),
)  # fmt: skip

WHERE = (
    graph(
        "Dollars an hour, by account",
        "What the money was for: inference, its waste, warm-up, processes, and idle time.",
        "currencyUSD", Query(f"sum by (account) (rate({ALL_DOLLARS}{RATE})) * 3600", "{{account}}"), stacked=True,
    ),
    graph(
        "Dollars an hour, by model", "Device time and energy; idle time is nobody's.", "currencyUSD",
        Query(f"sum by (model) (rate({DOLLARS}{RATE})) * 3600", "{{model}}"),
        Query(f'sum(rate({IDLE_DOLLARS}{RATE})) * 3600', "idle"), stacked=True,
    ),
    graph(
        "Dollars an hour, by device", "Time at the device's price, and energy.", "currencyUSD",
        Query(f"sum by (device, component) (rate({ALL_DOLLARS}{RATE})) * 3600", "{{device}} {{component}}"),
        stacked=True,
    ),
    graph(
        "Idle share", "Of dollars, by server.", "percentunit",
        Query(f"sum by (pod, instance) (rate({IDLE_DOLLARS}{RATE})) "
              f"/ sum by (pod, instance) (rate({ALL_DOLLARS}{RATE}))", "{{pod}} {{instance}}"),
        most=1, levels=Levels(warn=0.4, bad=0.7),
    ),
    graph(
        "Waste by model", "Share of its device time that was padding, or that was late, cancelled or failed.",
        "percentunit",
        Query(f'sum by (model, account) (rate(erg_device_busy_seconds_total{{{MODELS},account=~"{WASTE}"}}{RATE})) '
              f"/ on (model) group_left () (sum by (model) (rate({BUSY}{RATE})) > 0)", "{{model}} {{account}}"),
        levels=Levels(warn=0.1, bad=0.25),
    ),
    graph(
        "Dollars an hour, by tenant", "The ten that cost most; needs --tenant-metadata-key.", "currencyUSD",
        Query(f"topk(10, sum by (tenant) (rate(erg_tenant_cost_usd_total{{{MODELS}}}{RATE})) * 3600)", "{{tenant}}"),
    ),
)  # fmt: skip

ENERGY = (
    graph(
        "Power by account", "Where the watts go. What is modelled by stated watts is not measured.", "watt",
        Query(f"sum by (account, source) (rate({ALL_JOULES}{RATE}))", "{{account}}, {{source}}"),
        stacked=True,
    ),
    graph(
        "Power of domains", "Mean over the last second, and what the domain takes without work.", "watt",
        Query(f"sum by (domain, source) (erg_power_watts{{{SERVERS}}})", "{{domain}}, {{source}}"),
        Query(f"sum by (domain, source) (erg_idle_watts{{{SERVERS}}})", "{{domain}} idle, {{source}}"),
    ),
    graph(
        "Carbon", "Grams of CO2 equivalent an hour, at the intensity that the price file states.", "massg",
        Query(f"sum by (account, source) (rate(erg_carbon_grams_total{{{SERVERS}}}{RATE})) * 3600",
              "{{account}}, {{source}}"), stacked=True,
    ),
    graph(
        "Agreement with the counter", "The counter less all accounts: 0, or ErgEnergyDrift fires.", "joule",
        Query(f"sum by (domain) (erg_energy_drift_joules{{{SERVERS}}})", "{{domain}} drift"),
        Query(f"sum by (domain) (erg_energy_pending_joules{{{SERVERS}}})", "{{domain}} pending"), width=12, least=None,
    ),
    graph(
        "Readings that were missing", "Each second: see ErgEnergySourceSilent.", "ops",
        Query(f"sum by (domain) (rate(erg_energy_missing_samples_total{{{SERVERS}}}{RATE}))", "{{domain}}"), width=12,
    ),
)  # fmt: skip


def cost() -> str:
    """The dashboard's JSON."""
    return board(
        "Erg: cost",
        "erg-cost",
        "What inferences cost on Erg's servers, in dollars, joules and grams of CO2, and what of it was of use.",
        (
            ("Overview", OVERVIEW),
            ("By model", MODELS_ROW),
            ("Where the money goes", WHERE),
            ("Energy and carbon", ENERGY),
        ),
    )
