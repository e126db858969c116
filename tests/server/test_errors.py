"""Errors and the status each becomes."""

from __future__ import annotations

import grpc
import pytest
from erg_server import errors
from erg_server.errors import MAX_MESSAGE_BYTES, ErgError, InternalError, NotFoundError, StatusCode
from hypothesis import given
from hypothesis import strategies as st

KINDS = {
    kind: name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ErgError) and kind is not ErgError
}


def test_the_codes_are_grpcs() -> None:
    assert {code.name: int(code) for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize("kind", KINDS, ids=list(KINDS.values()))
def test_an_errors_name_is_its_codes(kind: type[ErgError]) -> None:
    words = "".join(word.capitalize() for word in kind.code.name.split("_"))
    assert KINDS[kind] == f"{words}Error"
    assert kind("why").code is kind.code


def test_an_error_without_a_text_tells_its_name() -> None:
    assert InternalError().message == "InternalError"
    assert NotFoundError("no model").message == "no model"


@given(st.text(st.characters(), max_size=3).map(lambda text: text * 2000) | st.text())
def test_a_message_always_fits_a_status(text: str) -> None:
    message = ErgError(text).message
    assert len(message.encode()) <= MAX_MESSAGE_BYTES + len("…".encode())
    if len(text.encode(errors="replace")) <= MAX_MESSAGE_BYTES:
        assert message == text.encode(errors="replace").decode()
    else:
        assert message.endswith("…")


def test_bytes_of_a_path_that_are_no_text_are_replaced() -> None:
    assert ErgError("bad \udcff name").message == "bad ? name"
