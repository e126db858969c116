"""What a price file may say, and what it is told otherwise."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.money.price_file import MAX_BYTES, Carbon, Prices, read_price_file
from hypothesis import given
from hypothesis import strategies as st

DOCS = Path(__file__).parents[3] / "docs"


def read(folder: Path, text: str) -> Prices:
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return read_price_file(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InvalidArgumentError) as raised:
        read(folder, text)
    assert str(folder / "prices.toml") in raised.value.message
    return raised.value.message


def test_prices_are_what_is_written_to_the_last_digit(tmp_path: Path) -> None:
    text = """
    usd_per_kwh = 0.1
    pue = 1.25
    [device_hour_usd]
    cpu = 0.04
    gpu = 2
    "NVIDIA H100 80GB HBM3" = 3.123456789012
    [carbon]
    grams_per_kwh = 42.5
    source = " the grid's operator, 2025 "
    """
    assert read(tmp_path, text) == Prices(
        device_hour_usd={
            "cpu": Fraction(4, 100),
            "gpu": Fraction(2),
            "NVIDIA H100 80GB HBM3": Fraction(3_123_456_789_012, 10**12),
        },
        usd_per_kwh=Fraction(1, 10),
        pue=Fraction(5, 4),
        carbon=Carbon(Fraction(85, 2), "the grid's operator, 2025"),
    )


def test_one_price_is_enough(tmp_path: Path) -> None:
    prices = read(tmp_path, "usd_per_kwh = 0")
    assert prices == Prices(usd_per_kwh=Fraction(0))


def test_the_example_is_a_price_file_and_says_that_it_is_an_example() -> None:
    prices = read_price_file(DOCS / "prices.toml")
    assert prices.carbon is not None
    assert "example" in prices.carbon.source
    assert set(prices.device_hour_usd) == {"cpu", "gpu", "NVIDIA H100 80GB HBM3"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("usd_per_kw = 1", "unknown key 'usd_per_kw'; did you mean 'usd_per_kwh'?"),
        ("euros = 1", "unknown key 'euros'; there are device_hour_usd, usd_per_kwh, pue, carbon"),
        ("[carbon]\ngram_per_kwh = 1", "unknown key 'carbon.gram_per_kwh'; did you mean 'carbon.grams_per_kwh'?"),
        ("[carbon]\ngrams_per_kwh = 1", "'carbon.source' is missing"),
        ('[carbon]\nsource = "a"', "'carbon.grams_per_kwh' is missing"),
        ("[carbon]\ngrams_per_kwh = 1\nsource = 2025", "'carbon.source' takes one line of text"),
        ('[carbon]\ngrams_per_kwh = 1\nsource = "  "', "'carbon.source' takes one line of text"),
        ('[carbon]\ngrams_per_kwh = 1\nsource = "a\\nb"', "'carbon.source' takes one line of text"),
        ("carbon = 380", "'carbon' is a table"),
        ("device_hour_usd = 2", "'device_hour_usd' is a table"),
        ('usd_per_kwh = "0.1"', "'usd_per_kwh' takes a number, not '0.1'"),
        ("usd_per_kwh = true", "'usd_per_kwh' takes a number, not True"),
        ("usd_per_kwh = nan", "'usd_per_kwh' takes a number from 0 to 1000000, not NaN"),
        ("usd_per_kwh = inf", "'usd_per_kwh' takes a number from 0 to 1000000, not Infinity"),
        ("usd_per_kwh = -0.1", "'usd_per_kwh' takes a number from 0 to 1000000, not -0.1"),
        ("usd_per_kwh = 1e999999999", "'usd_per_kwh' takes a number from 0 to 1000000"),
        ("usd_per_kwh = 1e-999999999", "'usd_per_kwh' has more than 12 decimal places"),
        ("usd_per_kwh = 1e99999999999999999999", "'usd_per_kwh' takes a number from 0 to 1000000, not NaN"),
        ("[device_hour_usd]\ngpu = -1", "'device_hour_usd.gpu' takes a number from 0"),
        ("[device_hour_usd]\ngpu = 1979-05-27", "'device_hour_usd.gpu' takes a number"),
        ("usd_per_kwh = 1\npue = 0.5", "'pue' is at least 1"),
        ("", "all other prices are missing"),
        ("[device_hour_usd]", "all other prices are missing"),
        ("usd_per_kwh == 1", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("# " + "x" * MAX_BYTES, "no price file has over"),
    ],
)
def test_what_is_no_price_is_told_with_its_key(tmp_path: Path, text: str, told: str) -> None:
    assert told in refused(tmp_path, text)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No such file"):
        read_price_file(tmp_path / "none.toml")
    with pytest.raises(InvalidArgumentError, match="Is a directory"):
        read_price_file(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(InvalidArgumentError, match="not TOML"):
        read_price_file(tmp_path / "latin.toml")


@given(st.text(max_size=60) | st.sampled_from(["usd_per_kwh = ", "[carbon]", "pue="]).flatmap(
    lambda head: st.text(alphabet="0123456789.eE+-_xnaif\"'[]= \n", max_size=20).map(lambda tail: head + tail)
))  # fmt: skip
def test_any_text_is_prices_or_a_typed_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        prices = read(folder, text)
    except InvalidArgumentError:
        return
    except UnicodeEncodeError:
        return  # A lone surrogate, which no file holds.
    assert prices.usd_per_kwh is None or prices.usd_per_kwh >= 0
    assert prices.pue >= 1
