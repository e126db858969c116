"""Who pays for a call, and what becomes of callers who invent names."""

from __future__ import annotations

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.transports.tenants import MAX_NAME, MAX_TENANTS, OTHER, Tenants


def of(tenants: Tenants, *values: str | bytes) -> str:
    return tenants.of((("other-key", "z"), *(("x-tenant", value) for value in values)))


def test_a_tenant_is_what_the_stated_key_says() -> None:
    tenants = Tenants("x-tenant")
    assert of(tenants, "team a") == "team a"
    assert of(tenants) == ""
    assert of(tenants, "") == ""
    assert tenants.of(()) == ""


@pytest.mark.parametrize("value", ["x" * (MAX_NAME + 1), "a\x00b", "a\tb", "ä", "\x7f", b"bytes"])
def test_a_name_that_could_not_be_shown_is_refused(value: str | bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="metadata 'x-tenant' takes a tenant's name"):
        of(Tenants("x-tenant"), value)


def test_two_tenants_of_one_call_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="more than once"):
        of(Tenants("x-tenant"), "a", "b")


def test_a_flood_of_names_ends_in_one_and_leaves_those_known_before_it() -> None:
    tenants = Tenants("x-tenant")
    assert of(tenants, "ours") == "ours"
    told = {of(tenants, f"flood-{number}") for number in range(5 * MAX_TENANTS)}
    assert len(told | {"ours"}) == MAX_TENANTS + 1
    assert OTHER in told
    assert of(tenants, "late") == OTHER
    assert of(tenants, "ours") == "ours"
    assert of(tenants, OTHER) == OTHER
