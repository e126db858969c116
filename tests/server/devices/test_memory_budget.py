"""How a memory budget is written, and what it bounds."""

from __future__ import annotations

import pytest
from erg_server.devices.device import Device
from erg_server.devices.memory_budget import MemoryBudget, parse_budgets, parse_size
from erg_server.errors import InvalidArgumentError

DEVICES = (
    Device(kind="cpu", id=0),
    Device(kind="cpu", id=1),
    Device(kind="gpu", id=0),
    Device(kind="gpu", id=1, partition="mig0"),
    Device(kind="gpu", id=2, partition="mps0"),
    Device(kind="gpu", id=2, partition="mps1"),
)


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("8GiB", 8 << 30), ("1.5 gib", 3 << 29), ("500MB", 500_000_000), ("4096", 4096), ("1kb", 1000), ("1TiB", 1 << 40)],
)
def test_a_size_has_a_unit_or_is_in_bytes(text: str, nbytes: int) -> None:
    assert parse_size(text, "x") == nbytes


@pytest.mark.parametrize("text", ["", "0", "-1", "GiB", "8XB", "1e9", "0.1", "8GiB8", "9" * 400, "٣GiB"])
def test_what_is_no_size_is_told_with_how_to_write_one(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"--memory-budget .*is no size above 0; write it as 8GiB"):
        parse_budgets([text])


def test_a_budget_is_the_machines_and_each_gpus_by_kind_or_for_both() -> None:
    assert parse_budgets([]).pools(DEVICES) == {}
    assert parse_budgets(["8"]).pools(DEVICES) == {"cpu": 8, "gpu0": 8, "gpu1.mig0": 8, "gpu2": 8}
    assert parse_budgets(["gpu=9"]) == MemoryBudget(gpu_bytes=9)
    assert parse_budgets(["gpu=9", "cpu=3"]).pools(DEVICES)["cpu"] == 3


@pytest.mark.parametrize(
    ("stated", "told"), [(["tpu=1"], "no kind 'tpu'; allowed: cpu, gpu"), (["1", "cpu=2"], "kind cpu is given twice")]
)
def test_budgets_that_contradict_are_told(stated: list[str], told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        parse_budgets(stated)
