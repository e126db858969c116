"""A powercap tree as Linux shows it, with counters that tests set."""

from __future__ import annotations

from pathlib import Path

RANGE_UJ = 262_143_328_850


def write_zone(root: Path, folder: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """One zone; the path of its counter."""
    zone = root / folder
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone / "energy_uj"
