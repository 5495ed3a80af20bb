"""What proxies say of their clients: `Forwarded`, and the PROXY protocol."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme
from kernel_web import CertificateConfig, TlsConfig, WebConfig
from kernel_web.asgi.peers import Proxies
from kernel_web.wire.proxy import (
    BYTES_MAX,
    SIGNATURE,
    BrokenIntroductionError,
    Introduction,
    length_of,
    parse_introduction,
)

GET = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def show(scope: Any, receive: Any, send: Any) -> None:
    text = f"{scope['client']} {scope['server']} {scope['scheme']}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


# --- Forwarded (RFC 7239) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "client", "scheme"),
    [
        (["for=203.0.113.7;proto=https"], "203.0.113.7", "https"),
        (["For=203.0.113.7 ; PROTO=HTTPS"], "203.0.113.7", "https"),
        (["for=6.6.6.6;proto=https, for=203.0.113.7;proto=http"], "203.0.113.7", "http"),
        (["for=203.0.113.7;proto=https", "for=10.0.0.2;proto=http"], "203.0.113.7", "https"),
        (['for="[2001:db8::1]:4711"'], "2001:db8::1", None),
        (['for="203.0.113.7:80";by=10.0.0.1;host="a,b;c"'], "203.0.113.7", None),
        (['for="203.0.\\113.7"'], "203.0.113.7", None),
        (['for=1.1.1.1, for="unknown, for=2.2.2.2"'], None, None),
        (["for=1.1.1.1, for=_hidden;proto=https"], None, "https"),
        (["for=1.1.1.1, for=unknown, for=10.0.0.9"], "10.0.0.9", None),
        (['for=1.1.1.1, for="2.2.2.2'], None, None),
        (["for=1.1.1.1, for 2.2.2.2"], None, None),
        (["for=203.0.113.7,"], None, None),
        (["proto=gopher;for=203.0.113.7"], "203.0.113.7", None),
        (["for=203.0.113.7;for=6.6.6.6"], "203.0.113.7", None),
        ([], None, None),
    ],
)
def test_forwarded_is_read_from_the_end(fields: list[str], client: str | None, scheme: str | None) -> None:
    proxies = Proxies(["10.0.0.0/8"], "forwarded")
    told = proxies.told([(b"forwarded", field.encode()) for field in fields])

    assert (told.get("client", (None,))[0], told.get("scheme")) == (client, scheme)


@pytest.mark.parametrize(
    ("kind", "header", "each"),
    [("x-forwarded", b"x-forwarded-for", b"10.0.0.1"), ("forwarded", b"forwarded", b"for=10.0.0.1")],
)
def test_only_so_many_proxies_in_a_row_are_looked_at(kind: str, header: bytes, each: bytes) -> None:
    first = each.replace(b"10.0.0.1", b"6.6.6.6")
    near, far = (
        Proxies(["10.0.0.0/8"], kind).told([(header, b",".join([first, *[each] * more]))]) for more in (31, 32)
    )

    assert near["client"] == ("6.6.6.6", 0)
    assert far["client"] == ("10.0.0.1", 0)


@pytest.mark.parametrize(
    ("kind", "client"), [("x-forwarded", "1.1.1.1"), ("forwarded", "2.2.2.2"), ("none", None)]
)  # fmt: skip
def test_only_the_header_that_proxies_write_is_believed(kind: str, client: str | None) -> None:
    told = Proxies(["10.0.0.0/8"], kind).told([(b"x-forwarded-for", b"1.1.1.1"), (b"forwarded", b"for=2.2.2.2")])

    assert told.get("client", (None,))[0] == client


# --- the PROXY protocol ----------------------------------------------------------------------------------------------


def binary(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(rest)) + rest


FOUR = socket.inet_aton("203.0.113.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4711, 443)
SIX = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "::1")
    + struct.pack("!HH", 1, 2)
)
CLIENT = ("203.0.113.7", 4711)
TLV = b"\x04\x00\x01x"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", Introduction(CLIENT, ("10.0.0.1", 443))),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Introduction(("2001:db8::1", 1), ("::1", 2))),
        (b"PROXY UNKNOWN\r\n", Introduction()),
        (b"PROXY UNKNOWN what ever it says\r\n", Introduction()),
        (binary(0x21, 0x11, FOUR), Introduction(CLIENT, ("10.0.0.1", 443))),
        (binary(0x21, 0x21, SIX), Introduction(("2001:db8::1", 1), ("::1", 2))),
        (binary(0x21, 0x11, FOUR + TLV), Introduction(CLIENT, ("10.0.0.1", 443))),
        (binary(0x21, 0x11, FOUR + TLV + b"\x20\x00\x05\x01\0\0\0\0"), Introduction(CLIENT, ("10.0.0.1", 443), True)),
        (binary(0x21, 0x11, FOUR + b"\x20\x00\x05\x00\0\0\0\0"), Introduction(CLIENT, ("10.0.0.1", 443))),
        (binary(0x20, 0x00, b""), Introduction()),
        (binary(0x20, 0x11, FOUR), Introduction()),
        (binary(0x21, 0x00, b""), Introduction()),
        (binary(0x21, 0x31, b"x" * 216), Introduction()),
    ],
)
def test_a_header_says_who_the_client_is(data: bytes, expected: Introduction) -> None:
    cuts = {length_of(data[:at]) for at in range(len(data))} - {None}

    assert cuts <= {len(data)}
    assert length_of(data + GET) == len(data)
    assert parse_introduction(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        GET,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
        b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n",
        b"PROXY " + b"x" * 200,
        b"PROXY UNKNOWN" + b" " * 200 + b"\r\n",
        binary(0x11, 0x11, FOUR),
        binary(0x22, 0x11, FOUR),
        binary(0x21, 0x11, FOUR[:-1]),
        binary(0x21, 0x21, FOUR),
        binary(0x21, 0x11, FOUR + b"\x20\x00\x09\x01"),
        binary(0x21, 0x11, FOUR + b"x" * BYTES_MAX),
        SIGNATURE[:-1] + b"x" + bytes(10),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenIntroductionError):
        parse_introduction(data[: length_of(data)])


LINE = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"
TRUSTED = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"], "header_timeout": 0.2}


@pytest.mark.parametrize(
    "parts",
    [
        [LINE + GET],
        [LINE, GET],
        [LINE[:1], LINE[1:20], LINE[20:-1], LINE[-1:] + GET],
        [binary(0x21, 0x11, FOUR)[:13], binary(0x21, 0x11, FOUR)[13:] + GET],
    ],
    ids=["one", "two", "cut", "binary"],
)
async def test_the_client_of_a_proxy_is_in_the_scope(web: Any, parts: list[bytes]) -> None:
    async with web(show, **TRUSTED) as service, await service.connect() as stream:
        for part in parts:
            await stream.send_all(part)
            await trio.testing.wait_all_tasks_blocked(0.001)
        answer = b"".join([chunk async for chunk in stream])

    assert answer.endswith(b"('203.0.113.7', 4711) ('10.0.0.1', 443) http")


@pytest.mark.parametrize(
    ("opening", "config"),
    [
        (GET, {}),
        (LINE[:-1] + b"x" + GET, {}),
        (LINE + GET, {"trusted_proxies": ["10.0.0.0/8", "unix"]}),
        (b"", {}),
        (LINE[:10], {}),
    ],
    ids=["none", "broken", "from a stranger", "silence", "half"],
)
async def test_who_does_not_say_so_is_not_served(web: Any, opening: bytes, config: dict[str, Any]) -> None:
    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["type"])

    async with web(app, **{**TRUSTED, **config}) as service, await service.connect() as stream:
        await stream.send_all(opening)
        with trio.fail_after(4):
            said = await drained(stream)
        await service.wait_connections(0)

    assert said == b""
    assert called == []


@pytest.mark.parametrize("opening", [b"", LINE[:9], LINE, LINE + b"GET / HT"])
@pytest.mark.parametrize("is_encrypted", [True, False])
async def test_a_stop_waits_for_no_introduction(
    web: Any, authority: trustme.CA, tmp_path: Any, opening: bytes, is_encrypted: bool
) -> None:
    tls = {"tls": tls_of(authority, tmp_path)} if is_encrypted else {}
    async with (
        web(show, stop_timeout=60, **{**TRUSTED, "header_timeout": 60}, **tls) as service,
        await service.connect() as stream,
    ):
        await stream.send_all(opening)
        await service.wait_connections(1)
        took = await service.stop()

    assert took < 5
    assert service.logs == []


async def drained(stream: trio.SocketStream) -> bytes:
    try:
        return b"".join([chunk async for chunk in stream])
    except trio.BrokenResourceError:
        return b""


async def test_a_header_of_a_client_is_only_bytes_where_none_is_expected(web: Any) -> None:
    async with web(show) as service:
        said = await service.ask(LINE + GET)

    assert said.startswith(b"HTTP/1.1 400 ")


def test_somebody_must_be_trusted() -> None:
    assert [problem.partition(":")[0] for problem in WebConfig(proxy_protocol=True).problems()] == ["proxy_protocol"]


# --- with TLS, and certificates for several names --------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def files(authority: trustme.CA, folder: Any, *names: str) -> CertificateConfig:
    issued = authority.issue_cert(*names)
    cert, key = folder / f"{names[0]}.pem", folder / f"{names[0]}.key"
    issued.private_key_pem.write_to_path(str(key))
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return CertificateConfig(cert=str(cert), key=str(key))


def tls_of(authority: trustme.CA, folder: Any) -> TlsConfig:
    default = files(authority, folder, "localhost")
    names = {
        "shop.example.org": files(authority, folder, "shop.example.org"),
        "*.example.net": files(authority, folder, "all.example.net", "*.example.net"),
    }
    return TlsConfig(cert=default.cert, key=default.key, names=names)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("localhost", "localhost"),
        ("shop.example.org", "shop.example.org"),
        ("SHOP.example.org", "shop.example.org"),
        ("a.example.net", "all.example.net"),
        ("a.b.example.net", "localhost"),
        ("example.net", "localhost"),
        ("other.example.org", "localhost"),
        (None, "localhost"),
    ],
)
async def test_a_name_gets_its_own_certificate(
    web: Any, authority: trustme.CA, tmp_path: Any, asked: str | None, shown: str
) -> None:
    client = ssl.create_default_context()
    authority.configure_trust(client)
    client.check_hostname = False
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with web(show, tls=tls_of(authority, tmp_path)) as service:
        stream = trio.SSLStream(await service.connect(), client, server_hostname=asked)
        async with stream:
            await stream.do_handshake()
            names = [value for _, value in stream.getpeercert()["subjectAltName"]]
            agreed = stream.selected_alpn_protocol()

    assert names[0] == shown
    assert agreed == "h2"


async def test_tls_comes_after_the_header(web: Any, authority: trustme.CA, tmp_path: Any) -> None:
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with web(show, tls=tls_of(authority, tmp_path), **TRUSTED) as service:
        plain = await service.connect()
        await plain.send_all(LINE)
        async with trio.SSLStream(plain, client, server_hostname="localhost", https_compatible=True) as stream:
            await stream.send_all(GET)
            answer = b"".join([chunk async for chunk in stream])

    assert answer.endswith(b"('203.0.113.7', 4711) ('10.0.0.1', 443) https")


@pytest.mark.parametrize("name", ["Shop.example.org", "a:1", "*", "", "a..b", "*.*.org"])
def test_a_name_that_cannot_be_asked_for_is_refused(name: str) -> None:
    some = CertificateConfig(cert="c", key="k")
    with pytest.raises(ValueError, match="must be a name"):
        attrs.evolve(TlsConfig(cert="c", key="k"), names={name: some})
