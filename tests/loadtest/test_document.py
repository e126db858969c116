import contextlib
import csv
import io
import json
from dataclasses import replace

import pytest
from erg_loadtest.csv_table import HEADINGS, to_csv
from erg_loadtest.document import RunDocument, digest, read_json, run_document
from erg_loadtest.figure import DocumentError
from erg_loadtest.load import LoadPlan, PreparedScenario
from erg_loadtest.mlperf import parse_summary
from erg_loadtest.payloads import Payload
from erg_loadtest.quality import Quality
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtest.made_runs import made_result, made_run
from tests.loadtest.narrow import known


def test_figures_of_energy_and_money_are_the_model_s_and_everybody_s():
    run = made_run(joules_per_s=6.0)
    # 100 requests of 2 rows a second: 200 inferences for 6 joules, and 4 more of other accounts.
    assert run.figures["joules_per_1000"].value == pytest.approx(30.0, rel=0.02)
    assert run.figures["joules_per_1000_whole"].value == pytest.approx(50.0, rel=0.02)
    assert run.figures["usd_per_1000"].value == pytest.approx(1.2e-5 * 5, rel=0.02)
    assert run.figures["usd_per_1000_whole"].value == pytest.approx(4.2e-5 * 5, rel=0.02)
    assert run.figures["cpu_s_per_1000"].value == pytest.approx(0.75 * 5, rel=0.02)
    assert run.figures["watts"].value == pytest.approx(10.0, rel=1e-6)
    assert run.figures["memory_bytes"].value == 5e7
    accounts = {(account.name, account.scope): account.total for account in known(run.energy).accounts}
    assert accounts["inference", "model"] == pytest.approx(45)
    assert accounts["padding", "model"] == pytest.approx(15)
    assert accounts["idle", "shared"] == pytest.approx(30)
    assert accounts["inference", "other model"] == pytest.approx(10)


def test_what_rests_on_stated_watts_is_marked_and_nothing_else_is():
    modelled = made_run(source="modelled")
    assert {name for name, figure in modelled.figures.items() if figure.source == "modelled"} == {
        "joules_per_1000", "joules_per_1000_whole", "usd_per_1000", "usd_per_1000_whole", "watts",
    }  # fmt: skip
    by_component = {account.component: account.per_1000.source for account in known(modelled.money).accounts}
    assert by_component == {"device_time": "measured", "energy": "modelled"}
    measured = made_run(source="measured")
    assert {figure.source for figure in measured.figures.values()} == {"measured"}
    assert modelled.power_source == "modelled (erg_energy_joules_total)"


def test_a_server_without_a_power_source_has_no_joules():
    run = made_run(source="none")
    assert run.energy is None
    assert "no power source" in run.missing["joules_per_1000"]
    assert run.power_source == "none"


def test_without_readings_nothing_of_the_server_is_known_and_the_reason_is_told():
    run = made_run(pages=False)
    assert run.missing["joules_per_1000"] == run.missing["memory_bytes"] == "not asked for"
    assert "cpu_s_per_1000" not in run.figures


def test_every_figure_of_a_run_of_some_length_has_its_interval():
    run = made_run(seconds=30)
    without = {name for name, figure in run.figures.items() if figure.low is None or figure.high is None}
    assert without <= {"memory_bytes", "latency_p999_us"}
    for name, figure in run.figures.items():
        assert figure.low is None or figure.low <= figure.value, name
        assert figure.high is None or figure.high >= figure.value, name


def test_a_run_too_short_for_intervals_says_so_at_each_figure():
    run = made_run(seconds=1, rate=10)
    assert "run longer" in run.figures["latency_p50_us"].note
    assert run.figures["latency_p50_us"].method == ""


def test_a_document_survives_its_file(tmp_path):
    run = made_run(quality=Quality(performance=0.9, training_s=60.0, metric="accuracy", origin="test"), failures=3)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run.to_json(), allow_nan=False))
    assert RunDocument.from_json(read_json(path), "run.json").to_json() == json.loads(path.read_text())


def test_the_timeline_has_every_request_and_shows_the_failures():
    run = made_run(failures=7)
    assert sum(bucket.requests for bucket in run.timeline) == 993
    assert run.timeline[0].failures == 7
    assert known(run.timeline[3].p50_us) == pytest.approx(5000, rel=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a document"),
        ("{", "not JSON"),
        ('{"format": 2, "kind": "run"}', "format 2"),
        ("{}", "format None"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_document_is_refused_with_its_name(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DocumentError, match=message) as refused:
        read_json(path)
    assert "x.json" in str(refused.value)


@pytest.mark.parametrize("path", [("figures",), ("timeline",), ("quality",), ("energy", "accounts"), ("batches",)])
def test_a_document_that_lost_a_part_is_refused(path):
    document = made_run().to_json()
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = {"value": "high"} if path == ("figures",) else 3
    with pytest.raises(DocumentError, match=r"run\.json"):
        RunDocument.from_json(document, "run.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WHOLE = made_run(seconds=2).to_json()


@given(st.sampled_from(sorted(WHOLE)), JSON)
def test_whatever_stands_in_a_part_is_read_or_refused_but_never_crashes(key, value):
    with contextlib.suppress(DocumentError):
        RunDocument.from_json(WHOLE | {key: value}, "x")


def test_csv_has_a_row_a_figure_and_one_for_each_that_is_missing():
    run = made_run(pages=False)
    rows = list(csv.DictReader(io.StringIO(to_csv([run]))))
    assert tuple(rows[0]) == HEADINGS
    assert {row["figure"] for row in rows} == set(run.figures) | set(run.missing)
    p99 = next(row for row in rows if row["figure"] == "latency_p99_us")
    assert float(p99["value"]) == run.figures["latency_p99_us"].value
    missing = next(row for row in rows if row["figure"] == "joules_per_1000")
    assert (missing["value"], missing["note"]) == ("", "not asked for")


def test_a_model_s_name_is_no_formula_in_a_spreadsheet():
    rows = list(csv.DictReader(io.StringIO(to_csv([made_run(model='=HYPERLINK("x")')]))))
    assert {row["model"] for row in rows} == {'\'=HYPERLINK("x")'}


def test_a_run_that_loadgen_calls_invalid_is_invalid():
    options = {"seconds": 3, "rate": 100, "latency_ms": 5.0, "noise": 0.2, "failures": 0, "pages": False, "seed": 0}
    plan, result = made_result(model="m", **options)
    verdict = parse_summary("Result is : INVALID\n  Min duration satisfied : NO\n")
    run = run_document(plan, replace(result, mlperf=verdict), command="")
    assert not run.valid
    assert "LoadGen: Min duration" in str(run.validity)
    assert run_document(plan, result, command="").valid


def test_plans_that_send_the_same_have_one_digest_and_others_another():
    first, second = (
        LoadPlan(model="m", scenario=PreparedScenario(payloads=(Payload(body=body, rows=1),))) for body in (b"a", b"b")
    )
    assert digest(first) == digest(LoadPlan(model="m", scenario=first.scenario))
    assert digest(first) != digest(second)
