"""The backend that is its configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from erg_server.backends.identity import IdentityBackend, IdentityModel
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError

from tests.contract.onnx_models import Values, model_load

X, Y = ("x", DataType.FP32), ("y", DataType.FP32)


def load(inputs: Values, outputs: Values, delay: str = "") -> IdentityModel:
    extra = f'parameters {{ key: "execution_delay_ms" value {{ string_value: "{delay}" }} }}' if delay else ""
    return IdentityBackend().load(model_load("identity", Path("unused"), inputs, outputs, extra=extra))


@pytest.mark.parametrize("outputs", [[Y, ("z", DataType.FP32)], [("y", DataType.FP64)]], ids=["more", "other type"])
def test_an_output_without_its_input_is_refused_at_load(outputs: Values) -> None:
    with pytest.raises(InvalidArgumentError, match=f"output '{outputs[-1][0]}'"):
        load([X], outputs)


def test_inputs_beyond_the_outputs_are_dropped() -> None:
    model = load([X, ("extra", DataType.INT8)], [Y])
    values = np.ones((1, 3), np.float32)
    assert np.array_equal(model.run([values, None]), [values])


@pytest.mark.parametrize("delay", ["soon", "nan", "inf", "-1"])
def test_a_delay_that_no_device_could_take_is_refused(delay: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"execution_delay_ms is .* not '{delay}'"):
        load([X], [Y], delay)


def test_a_delay_of_zero_is_none() -> None:
    assert len(load([X], [Y], "0").run([np.ones((1, 3), np.float32)])) == 1
