"""Parameters of cost as trailers: keys and values that gRPC takes."""

from __future__ import annotations

import re

from erg_server.transports.cost_trailers import cost_trailers
from hypothesis import given
from hypothesis import strategies as st


def test_only_what_it_cost_goes_out_under_keys_of_metadata() -> None:
    trailers = cost_trailers({"erg_queue_us": 12, "triton_final_response": True, "erg_joules": 0.25})
    assert trailers == (("erg-queue-us", "12"), ("erg-joules", "0.25"))


@given(st.text())
def test_any_name_of_a_variant_is_printable_ascii_without_spaces(variant: str) -> None:
    try:
        variant.encode()
    except UnicodeEncodeError:
        return  # No manifest holds a lone surrogate.
    ((_, value),) = cost_trailers({"erg_model_variant": variant})
    assert re.fullmatch(r"[\x21-\x7e]*", value)
