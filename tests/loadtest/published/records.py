"""Records written by hand, small enough to check by eye."""

from __future__ import annotations

from typing import Any

from bench.published.figures import ERG, RawTurn, Record, Turn


def turn(server: str = ERG, **changes) -> Turn:
    figures: dict[str, Any] = {
        "model": "m", "server": server, "in_flight": 8, "round": 0, "requests_per_s": 100.0, "cpu_us": 2000.0,
        "p50_us": 5000.0, "p99_us": 9000.0, "client_cpu_us": 20.0, "client_share": 0.1, "failed": 0,
    }  # fmt: skip
    return Turn(**(figures | changes))


def record(*turns: Turn, **changes) -> Record:
    figures: dict[str, Any] = {
        "date": "2026-01-02", "machine": "2 CPUs of a test", "versions": {"Erg (compiled)": "1"}, "busy_at_start": 0.0,
        "command": "make bench", "rounds": 2, "seconds": 4.0, "loads": [8], "workers": 2, "usd_per_cpu_hour": 0.036,
        "watts_per_busy_core": 5.0, "titles": {"m": "A model"}, "turns": list(turns),
    }  # fmt: skip
    return Record(**(figures | changes))


def raw(number: int = 0, cpu_us: float = 1000.0) -> RawTurn:
    return RawTurn(model="m", round=number, batch=4, requests_per_s=2000.0, cpu_us=cpu_us)
