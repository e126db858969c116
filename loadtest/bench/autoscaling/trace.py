"""Two days of load as a share of their peak, a value a minute: `days.csv` beside this file, made by `recipe` alone.

    python -m bench.autoscaling.trace          # writes it again

Both have a night at a fifth of the evening's peak, as services for people do. `bursts` adds some 30 bursts of up to
twice the load for 2 to 15 minutes; `flash` is smooth but for a crowd at 14:00 that is there within 3 minutes, three
times the load around it, and leaves over an hour.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

PATH = Path(__file__).with_name("days.csv")
MINUTES = 24 * 60
DAYS = ("bursts", "flash")


def recipe(seed: int = 24) -> dict[str, list[float]]:
    """The days' rates over their peaks, rounded to four digits."""
    rng = Random(seed)  # noqa: S311 (a simulation)
    calm = [_calm(minute / 60) for minute in range(MINUTES)]
    bursty, flash = list(calm), list(calm)
    for _ in range(30):
        start, minutes, factor = rng.randrange(MINUTES), rng.randint(2, 15), rng.uniform(1.3, 2.0)
        for minute in range(start, min(MINUTES, start + minutes)):
            bursty[minute] = max(bursty[minute], calm[minute] * factor)
    for minute in range(14 * 60, MINUTES):
        passed = minute - 14 * 60
        crowd = 2.0 * min(1.0, passed / 3) * math.exp(-max(0, passed - 10) / 25)
        flash[minute] *= 1 + crowd
    return {
        name: [round(rate * rng.gauss(1, 0.02) / max(day), 4) for rate in day]
        for name, day in zip(DAYS, (bursty, flash), strict=True)
    }


def _calm(hour: float) -> float:
    """A night's low at 4:00, a rise to noon, the peak at 20:00."""
    day = 0.5 - 0.5 * math.cos((hour - 4) / 24 * 2 * math.pi)
    evening = math.exp(-(((hour - 20) / 2.5) ** 2))
    return 0.2 + 0.5 * day + 0.3 * evening


def read_day(name: str) -> list[float]:
    """A day of the file."""
    with PATH.open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def rate_at(day: Sequence[float], second: float) -> float:
    """The rate between two minutes is on a straight line."""
    minute = second / 60
    low = int(minute)
    first, then = day[low % len(day)], day[(low + 1) % len(day)]
    return first + (then - first) * (minute - low)


def main() -> None:
    """Write the file."""
    days = recipe()
    with PATH.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("minute", *DAYS))
        writer.writerows(zip(range(MINUTES), *(days[name] for name in DAYS), strict=True))


if __name__ == "__main__":
    main()
