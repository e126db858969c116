"""Plots: the same figures make the same file, with every server and model in it."""

import xml.etree.ElementTree as ET

import pytest
from bench.published.plots import cpu_plot, latency_plot

from tests.loadtest.published.records import raw, record, turn


@pytest.mark.parametrize("draw", [cpu_plot, latency_plot])
def test_a_plot_names_all_that_ran_and_is_the_same_each_time(draw):
    held = record(turn(), turn("MLServer", cpu_us=9000.0, p99_us=1e5), raw=[raw()])
    svg = draw(held)
    ET.fromstring(svg)
    assert draw(held) == svg
    for text in ("Erg", "MLServer", "A model"):
        assert f">{text}<" in svg


def test_a_server_that_missed_a_load_is_drawn_where_it_ran():
    held = record(turn(in_flight=1), turn(in_flight=8), turn("Mosec", in_flight=8), loads=[1, 8])
    assert ">Mosec<" in cpu_plot(held)
    assert ">Mosec<" in latency_plot(held)
