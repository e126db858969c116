import numpy as np
import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.tensors import numpy_dtype, to_wire


def test_bytes_elements_carry_their_length():
    values = np.array([b"ab", "ü"], dtype=object)
    assert to_wire(values, "BYTES") == b"\x02\x00\x00\x00ab\x02\x00\x00\x00\xc3\xbc"


def test_bf16_is_the_upper_half_of_fp32_rounded_to_even():
    values = np.array([1.0, 1.00390625, 1.01171875], dtype=np.float32)
    assert np.frombuffer(to_wire(values, "BF16"), dtype="<u2").tolist() == [0x3F80, 0x3F80, 0x3F82]


def test_values_are_sent_little_endian_in_c_order():
    assert to_wire(np.array([[1, 2], [3, 4]], dtype=">i2").T, "INT16") == b"\x01\0\x03\0\x02\0\x04\0"


def test_an_unknown_datatype_is_refused():
    with pytest.raises(PlanError, match="FP8"):
        numpy_dtype("FP8")
