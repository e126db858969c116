"""Power that is modelled: stated watts and measured utilisation."""

from __future__ import annotations

import pytest
from erg_server.energy.modelled_power import ModelledCpuPower, ModelledGpuPower
from erg_server.energy.power_source import Activity
from erg_server.energy.stated_watts import StatedWatts, parse_watts, watts_of
from erg_server.errors import InvalidArgumentError
from hypothesis import given
from hypothesis import strategies as st

from tests.server.energy.builders import S


def test_a_cpu_takes_idle_watts_and_more_with_each_core_that_is_busy() -> None:
    power = ModelledCpuPower(StatedWatts(20.0, 100.0), cores=4, threads={"cpu0": 1, "cpu1": 2})
    assert power.read(Activity(now_ns=5 * S, cpu_ns=7 * S, held_ns={})) == 0
    assert power.read(Activity(now_ns=15 * S, cpu_ns=7 * S, held_ns={})) == 200_000_000
    assert power.read(Activity(now_ns=16 * S, cpu_ns=11 * S, held_ns={})) == 300_000_000
    assert (power.domain, power.source, power.idle_watts) == ("cpu", "modelled", 20.0)
    assert [power.stated_active_watts(name) for name in ("cpu0", "cpu1", "gpu0")] == [20.0, 40.0, 0.0]


def test_a_gpu_takes_more_while_its_devices_hold_batches_each_by_its_share() -> None:
    power = ModelledGpuPower("gpu0", StatedWatts(50.0, 350.0), shares={"gpu0.mig0": 1000, "gpu0.mig1": 500})
    power.read(Activity(now_ns=0, cpu_ns=0, held_ns={}))
    assert power.read(Activity(now_ns=S, cpu_ns=9 * S, held_ns={"gpu0.mig1": S})) == 150_000_000
    held_ns = {"gpu0.mig0": S, "gpu0.mig1": 2 * S}
    assert power.read(Activity(now_ns=2 * S, cpu_ns=9 * S, held_ns=held_ns)) == 500_000_000
    assert power.stated_active_watts("gpu0.mig0") == 200.0


@given(st.lists(st.tuples(st.integers(1, S), st.integers(0, 2 * S)), min_size=1, max_size=50))
def test_rounding_does_not_add_up(steps: list[tuple[int, int]]) -> None:
    power = ModelledCpuPower(StatedWatts(13.7, 91.3), cores=3, threads={})
    now_ns = cpu_ns = 0
    power.read(Activity(now_ns=0, cpu_ns=0, held_ns={}))
    for elapsed_ns, busy_ns in steps:
        now_ns, cpu_ns = now_ns + elapsed_ns, cpu_ns + busy_ns
        found = power.read(Activity(now_ns=now_ns, cpu_ns=cpu_ns, held_ns={}))
    exact = 13_700_000 * now_ns / S + (91_300_000 - 13_700_000) * cpu_ns / (3 * S)
    assert found == pytest.approx(exact, abs=1.1)


def test_watts_are_stated_by_domain_or_kind() -> None:
    stated = parse_watts(("cpu=20:95.5, gpu=60:300", "gpu1=40"))
    assert stated == {"cpu": StatedWatts(20, 95.5), "gpu": StatedWatts(60, 300), "gpu1": StatedWatts(40, None)}
    assert watts_of("gpu1", stated) == StatedWatts(40, None)
    assert watts_of("gpu12", stated) == StatedWatts(60, 300)
    assert watts_of("cpu", stated) == StatedWatts(20, 95.5)
    assert watts_of("gpu0", {}) is None


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("20:95", "write it as cpu=IDLE:BUSY"),
        ("cpu=20:", "write it as"),
        ("tpu=1:2", "write it as"),
        ("cpu=-1:2", "write it as"),
        ("cpu=nan:2", "write it as"),
        ("", "write it as"),
        ("cpu=95:20", "a busy cpu does not take less than an idle one"),
        ("cpu=1:2,cpu=1:3", "the watts of cpu are stated twice"),
    ],
)
def test_what_is_no_power_is_refused_with_the_form_that_is(stated: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        parse_watts((stated,))
