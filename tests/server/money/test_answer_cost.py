"""What a caller who asks is told of its answer's cost."""

from __future__ import annotations

from fractions import Fraction

import pytest
from erg_server.energy.account import Source
from erg_server.errors import InvalidArgumentError
from erg_server.money.answer_cost import AnswerCosts, asked
from erg_server.money.costs import Tariff
from erg_server.money.price_file import Prices
from erg_server.request import Phases

PHASES = Phases(
    arrival_ns=0,
    queued_ns=1_000,
    dispatched_ns=251_999,
    completed_ns=9_000_000,
    compute_input_ns=1_000_000,
    compute_infer_ns=2_500_000,
    compute_output_ns=500_000,
    batch_rows=8,
    device="cpu0",
)


class Watts:
    """Every device takes the same, as far as the test says."""

    def __init__(self, watts: float, source: Source) -> None:
        self.told: tuple[float, Source] = (watts, source)

    def active_watts(self, device: str) -> tuple[float, Source]:
        assert device == "cpu0"
        return self.told


def test_an_answer_carries_its_part_of_its_batchs_energy_and_time() -> None:
    tariff = Tariff(Prices(usd_per_kwh=Fraction(36, 10), pue=Fraction(2)), {"cpu0": Fraction(36)})
    told = AnswerCosts(Watts(50.0, "modelled"), tariff).of(PHASES, rows=2, variant="int8/openvino")
    joules = 50.0 * 0.004 * 2 / 8
    assert told == {
        "erg_queue_us": 250,
        "erg_compute_us": 4000,
        "erg_batch_rows": 8,
        "erg_joules": pytest.approx(joules),
        "erg_joules_source": "modelled",
        "erg_usd": pytest.approx(0.01 * 0.004 * 2 / 8 + joules * 2e-6),
        "erg_model_variant": "int8/openvino",
    }


def test_the_answers_of_a_batch_share_all_of_it() -> None:
    costs = AnswerCosts(Watts(50.0, "measured"), Tariff(Prices(), {"cpu0": Fraction(36)}))
    answers = [costs.of(PHASES, rows=rows, variant="") for rows in (1, 2, 5)]
    assert sum(float(each["erg_joules"]) for each in answers) == pytest.approx(50.0 * 0.004)
    assert sum(float(each["erg_usd"]) for each in answers) == pytest.approx(0.01 * 0.004)


def test_a_figure_that_nobody_has_is_not_sent_as_nought() -> None:
    for costs in (AnswerCosts(), AnswerCosts(Watts(0.0, "none"))):
        told = costs.of(PHASES, rows=1, variant="onnxruntime")
        assert told["erg_joules_source"] == "none"
        assert not {"erg_joules", "erg_usd"} & told.keys()


def test_a_batch_without_rows_divides_by_nothing() -> None:
    told = AnswerCosts(Watts(1.0, "measured")).of(Phases(device="cpu0"), rows=0, variant="")
    assert (told["erg_joules"], told["erg_batch_rows"]) == (0.0, 1)


def test_only_true_and_false_ask() -> None:
    assert asked({"erg_cost": True})
    assert not asked({"erg_cost": False})
    assert not asked({"other": True})
    for value in (1, "true", 1.0):
        with pytest.raises(InvalidArgumentError, match="parameter 'erg_cost' is true or false"):
            asked({"erg_cost": value})
