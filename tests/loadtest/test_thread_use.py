import time

import pytest
from erg_loadtest import thread_use
from erg_loadtest.thread_use import parse_schedstat, thread_busy_s


def test_running_and_waiting_for_a_cpu_both_count():
    assert parse_schedstat("1500000000 500000000 12\n") == 2.0


@pytest.mark.parametrize("text", ["", "1 2", "1 2 x", "1 2 3 4"])
def test_any_other_text_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_schedstat(text)


def test_the_kernel_s_account_holds_at_least_the_thread_s_cpu_time():
    before_s, cpu_before_s = thread_busy_s(), time.thread_time()
    sum(range(200_000))
    cpu_s = time.thread_time() - cpu_before_s
    # The kernel updates it at every switch and tick: a tick's worth may be missing.
    assert thread_busy_s() - before_s >= cpu_s - 0.02


def test_without_the_kernel_s_account_cpu_time_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(thread_use, "_SCHEDSTAT", tmp_path / "missing")
    before_s = time.thread_time()
    assert before_s <= thread_busy_s() <= time.thread_time()
