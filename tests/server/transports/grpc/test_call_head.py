from __future__ import annotations

import pytest
from erg_server.errors import StatusCode
from erg_server.transports.grpc.call_head import MAX_TIMEOUT_NS, CallHead, parse_head, parse_timeout_ns
from hypothesis import given
from hypothesis import strategies as st

from tests.server.transports.grpc.peer import REQUEST


def head(*more: tuple[bytes, bytes], without: str = "", **changed: str) -> CallHead:
    fields = [
        (name.encode(), changed.get(name.strip(":").replace("-", "_"), value).encode())
        for name, value in REQUEST
        if name != without
    ]
    return parse_head([*fields, *more])


def test_a_good_head_has_its_path_and_metadata() -> None:
    good = head((b"a", b"1"), (b"raw-bin", b"AP8,AAE="), (b"grpc-accept-encoding", b"gzip, identity"))
    assert good.path == "/test.Service/Call"
    assert good.metadata == (("a", "1"), ("raw-bin", b"\x00\xff"), ("raw-bin", b"\x00\x01"))
    assert good.accepts == {"gzip", "identity"}
    assert not good.malformed
    assert good.refusal is None


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (b"1H", 3600 * 10**9),
        (b"2M", 120 * 10**9),
        (b"3S", 3 * 10**9),
        (b"100m", 10**8),
        (b"99999999u", 99_999_999_000),
        (b"0n", 0),
        (b"99999999H", MAX_TIMEOUT_NS),
        (b"", None),
        (b"S", None),
        (b"123456789S", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"1s", None),
        (b"1 S", None),
        ("²S".encode("latin-1"), None),
    ],
)
def test_a_timeout_is_up_to_eight_digits_and_a_unit(stated: bytes, expected: int | None) -> None:
    assert parse_timeout_ns(stated) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        head(without=":path"),
        head(without=":method"),
        head(without=":scheme"),
        head(path=""),
        head((b":path", b"/again")),
        head((b":status", b"200")),
        head((b"Upper", b"case")),
        head((b"sp ace", b"x")),
        head((b"", b"x")),
        head((b"na\xefve", b"x")),
        head((b"connection", b"close")),
        head((b"transfer-encoding", b"chunked")),
        head((b"a", b"line\nbreak")),
        head((b"a", b"nul\0")),
        head((b"a", b" space")),
        head((b"a", b"space\t")),
        head(te="gzip"),
    ],
)
def test_what_http2_forbids_is_malformed(wrong: CallHead) -> None:
    assert wrong.malformed
    assert not wrong.is_trailers


@pytest.mark.parametrize(
    ("refused", "status", "code"),
    [
        (head(method="GET"), 405, StatusCode.INTERNAL),
        (head(content_type="text/html"), 415, StatusCode.INTERNAL),
        (head(content_type="application/grpc-web"), 415, StatusCode.INTERNAL),
        (head(without="content-type"), 415, StatusCode.INTERNAL),
        (head((b"grpc-timeout", b"soon")), 200, StatusCode.INTERNAL),
        (head((b"grpc-encoding", b"br")), 200, StatusCode.UNIMPLEMENTED),
        (head((b"raw-bin", b"***")), 200, StatusCode.INTERNAL),
    ],
)
def test_what_grpc_forbids_is_refused_with_a_status(refused: CallHead, status: int, code: StatusCode) -> None:
    assert not refused.malformed
    assert refused.refusal is not None
    assert refused.refusal[:2] == (status, code)


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc;x=y"])
def test_every_content_type_of_grpc_is_taken(content_type: str) -> None:
    assert head(content_type=content_type).refusal is None


def test_trailers_are_told_from_requests() -> None:
    assert parse_head([(b"a", b"b")]).is_trailers
    assert parse_head([]).is_trailers
    assert not parse_head([(b"A", b"b")]).is_trailers


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12))))
def test_no_header_list_raises(fields: list[tuple[bytes, bytes]]) -> None:
    parse_head(fields)
    parse_head([(name.encode(), value.encode()) for name, value in REQUEST] + fields)
