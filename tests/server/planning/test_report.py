from __future__ import annotations

import io

from erg_server.planning.forecast import DeviceForecast, Forecast, MemoryForecast, ModelForecast
from erg_server.planning.report import FEW_REQUESTS, print_plan
from rich.console import Console

from tests.server.planning.builders import model_forecast

CPU = MemoryForecast(pool="cpu", used_bytes=3_000_000, budget_bytes=5_000_000, capacity_bytes=None)


def printed(*models: ModelForecast, memory: MemoryForecast = CPU, passed_over: dict[str, str] | None = None) -> str:
    device = DeviceForecast(name="cpu0", kind="cpu", utilization=0.625, models=("m",))
    file = io.StringIO()
    found = Forecast(models=models, devices=(device,), memory=(memory,))
    print_plan(Console(file=file, width=200, highlight=False), found, None, passed_over or {})
    return file.getvalue()


def row(text: str, section: str, first: str) -> list[str]:
    """The cells of the line that begins so, below the title of its table."""
    lines = text[text.index(f"{section}\n") :].splitlines()
    return next(line.split() for line in lines[2:] if line.split()[:1] == [first])


def test_each_figure_is_in_its_column() -> None:
    text = printed(model_forecast())
    assert row(text, "Requests", "m") == ["m", "20", "16", "80.00%", "4", "40", "50", "missed"]
    assert row(text, "Requests that are not answered in time", "m") == ["m", "10.00%", "6.00%", "4.00%"]
    assert row(text, "Devices", "cpu0") == ["cpu0", "62.5%", "m"]
    assert row(text, "Memory", "cpu") == ["cpu", "3", "5"]


def test_versions_are_told_where_a_model_has_several() -> None:
    text = printed(model_forecast(), model_forecast(version=2), model_forecast("other"))
    assert all(label in text for label in ("m v1", "m v2"))
    assert "other v1" not in text


def test_a_name_is_never_read_as_markup() -> None:
    assert "[red]m" in printed(model_forecast("[red]m"), passed_over={"[b]x": "[i]why"})
    assert "not planned: [b]x, which would not be served: [i]why" in printed(passed_over={"[b]x": "[i]why"})


def test_a_memory_that_is_too_small_is_told() -> None:
    exceeded = MemoryForecast(pool="gpu0", used_bytes=2, budget_bytes=None, capacity_bytes=1)
    assert "the models take more memory than gpu0 has" in printed(memory=exceeded)
    assert "objectives are not met: memory" in printed(memory=exceeded)
    assert "more memory" not in printed()


def test_a_p99_of_few_requests_is_told_to_say_little() -> None:
    told = f"fewer than {FEW_REQUESTS} requests of m"
    assert told in printed(model_forecast(requests=FEW_REQUESTS - 1))
    assert told not in printed(model_forecast(requests=FEW_REQUESTS))
