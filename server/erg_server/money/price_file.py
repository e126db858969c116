"""What an operator pays: dollars for an hour of a device and for a kWh, and the grams of CO2 behind a kWh.

Numbers are read as decimals and kept as fractions: what is written is what is reckoned with.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from erg_server.errors import InvalidArgumentError

MAX_BYTES: Final = 1 << 20
MAX_NUMBER: Final = 1_000_000
MAX_DECIMALS: Final = 12
MAX_TEXT: Final = 200

_KEYS: Final = ("device_hour_usd", "usd_per_kwh", "pue", "carbon")
_CARBON_KEYS: Final = ("grams_per_kwh", "source")


@dataclass(frozen=True, slots=True)
class Carbon:
    """Grams of CO2 equivalent for a kWh, and who says so."""

    grams_per_kwh: Fraction
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What was stated; None for what was not. `pue` is what the building takes for each joule of its machines.

    `device_hour_usd` is by the kind of a device ("cpu" for one core, "gpu" for a whole GPU) or by a GPU's product name
    as NVML tells it, which wins over the kind.
    """

    device_hour_usd: Mapping[str, Fraction] = field(default_factory=lambda: MappingProxyType({}))
    usd_per_kwh: Fraction | None = None
    pue: Fraction = Fraction(1)
    carbon: Carbon | None = None


def read_price_file(path: Path) -> Prices:
    """The prices in a TOML file; docs/prices.toml has all keys.

    Raises:
        InvalidArgumentError: unreadable, not TOML, an unknown key, or a value that is no price; it names the key.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"--price-file {path}: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise InvalidArgumentError(f"--price-file {path}: it has {len(raw)} bytes; no price file has over {MAX_BYTES}")
    try:
        stated = tomllib.loads(raw.decode("utf-8"), parse_float=_decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"--price-file {path}: not TOML: {error}") from error
    return _Reader(path).prices(stated)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # An exponent that no decimal has: refused where the key is known.
        return Decimal("NaN")


class _Reader:
    """Checks one file's tables. Every error names the file and the key."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prices(self, stated: Mapping[str, Any]) -> Prices:
        self._check_keys("", stated, _KEYS)
        hours = self._table(stated, "device_hour_usd")
        carbon = self._table(stated, "carbon")
        prices = Prices(
            device_hour_usd=MappingProxyType(
                {name: self._number(value, f"device_hour_usd.{name}") for name, value in hours.items()}
            ),
            usd_per_kwh=self._number(stated["usd_per_kwh"], "usd_per_kwh") if "usd_per_kwh" in stated else None,
            pue=self._number(stated.get("pue", 1), "pue"),
            carbon=self._carbon(carbon) if "carbon" in stated else None,
        )
        if prices.pue < 1:
            raise self._error("pue", f"is at least 1 (a building takes no less than its machines), not {stated['pue']}")
        if not hours and prices.usd_per_kwh is None and prices.carbon is None:
            raise self._error("device_hour_usd", f"and all other prices are missing; there are {', '.join(_KEYS)}")
        return prices

    def _carbon(self, stated: Mapping[str, Any]) -> Carbon:
        self._check_keys("carbon.", stated, _CARBON_KEYS)
        for key in _CARBON_KEYS:
            if key not in stated:
                raise self._error(
                    f"carbon.{key}",
                    "is missing; [carbon] needs grams_per_kwh and, under source, who published that figure, for "
                    "where and when",
                )
        source = stated["source"]
        if not isinstance(source, str) or not source.strip() or len(source) > MAX_TEXT or not source.isprintable():
            raise self._error(
                "carbon.source", f"takes one line of text of up to {MAX_TEXT} characters that says whose figure it is"
            )
        return Carbon(self._number(stated["grams_per_kwh"], "carbon.grams_per_kwh"), source.strip())

    def _table(self, stated: Mapping[str, Any], key: str) -> dict[str, Any]:
        table: object = stated.get(key, {})
        if not isinstance(table, dict):
            raise self._error(key, f"is a table: [{key}] and under it a line for each value, not {table!r}")
        return table

    def _number(self, value: object, key: str) -> Fraction:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self._error(key, f"takes a number, not {value!r}")
        exact = Decimal(value)
        if not exact.is_finite() or not 0 <= exact <= MAX_NUMBER:
            raise self._error(key, f"takes a number from 0 to {MAX_NUMBER}, not {value}")
        exponent = exact.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -MAX_DECIMALS:
            raise self._error(key, f"has more than {MAX_DECIMALS} decimal places")
        return Fraction(exact)

    def _check_keys(self, prefix: str, stated: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in stated:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean '{prefix}{close[0]}'?" if close else f"there are {', '.join(known)}"
                raise InvalidArgumentError(f"--price-file {self._path}: unknown key '{prefix}{key}'; {hint}")

    def _error(self, key: str, fault: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"--price-file {self._path}: '{key}' {fault}")
