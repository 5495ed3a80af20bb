"""TLS without I/O: however the bytes of a client are cut and joined, what it said comes out whole, and at once."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_web.wire.tls import Tls

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")
RECORD = 16 * 1024
SIZES = st.sampled_from([1, 2, 100, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 3 * RECORD + 1, 70_000])
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Client:
    def __init__(self, version: ssl.TLSVersion) -> None:
        context = ssl.create_default_context()
        context.maximum_version = version
        AUTHORITY.configure_trust(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def connect(self) -> Tls:
        """Return the other end, with which the handshake is done."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        CERTIFICATE.configure_cert(context)
        server, done = Tls(context), False
        while not done:
            with suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            done = server.shake(self.outgoing.read())
            self.incoming.write(server.pending())
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return server

    def write(self, data: bytes) -> None:
        while data:
            data = data[self.tls.write(data) :]


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=100, deadline=None)
@given(
    said=st.lists(SIZES, max_size=4),
    cuts=st.lists(st.one_of(st.integers(0, 100), st.integers(0, 300_000)), max_size=6),
    leaves=st.booleans(),
)
def test_what_was_said_comes_out_whole(version: ssl.TLSVersion, said: list[int], cuts: list[int], leaves: bool) -> None:
    client = Client(version)
    server = client.connect()
    for number, size in enumerate(said):
        client.write(bytes([number]) * size)
    if leaves:
        with suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
    sent = client.outgoing.read()
    ends = sorted({min(cut, len(sent)) for cut in cuts} | {len(sent)})
    heard = b"".join(server.decrypt(sent[at:end]) for at, end in zip([0, *ends], ends, strict=False))

    assert heard == b"".join(bytes([number]) * size for number, size in enumerate(said))
    assert server.ended == leaves


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("whole", [0, 1, 3])
def test_what_is_cut_off_in_a_record_says_what_came_before(version: ssl.TLSVersion, whole: int) -> None:
    client = Client(version)
    server = client.connect()
    client.write(b"a" * whole * RECORD)
    first = client.outgoing.read()
    client.write(b"b" * 100)
    second = client.outgoing.read()

    assert server.decrypt(first + second[:50]) == b"a" * whole * RECORD
    assert server.decrypt(b"") == b""
    assert server.decrypt(second[50:]) == b"b" * 100
    assert not server.ended


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_no_record_is_refused(version: ssl.TLSVersion) -> None:
    server = Client(version).connect()

    with pytest.raises(ssl.SSLError):
        server.decrypt(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert server.pending()  # the alert that says so


@pytest.mark.parametrize("version", VERSIONS)
def test_both_ends_may_say_goodbye(version: ssl.TLSVersion) -> None:
    client = Client(version)
    server = client.connect()
    client.incoming.write(server.close())
    with suppress(ssl.SSLWantReadError):
        client.tls.unwrap()

    assert server.decrypt(client.outgoing.read()) == b""
    assert server.ended
