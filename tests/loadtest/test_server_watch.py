import asyncio

import pytest
from erg_loadtest.consumption import consumption
from erg_loadtest.errors import ServerError
from erg_loadtest.live import Rate
from erg_loadtest.metrics_page import lines_of, samples
from erg_loadtest.server_watch import Reading, ServerWatch, reading_interval_s

from tests.loadtest.made_runs import S, energy_page
from tests.loadtest.narrow import known


def used(pages, done_s=range(1, 11), **options):
    import numpy as np

    done = np.array([int(second * S) for second in done_s], dtype=np.int64)
    readings = [Reading(at_ns=index * S, page=page) for index, page in enumerate(pages)]
    options = {"model": "m", "version": "", **options}
    return consumption(readings, "", done_ns=done, rows=np.full(len(done), 100, dtype=np.int64), **options)


async def test_a_watch_reads_at_its_start_and_its_end_however_short_the_load():
    times = iter(range(10))
    async with ServerWatch(lambda: Reading(at_ns=next(times)), 60.0) as watch:
        pass
    assert [reading.at_ns for reading in watch.readings] == [0, 1]


async def test_a_watch_reads_again_and_again_and_a_reading_that_fails_only_leaves_a_gap():
    taken = asyncio.Event()
    calls: list[None] = []

    def read():
        calls.append(None)
        if len(calls) == 2:
            raise ServerError("busy")
        if len(calls) == 4:
            loop.call_soon_threadsafe(taken.set)
        return Reading(at_ns=len(calls))

    loop = asyncio.get_running_loop()
    async with ServerWatch(read, 0.001) as watch:
        await taken.wait()
    assert [reading.at_ns for reading in watch.readings][:3] == [1, 3, 4]
    assert watch.missing == ""


async def test_a_server_that_cannot_be_read_at_first_is_not_asked_again():
    def read():
        raise ServerError("no such page")

    async with ServerWatch(read, 0.001) as watch:
        pass
    assert (watch.readings, watch.missing) == ([], "no such page")


def test_a_run_is_read_twenty_times_but_never_more_than_four_times_a_second():
    assert [reading_interval_s(duration) for duration in (None, 1.0, 10.0, 100.0)] == [0.5, 0.25, 0.5, 5.0]


def test_a_counter_that_went_back_makes_no_figure():
    found = used([energy_page(second) for second in (5, 6, 1, 2, 3, 4, 5)])
    assert "went back" in str(found.energy)
    assert "went back" in str(found.money)


def test_an_account_that_appears_later_counts_from_nothing():
    pages = ['erg_energy_joules_total{account="idle",source="measured"} 0.5\n', energy_page(1.0, source="measured")]
    found = known(used(pages).energy)
    by_name = {(account.name, account.scope): account.total for account in found.accounts}
    assert by_name["inference", "model"] == pytest.approx(4.5)


def test_another_version_of_the_model_is_not_the_loaded_one():
    pages = [energy_page(second) for second in range(11)]
    assert known(used(pages, version="1").energy).own is not None
    assert known(used(pages, version="2").energy).own is None


def test_triton_s_counter_of_a_gpu_is_everybody_s_and_measured():
    pages = [f'nv_energy_consumption{{gpu_uuid="GPU-0"}} {50.0 * second}\n' for second in range(11)]
    found = used(pages)
    energy = known(found.energy)
    assert (energy.own, energy.sources, energy.counter) == (None, ("measured",), "nv_energy_consumption")
    assert energy.whole.value == pytest.approx(500.0)
    assert known(found.power).value == pytest.approx(50.0)
    assert "no erg_cost_usd_total" in str(found.money)


def test_an_erg_that_also_shows_triton_s_name_is_not_counted_twice():
    pages = [energy_page(s) + f"nv_energy_consumption {99.0 * s}\n" for s in range(11)]
    assert known(used(pages).energy).counter == "erg_energy_joules_total"
    assert known(used(pages).power).value == pytest.approx(10.0)


def test_a_model_s_own_memory_is_told_where_the_server_knows_it_and_its_workers_where_not():
    page = energy_page(1.0)
    assert known(used([page, page]).memory).value == 5e7
    assert used([page, page]).memory_of == "erg_worker_memory_bytes"
    own = "".join(
        f'erg_model_memory_bytes{{model="{name}",worker="cpu0"}} {size}\n' for name, size in (("m", 7), ("n", 9))
    )
    assert known(used([page + own] * 2).memory).value == 7
    assert known(used([page + own] * 2, model="n").memory).value == 9
    assert used(["other 1\n"] * 2).memory == "the server tells no memory"


def test_energy_without_an_answer_is_not_divided():
    assert "nothing was answered" in str(used([energy_page(s) for s in range(11)], done_s=[]).energy)


def test_only_watched_lines_of_a_page_are_kept():
    page = '# HELP erg_energy_joules_total x\nerg_energy_joules_total{a="b"} 1\nerg_requests_total 5\n'
    kept = lines_of(page, ("erg_energy_",))
    assert [(sample.name, dict(sample.labels), sample.value) for sample in samples(kept)] == [
        ("erg_energy_joules_total", {"a": "b"}, 1.0)
    ]


def test_a_page_that_is_none_is_an_error_of_the_server():
    with pytest.raises(ServerError, match="Prometheus"):
        list(samples('erg_energy_joules_total{a="b" 1 x\n'))


def test_the_live_rate_is_of_the_last_seconds():
    rate = Rate(window_s=2.0)
    assert rate.update(0.0, 0) == 0.0
    assert rate.update(1.0, 100) == 100.0
    for second in range(2, 10):
        shown = rate.update(float(second), 100 + 10 * (second - 1))
    assert shown == 10.0
