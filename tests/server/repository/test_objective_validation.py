import pytest
from erg_server.repository.config import parse_config
from erg_server.repository.problem import ConfigError
from erg_server.repository.spec import ModelSpec
from erg_server.repository.validation import validate

BASE = """name: "m"
backend: "identity"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""


def found(text: str) -> list[str]:
    return [f"{each.severity} {each}" for each in validate(parse_config(BASE + text, "c", "pbtxt"), "m", {"identity"})]


def test_an_objective_reads_the_same_in_both_notations() -> None:
    pbtxt = parse_config("erg { slo { p99_ms: 50 } }", "c", "pbtxt")
    toml = parse_config("[erg.slo]\np99_ms = 50.0\n", "c", "toml")
    assert pbtxt.config == toml.config
    assert ModelSpec.from_config(pbtxt.config).objective_ns == 50_000_000
    assert ModelSpec.from_config(parse_config("", "c", "pbtxt").config).objective_ns == 0


def test_a_sound_objective_has_no_problems() -> None:
    assert found("dynamic_batching { max_queue_delay_microseconds: 500 }\nerg { slo { p99_ms: 50 } }") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("erg { slo {\np99_ms: 0 } }", "error c:7: erg.slo.p99_ms: 0 is no time to answer in"),
        ("erg { slo { p99_ms: -3 } }", "allowed: 0.1 to 3600000 milliseconds"),
        ("erg { slo { p99_ms: nan } }", "nan is no time"),
        ("erg { slo { p99_ms: inf } }", "inf is no time"),
        ("erg { slo { } }", "error c:6: erg.slo: states no p99_ms"),
        (
            "dynamic_batching {\nmax_queue_delay_microseconds: 50000 }\nerg { slo { p99_ms: 50 } }",
            "warning c:7: dynamic_batching.max_queue_delay_microseconds: requests may wait 50 ms",
        ),
    ],
)
def test_an_objective_that_nothing_can_keep_is_told_with_its_line(text: str, told: str) -> None:
    (problem,) = found(text)
    assert told in problem


def test_a_misspelt_objective_is_told_with_the_right_name() -> None:
    with pytest.raises(ConfigError, match=r"c:1: erg\.slo\.p99_milliseconds: unknown key"):
        parse_config("erg { slo { p99_milliseconds: 5 } }", "c", "pbtxt")
    with pytest.raises(ConfigError, match=r"c:1: erg\.slo\.p99_ms: expected a number"):
        parse_config('erg { slo { p99_ms: "5" } }', "c", "pbtxt")
