from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from erg_server.clock import MonotonicClock
from erg_server.errors import InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.transports.base import CallContext, Method, Transport
from erg_server.transports.certificate_families import certificate_families
from erg_server.transports.certificates import CertificateFiles, ReloadingCertificates
from erg_server.transports.grpc.server import Address, GrpcTransport
from erg_server.transports.grpcio.server import GrpcioTransport


class Authority:
    """A root, and the files of what it signs."""

    def __init__(self, folder: Path, *, ends: datetime | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(folder / "root.pem"))
        self.root = self.authority.cert_pem.bytes()
        self.leaf = self.authority.issue_cert("127.0.0.1", "localhost", not_after=ends)
        self.chain = b"".join(part.bytes() for part in self.leaf.cert_chain_pems)
        (folder / "cert.pem").write_bytes(self.chain)
        (folder / "key.pem").write_bytes(self.leaf.private_key_pem.bytes())

    def files(self, *, mutual: bool = False) -> CertificateFiles:
        return CertificateFiles(
            certificate=self.folder / "cert.pem",
            key=self.folder / "key.pem",
            client_roots=self.folder / "root.pem" if mutual else None,
        )

    def channel(self, address: str, *, trusts: Authority, known: bool = False) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            trusts.root, self.leaf.private_key_pem.bytes() if known else None, self.chain if known else None
        )
        # Each a connection of its own, not one that another channel opened.
        return grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])


def renew(old: Authority, new: Authority) -> None:
    """Put another's files in place, as a tool that renews certificates does."""
    for name in ("key.pem", "cert.pem", "root.pem"):
        shutil.copy(new.folder / name, old.folder / "next")
        (old.folder / "next").replace(old.folder / name)


@asynccontextmanager
async def serving(kind: str, files: CertificateFiles | ReloadingCertificates) -> AsyncIterator[str]:
    certificates = ReloadingCertificates(files) if isinstance(files, CertificateFiles) else files

    async def echo(request: pb.ServerLiveRequest, _: CallContext) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    method = Method(path="/test.Service/Call", request=pb.ServerLiveRequest, response=pb.ServerLiveResponse, unary=echo)
    clock = MonotonicClock()
    transport: Transport
    if kind == "erg":
        address = Address(host="127.0.0.1")
        transport = GrpcTransport([method], addresses=(address,), clock=clock, tls=certificates.listening)
    else:
        transport = GrpcioTransport(
            [method], address="127.0.0.1", port=0, max_message_bytes=1 << 20, clock=clock, certificates=certificates
        )
    await transport.start()
    try:
        yield transport.addresses[0]
    finally:
        await transport.stop()


async def live(channel: grpc.aio.Channel) -> bool:
    call = channel.unary_unary(
        "/test.Service/Call",
        request_serializer=pb.ServerLiveRequest.SerializeToString,
        response_deserializer=pb.ServerLiveResponse.FromString,
    )
    try:
        answer: pb.ServerLiveResponse = await call(pb.ServerLiveRequest())
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return answer.live


every_transport = pytest.mark.parametrize("kind", ["erg", "grpcio"])


@pytest.fixture
def first(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "second")


@every_transport
async def test_a_caller_that_trusts_the_server_is_answered(kind: str, first: Authority, second: Authority) -> None:
    async with serving(kind, first.files()) as address:
        async with first.channel(address, trusts=first) as channel:
            assert await live(channel)
        async with first.channel(address, trusts=second) as channel:
            assert not await live(channel)
        async with grpc.aio.insecure_channel(address) as channel:
            assert not await live(channel)


@every_transport
async def test_mutual_tls_takes_only_callers_that_the_root_signed(
    kind: str, first: Authority, second: Authority
) -> None:
    async with serving(kind, first.files(mutual=True)) as address:
        async with first.channel(address, trusts=first, known=True) as channel:
            assert await live(channel)
        async with first.channel(address, trusts=first) as channel:
            assert not await live(channel)
        async with second.channel(address, trusts=first, known=True) as channel:
            assert not await live(channel)


@every_transport
async def test_renewed_files_are_served_to_new_connections(kind: str, first: Authority, second: Authority) -> None:
    async with (
        serving(kind, first.files(mutual=True)) as address,
        first.channel(address, trusts=first, known=True) as old,
    ):
        assert await live(old)
        former = Authority(first.folder / "former")
        former.root, former.leaf, former.chain = first.root, first.leaf, first.chain
        renew(first, second)
        async with second.channel(address, trusts=second, known=True) as channel:
            assert await live(channel)
        async with former.channel(address, trusts=second, known=True) as channel:
            assert not await live(channel)
        assert await live(old)


@every_transport
async def test_files_that_cannot_be_used_leave_the_last_good_ones(
    kind: str, first: Authority, second: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(kind, first.files()) as address:
        for spoil in (
            lambda: shutil.copy(second.folder / "key.pem", first.folder / "key.pem"),
            (first.folder / "cert.pem").unlink,
        ):
            spoil()
            with caplog.at_level(logging.WARNING):
                async with first.channel(address, trusts=first) as channel:
                    assert await live(channel)
            assert "is served on" in caplog.text
            caplog.clear()


async def test_tls_without_http2_is_dropped(first: Authority) -> None:
    context = ssl.create_default_context(cadata=first.root.decode())
    async with serving("erg", first.files()) as address:
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        assert await reader.read() == b""
        writer.close()


def test_files_that_cannot_be_used_are_told_at_start(first: Authority, second: Authority, tmp_path: Path) -> None:
    missing = CertificateFiles(certificate=tmp_path / "none.pem", key=first.folder / "key.pem")
    other = CertificateFiles(certificate=first.folder / "cert.pem", key=second.folder / "key.pem")
    text = CertificateFiles(certificate=first.folder / "key.pem", key=first.folder / "key.pem")
    for files in (missing, other, text):
        with pytest.raises(InvalidArgumentError, match="--grpc-server-cert"):
            ReloadingCertificates(files)


def test_a_reload_happens_when_a_file_changed(first: Authority, second: Authority) -> None:
    certificates = ReloadingCertificates(first.files())
    assert not certificates.reload()
    renew(first, second)
    assert certificates.reload()
    assert not certificates.reload()
    os.utime(first.folder / "cert.pem", ns=(1, 1))
    assert certificates.reload()


SOON, LATER = (datetime(year, 5, 1, 12, 30, tzinfo=UTC) for year in (2090, 2095))


def told(certificates: ReloadingCertificates) -> dict[str, float]:
    """What /metrics shows: when each file ends."""
    (family,) = certificate_families(certificates)
    assert family.name == "erg_tls_certificate_expiry_timestamp_seconds"
    return {Path(sample.labels["file"]).name: sample.value for sample in family.samples}


@every_transport
async def test_metrics_tell_when_the_certificate_ends_that_a_renewal_brought(kind: str, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old", ends=SOON), Authority(tmp_path / "new", ends=LATER)
    certificates = ReloadingCertificates(old.files())
    async with serving(kind, certificates) as address:
        assert told(certificates) == {"cert.pem": SOON.timestamp()}
        renew(old, new)
        # The handshake has the new files read, whoever asks for metrics afterwards.
        async with new.channel(address, trusts=new) as channel:
            assert await live(channel)
        assert certificates.expiries == {old.folder / "cert.pem": LATER.timestamp()}


@every_transport
async def test_a_scrape_sees_a_renewal_that_no_connection_came_for(kind: str, tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old", ends=SOON), Authority(tmp_path / "new", ends=LATER)
    certificates = ReloadingCertificates(old.files())
    async with serving(kind, certificates) as address:
        renew(old, new)
        assert told(certificates) == {"cert.pem": LATER.timestamp()}
        # And what the scrape had read is what connections get.
        async with new.channel(address, trusts=new) as channel:
            assert await live(channel)


def test_files_that_cannot_be_used_leave_the_expiry_of_what_is_served(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old", ends=SOON), Authority(tmp_path / "new", ends=LATER)
    certificates = ReloadingCertificates(old.files())
    shutil.copy(new.folder / "cert.pem", old.folder / "cert.pem")
    assert told(certificates) == {"cert.pem": SOON.timestamp()}, "its key is not there yet"
    shutil.copy(new.folder / "key.pem", old.folder / "key.pem")
    assert told(certificates) == {"cert.pem": LATER.timestamp()}


def test_a_chain_ends_with_its_first_certificate_and_roots_with_their_last(first: Authority) -> None:
    for name, ends in (("later", LATER), ("soon", SOON)):
        Authority(first.folder / name, ends=ends)
    chain = first.folder / "cert.pem"
    chain.write_bytes(b"".join((first.folder / f"{name}/cert.pem").read_bytes() for name in ("later", "soon")))
    roots = first.folder / "root.pem"
    roots.write_bytes(b"".join((first.folder / f"{name}/cert.pem").read_bytes() for name in ("later", "soon")))
    assert first.files(mutual=True).expiries() == {chain: SOON.timestamp(), roots: LATER.timestamp()}


def test_a_certificate_that_only_openssl_reads_is_served_and_has_no_expiry(
    first: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    path = first.folder / "cert.pem"
    path.write_text(path.read_text().replace(" CERTIFICATE-----", " TRUSTED CERTIFICATE-----"))
    with caplog.at_level(logging.WARNING):
        certificates = ReloadingCertificates(first.files())
    assert told(certificates) == {}
    assert "nobody can tell when it expires" in caplog.text
