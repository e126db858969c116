"""Losses are said as plainly as wins, and what did not run is said at all."""

from bench.published.figures import CONVERTED, LoadReport, NotRun
from bench.published.load_report import report_text
from bench.published.markdown import number, table
from bench.published.tables import client_limited, model_table, section, verdict_table

from tests.loadtest.published.records import raw, record, turn


def cells(markdown, first):
    """The row that begins so."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in markdown.splitlines()]
    (found,) = [row for row in rows if row[0] == first]
    return found


def pair(cpu_us, rounds=2):
    """Erg and Mosec, of which Mosec's CPU time is given by round."""
    turns = []
    for index in range(rounds):
        turns += [turn(round=index), turn("Mosec", round=index, cpu_us=cpu_us[index])]
    return turns


def test_a_loss_in_all_rounds_is_called_one():
    cpu = cells(verdict_table(record(*pair([1000.0, 1500.0]))), "A model")[3]
    assert cpu == "0.625 [0.5, 0.75], **Erg worse**"


def test_a_win_in_all_rounds_is_called_one():
    cpu = cells(verdict_table(record(*pair([3000.0, 4000.0]))), "A model")[3]
    assert cpu == "1.75 [1.50, 2.00], *Erg better*"


def test_rounds_that_disagree_show_no_difference():
    cpu = cells(verdict_table(record(*pair([1000.0, 3000.0]))), "A model")[3]
    assert cpu == "1.00 [0.5, 1.50], no difference shown"


def test_more_requests_a_second_of_a_rival_are_a_loss():
    turns = [turn(round=n) for n in (0, 1)] + [turn("Mosec", round=n, requests_per_s=150.0 + n) for n in (0, 1)]
    assert cells(verdict_table(record(*turns)), "A model")[4].endswith("**Erg worse**")


def test_one_round_is_no_verdict():
    assert cells(verdict_table(record(*pair([3000.0], rounds=1), rounds=1)), "A model")[3] == "1.50"


def test_the_converted_model_is_not_held_against_the_rivals():
    turns = [turn(), turn(CONVERTED, cpu_us=1.0), turn("Mosec")]
    assert CONVERTED not in verdict_table(record(*turns))
    assert "**" not in " ".join(cells(model_table(record(*turns), "m"), CONVERTED))


def test_the_least_cpu_time_is_set_off_whoever_has_it():
    rows = model_table(record(turn(cpu_us=2000.0), turn("Mosec", cpu_us=1000.0)), "m")
    assert cells(rows, "Mosec")[3] == "**1,000**"
    assert cells(rows, "Erg")[3] == "2,000"


def test_raw_has_a_row_and_a_ratio():
    rows = model_table(record(turn(cpu_us=2000.0), raw=[raw(cpu_us=1000.0)]), "m")
    assert cells(rows, "ONNX Runtime alone")[1:5] == ["batch 4", "2,000", "1,000", "1"]
    assert cells(rows, "Erg")[4] == "0.5"


def test_a_rate_that_the_client_bounded_says_so():
    limited = turn(client_share=0.97)
    assert client_limited([limited])
    assert not client_limited([turn()])
    page = section(record(limited), cpu_plot="a.svg", latency_plot="b.svg")
    assert "≥ 100" in page
    assert "the client had no more CPU to give" in page


def test_what_did_not_run_is_said_with_the_reason():
    missing = [
        NotRun(model="m", server="MLServer", why="it could not be installed: no wheel"),
        NotRun(model="n", server="", why="`erg convert run n.toml` failed"),
    ]
    page = section(record(turn(), not_run=missing), cpu_plot="a.svg", latency_plot="b.svg")
    assert "**MLServer on A model: not run.** it could not be installed: no wheel" in page
    assert "**the model on n: not run.** `erg convert run n.toml` failed" in page


def test_a_run_without_any_figure_still_says_why():
    page = section(
        record(not_run=[NotRun(model="m", server="", why="no file")]), cpu_plot="a.svg", latency_plot="b.svg"
    )
    assert "no file" in page
    assert ".svg" not in page


def test_failed_requests_are_counted_aloud():
    page = section(record(turn(failed=3), turn(round=1, failed=4)), cpu_plot="a.svg", latency_plot="b.svg")
    assert "**Erg failed 7 requests**" in page


def test_a_busy_machine_is_said_first():
    page = section(record(turn(), busy_at_start=1.4), cpu_plot="a.svg", latency_plot="b.svg")
    assert "**Not to be believed**: other programs used 1.4 cores" in page
    assert "Not to be believed" not in section(record(turn()), cpu_plot="a.svg", latency_plot="b.svg")


def test_joules_are_marked_as_modelled():
    heading = model_table(record(turn()), "m").splitlines()[0]
    assert "J per 1,000, modelled" in heading


def test_a_border_in_a_cell_is_escaped():
    assert table(("a",), [("x | y",)]).splitlines()[2] == "| x \\| y |"


def test_figures_have_three_that_count():
    assert [number(each) for each in (0, 0.01234, 1.234, 12.34, 123.4, 1234.5)] == [
        "0", "0.0123", "1.23", "12.3", "123", "1,234",
    ]  # fmt: skip


def test_the_report_of_a_server_without_statistics_says_what_is_missing():
    document = {
        "description": "closed loop of 8", "succeeded": 10, "failed": 0, "inferences_per_s": 5.0, "client_cpu_s": 0.1,
        "latency": {"percentiles_us": {"p50": 1000.0, "p99": 2000.0}}, "server": {"missing": "no such method"},
        "server_cpu": {"us_per_inference": 30.0, "front_us_per_inference": 20.0, "workers_us_per_inference": 10.0},
    }  # fmt: skip
    report = LoadReport(server="MLServer", command="erg load m", document={"format": 1, "result": document})
    text = report_text(record(reports=[report]))
    assert "erg load m" in text
    assert "| mean batch, by the server's statistics | unknown: no such method |" in text
    assert "| server CPU µs (front + workers) | 30.0 (20.0 + 10.0) |" in text


def test_tables_name_a_model_without_what_it_is_for():
    held = record(*pair([1000.0, 1500.0]), titles={"m": "A model: for overhead"})
    assert cells(verdict_table(held), "A model")
    assert "### A model: for overhead" in section(held, cpu_plot="a.svg", latency_plot="b.svg")
