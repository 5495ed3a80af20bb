"""TLS and HTTP/2, with certificates made for the test."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives import serialization
from kernel_web import RequestDone, TlsConfig

from kernel import Secret
from kernel.errors import StartupError

BIG = b"x" * 16384


class Keys:
    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        certificate = self.ca.issue_cert("localhost", "127.0.0.1")
        self.cert, self.key = str(folder / "cert.pem"), str(folder / "key.pem")
        certificate.private_key_pem.write_to_path(self.key)
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)
        self.authorities = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.authorities)

    @property
    def config(self) -> TlsConfig:
        return TlsConfig(cert=self.cert, key=self.key)

    def client(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body or f"{scope['scheme']} {scope['http_version']}".encode()})


@pytest.mark.parametrize(
    ("http2", "h2_on", "expected"), [(True, True, "2"), (True, False, "1.1"), (False, True, "1.1")]
)
async def test_the_version_is_agreed_on(web: Any, keys: Keys, http2: bool, h2_on: bool, expected: str) -> None:
    async with (
        web(echo, tls=keys.config, h2=h2_on) as service,
        httpx.AsyncClient(base_url=service.url, verify=keys.client(), http2=http2) as client,
    ):
        response = await client.get("/")

    assert service.url.startswith("https://")
    assert response.text == f"https {expected}"


@pytest.mark.slow
async def test_many_streams_share_a_connection(web: Any, keys: Keys) -> None:
    bodies: list[bytes] = []
    async with (
        web(echo, tls=keys.config, concurrency=3) as service,
        httpx.AsyncClient(base_url=service.url, verify=keys.client(), http2=True) as client,
    ):

        async def post(size: int) -> None:
            bodies.append((await client.post("/", content=b"b" * size)).content)

        async with trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(post, number * 20_000)
        connections = service.connections

    assert sorted(map(len, bodies)) == [number * 20_000 for number in range(1, 9)]
    assert connections == 1


class H2Client:
    """A client of one connection that does only what it is told."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.protocol.initiate_connection()

    async def request(self, *, method: str = "GET", end: bool = True, extra: Any = ()) -> int:
        stream_id = self.protocol.get_next_available_stream_id()
        headers = [(":method", method), (":path", "/"), (":scheme", "https"), (":authority", "a"), *extra]
        self.protocol.send_headers(stream_id, headers, end_stream=end)
        await self.flush()
        return stream_id

    async def flush(self) -> None:
        await self.stream.send_all(self.protocol.data_to_send())

    async def until(self, kind: type[Any], stream_id: int | None = None) -> Any:
        with trio.fail_after(4):
            while data := await self.stream.receive_some():
                for event in self.protocol.receive_data(bytes(data)):
                    if isinstance(event, kind) and stream_id in {None, getattr(event, "stream_id", None)}:
                        await self.flush()
                        return event
                await self.flush()
        raise AssertionError(f"no {kind.__name__}")


async def open_h2(service: Any, keys: Keys) -> H2Client:
    stream = await service.connect()
    tls = trio.SSLStream(stream, keys.client("h2"), server_hostname="localhost", https_compatible=True)
    await tls.do_handshake()
    return H2Client(tls)


async def test_an_application_that_fails_half_way_resets_only_its_stream(web: Any, keys: Keys) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError

    async with web(app, tls=keys.config) as service:
        client = await open_h2(service, keys)
        failing = await client.request(method="POST")
        reset = await client.until(h2.events.StreamReset, failing)
        fine = await client.request()
        await client.until(h2.events.StreamEnded, fine)
        await trio.aclose_forcefully(client.stream)

    assert reset.error_code == 2


async def test_a_body_over_the_limit_does_not_hurt_the_connection(web: Any, keys: Keys) -> None:
    async with web(echo, tls=keys.config, max_body_bytes=20_000) as service:
        client = await open_h2(service, keys)
        large = await client.request(method="POST", end=False)
        for _ in range(3):
            client.protocol.send_data(large, BIG)
        await client.flush()
        response = await client.until(h2.events.ResponseReceived, large)
        fine = await client.request()
        await client.until(h2.events.StreamEnded, fine)
        await trio.aclose_forcefully(client.stream)

    assert dict(response.headers)[":status"] == "413"


async def test_a_stalled_body_times_out_alone(web: Any, keys: Keys) -> None:
    async with web(echo, tls=keys.config, body_timeout=0.1) as service:
        client = await open_h2(service, keys)
        stalled = await client.request(method="POST", end=False)
        response = await client.until(h2.events.ResponseReceived, stalled)
        fine = await client.request()
        await client.until(h2.events.StreamEnded, fine)
        await trio.aclose_forcefully(client.stream)

    assert dict(response.headers)[":status"] == "408"


async def test_a_stream_whose_window_stays_shut_is_reset(web: Any, keys: Keys) -> None:
    ended = trio.Event()

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": BIG, "more_body": True})
        finally:
            ended.set()

    async with web(flood, tls=keys.config, write_timeout=0.1) as service:
        client = await open_h2(service, keys)
        stream_id = await client.request()
        await client.until(h2.events.StreamReset, stream_id)
        with trio.fail_after(4):
            await ended.wait()
        await trio.aclose_forcefully(client.stream)

    assert service.logs == []


async def test_a_stop_says_goodbye_and_lets_streams_finish(web: Any, keys: Keys) -> None:
    release = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await echo(scope, receive, send)

    async with web(app, tls=keys.config, stop_timeout=10) as service:
        client = await open_h2(service, keys)
        stream_id = await client.request()
        await service.intake.wait(lambda intake: intake.active)
        await service.stop_accepting()
        # h2 of the client would refuse to read on after a GOAWAY, so only the bytes are looked at.
        with trio.fail_after(4):
            goodbye = await client.stream.receive_some()
            while b"\x07" not in goodbye:
                goodbye += await client.stream.receive_some()
            release.set()
            rest = b""
            while data := await client.stream.receive_some():
                rest += data
        took = await service.stop()
        await trio.aclose_forcefully(client.stream)

    assert stream_id == 1
    assert b"https 2" in rest
    assert took < 5


@pytest.mark.slow
async def test_a_flood_of_resets_costs_little_and_others_are_served(web: Any, keys: Keys) -> None:
    most = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await trio.sleep(0.05)
        await echo(scope, receive, send)

    async with web(app, tls=keys.config) as service:
        client = await open_h2(service, keys)
        (connection,) = service.dispatcher._server.connections
        for _ in range(30):
            for _ in range(20):
                client.protocol.reset_stream(await client.request(method="POST"))
            await client.flush()
            await trio.lowlevel.checkpoint()
            most = max(most, len(connection._speaker._running))
        async with httpx.AsyncClient(base_url=service.url, verify=keys.client()) as other:
            response = await other.get("/")
        await trio.aclose_forcefully(client.stream)

    assert response.status_code == 200
    assert most <= 200


@pytest.mark.slow
async def test_requests_that_run_on_after_their_reset_are_limited(web: Any, keys: Keys) -> None:
    started = 0

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        nonlocal started
        started += 1
        await trio.sleep_forever()

    async with web(stubborn, tls=keys.config, concurrency=1000) as service:
        client = await open_h2(service, keys)
        with trio.fail_after(4), pytest.raises(trio.BrokenResourceError):  # noqa: PT012  any of them
            while True:
                for _ in range(20):
                    client.protocol.reset_stream(await client.request())
                await client.flush()
        await service.stop_accepting()
        await trio.aclose_forcefully(client.stream)

    assert 100 < started <= 200


async def test_headers_over_the_limit_are_refused(web: Any, keys: Keys) -> None:
    async with web(echo, tls=keys.config, max_header_bytes=1000) as service:
        client = await open_h2(service, keys)
        await client.request(extra=[("x", "y" * 3000)])
        event = await client.until(h2.events.ConnectionTerminated)
        await trio.aclose_forcefully(client.stream)

    assert event.error_code != 0


async def test_prior_knowledge_is_understood_if_it_is_allowed(web: Any) -> None:
    async with web(echo, h2c=True) as service:
        client = H2Client(await service.connect())
        stream_id = await client.request()
        data = await client.until(h2.events.DataReceived, stream_id)
        await client.stream.aclose()

    assert data.data == b"http 2"


@pytest.mark.parametrize(
    "opening", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01", b""], ids=["plain", "half", "none"]
)
async def test_a_handshake_that_fails_or_stalls_is_closed_quietly(web: Any, keys: Keys, opening: bytes) -> None:
    async with web(echo, tls=keys.config, header_timeout=0.1) as service, await service.connect() as client:
        await client.send_all(opening)
        await service.wait_connections(1) if opening != b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" else None
        await service.wait_connections(0)

    assert service.logs == []


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT"])
async def test_who_speaks_plainly_is_told_that_this_is_tls(web: Any, keys: Keys, method: bytes) -> None:
    async with web(echo, tls=keys.config) as service:
        answer = await service.ask(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")

    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-length: %d\r\n" % len(text) in head
    assert text == b"This address speaks TLS: ask with https.\n"
    done = [event for event in service.events if isinstance(event, RequestDone)]
    assert [(event.method, event.path, event.status, event.sent) for event in done] == [("-", "-", 400, len(text))]
    assert service.logs == []


class Hasty:
    """A client that says something in the segment that ends its handshake, as a busy machine makes of every client."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def say(self, data: bytes, *, leaves: bool) -> bytes:
        with trio.fail_after(4):
            while not self._shakes():
                await self.stream.send_all(self._outgoing.read())
                self._incoming.write(await self.stream.receive_some())
            if data:
                self._tls.write(data)
            if leaves:
                with pytest.raises(ssl.SSLWantReadError):
                    self._tls.unwrap()
            await self.stream.send_all(self._outgoing.read())
            return await self._read_all()

    def _shakes(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def _read_all(self) -> bytes:
        said = b""
        while received := await self.stream.receive_some():
            self._incoming.write(received)
            try:
                while piece := self._tls.read(1 << 16):
                    said += piece
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
        return said


def first_of_h2() -> bytes:
    protocol = h2.connection.H2Connection()
    protocol.initiate_connection()
    protocol.send_headers(
        1, [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")], end_stream=True
    )
    return protocol.data_to_send()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("opening", ["http1", "h2", "big", "half", "leaves", "says nothing"])
async def test_what_comes_right_behind_the_handshake_is_taken(
    web: Any, keys: Keys, opening: str, version: ssl.TLSVersion
) -> None:
    context = keys.client("h2" if opening == "h2" else "http/1.1")
    context.maximum_version = version
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    said = {
        "http1": head + b"\r\n",
        "h2": first_of_h2(),
        "big": head + b"Content-Length: 40000\r\n\r\n" + b"b" * 40_000,
        "half": b"GET / HT",
        "leaves": head + b"\r\n",
        "says nothing": b"",
    }[opening]
    async with (
        web(echo, tls=keys.config, h2=True, header_timeout=0.3, keep_alive_timeout=0.3) as service,
        await service.connect() as stream,
    ):
        answer = await Hasty(stream, context).say(said, leaves=opening in {"leaves", "says nothing"})
        await service.wait_connections(0)

    shown = {"http1": b"https 1.1", "leaves": b"https 1.1", "big": b"b" * 40_000, "h2": b"https 2"}
    assert shown.get(opening, b"") in answer
    assert bool(answer) == (opening in shown)
    assert service.logs == []


async def test_a_handshake_does_not_hold_the_stop(web: Any, keys: Keys) -> None:
    async with web(echo, tls=keys.config, stop_timeout=10) as service, await service.connect():
        await service.wait_connections(1)
        took = await service.stop()

    assert took < 5


@pytest.mark.slow
async def test_only_clients_with_a_certificate_are_let_in_if_there_is_an_authority(web: Any, keys: Keys) -> None:
    config = TlsConfig(cert=keys.cert, key=keys.key, ca=keys.authorities)
    known = keys.client()
    keys.ca.issue_cert("client@example.org").configure_cert(known)
    stranger = keys.client()
    trustme.CA().issue_cert("client@example.org").configure_cert(stranger)
    async with web(echo, tls=config) as service:
        async with httpx.AsyncClient(base_url=service.url, verify=known) as client:
            response = await client.get("/")
        for context in (stranger, keys.client()):
            with pytest.raises(httpx.TransportError):
                async with httpx.AsyncClient(base_url=service.url, verify=context) as client:
                    await client.get("/")

    assert response.status_code == 200
    assert service.logs == []


PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


async def test_a_client_with_an_expired_certificate_is_closed_quietly(web: Any, keys: Keys) -> None:
    config = TlsConfig(cert=keys.cert, key=keys.key, ca=keys.authorities)
    expired, valid = keys.client(), keys.client()
    keys.ca.issue_cert("client@example.org", not_after=PAST).configure_cert(expired)
    keys.ca.issue_cert("client@example.org").configure_cert(valid)
    async with web(echo, tls=config) as service:
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(base_url=service.url, verify=expired) as client:
                await client.get("/")
        await service.wait_connections(0)
        before = len(service.intake.entered)
        async with httpx.AsyncClient(base_url=service.url, verify=valid) as client:
            response = await client.get("/")

    assert before == 0
    assert response.status_code == 200
    assert service.logs == []


async def test_a_server_with_an_expired_certificate_closes_those_who_refuse_it_quietly(web: Any, keys: Keys) -> None:
    cert, key = keys.folder / "old.pem", keys.folder / "old.key"
    old = keys.ca.issue_cert("localhost", "127.0.0.1", not_after=PAST)
    old.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(blob.bytes() for blob in old.cert_chain_pems))
    async with web(echo, tls=TlsConfig(cert=str(cert), key=str(key))) as service:
        async with await service.connect() as client:
            tls = trio.SSLStream(client, keys.client(), server_hostname="localhost")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await tls.do_handshake()
        await service.wait_connections(0)

    assert "certificate has expired" in str(caught.value.__cause__)
    assert service.intake.entered == []
    assert [(log["level"], log["event"]) for log in service.logs] == [
        ("warning", "no client takes this certificate")  # of the start
    ]


async def test_a_client_that_never_reads_over_tls_does_not_hold_the_stop(web: Any, keys: Keys) -> None:
    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": BIG, "more_body": True})

    async with web(flood, tls=keys.config, h2=False, stop_timeout=2) as service:
        stream = trio.SSLStream(await service.connect(), keys.client(), server_hostname="localhost")
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await service.intake.wait(lambda intake: intake.active)
        (connection,) = service.dispatcher._server.connections
        with trio.fail_after(4):
            while not connection.channel.has_unsent:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.005)
        took = await service.stop(drain=0.05)
        await trio.aclose_forcefully(stream)

    assert took < 2


def encrypted(key: str, password: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    lock = serialization.BestAvailableEncryption(password)
    return loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


@pytest.mark.parametrize(
    ("wrong", "key", "reason"),
    [
        ("missing", "cert", "no such file or directory"),
        ("directory", "key", "is a directory"),
        ("not a certificate", "cert", "has no PEM certificate in it"),
        ("not a key", "key", "has no PEM private key in it"),
        ("damaged", "key", "cannot be loaded"),
        ("other key", "key", "does not belong to its certificate"),
        ("no password", "key", "does it need a key_password?"),
        ("wrong password", "key", "does it need another key_password?"),
        ("damaged authority", "ca", "is it damaged?"),
    ],
)
async def test_a_file_that_is_no_good_is_named(web: Any, keys: Keys, wrong: str, key: str, reason: str) -> None:
    bad = keys.folder / f"{wrong}.pem"
    kind = "CERTIFICATE" if key == "ca" else "PRIVATE KEY"
    contents = {
        "damaged": f"-----BEGIN {kind}-----\nnonsense\n-----END {kind}-----\n".encode(),
        "other key": keys.ca.issue_cert("other").private_key_pem.bytes(),
        "no password": encrypted(keys.key, b"hunter2"),
        "wrong password": encrypted(keys.key, b"hunter2"),
    }
    contents["damaged authority"] = contents["damaged"]
    bad.mkdir(exist_ok=True) if wrong == "directory" else bad.write_bytes(contents.get(wrong, b"nonsense"))
    bad.unlink() if wrong == "missing" else None
    password = Secret("swordfish") if wrong == "wrong password" else None
    paths = {"cert": keys.cert, "key": keys.key, "ca": "", key: str(bad)}
    with pytest.raises(BaseExceptionGroup) as caught:
        async with web(echo, tls=TlsConfig(**paths, key_password=password)):
            raise AssertionError

    (error,) = _leaves(caught.value)
    assert isinstance(error, StartupError)
    assert str(error).startswith(f'tls.{key} = "{bad}": ')
    assert reason in str(error)
    assert "swordfish" not in str(error)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


# --- renewal, and what applications are told ------------------------------------------------------------------------


async def shown(service: Any, context: ssl.SSLContext) -> bytes:
    """Return the certificate that a new connection is shown."""
    stream = trio.SSLStream(await service.connect(), context, server_hostname="localhost", https_compatible=True)
    try:
        await stream.do_handshake()
        certificate = stream.getpeercert(binary_form=True)
    finally:
        await trio.aclose_forcefully(stream)
    assert isinstance(certificate, bytes)
    return certificate


async def test_a_certificate_is_read_again_when_its_files_change(web: Any, tmp_path: Path) -> None:
    def say(name: str) -> None:
        fresh = ca.issue_cert("localhost", "127.0.0.1")
        fresh.private_key_pem.write_to_path(str(tmp_path / "key"))
        fresh.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
        (tmp_path / "name").write_text(name)

    ca, client = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(client)
    say("first")
    config = TlsConfig(cert=str(tmp_path / "cert"), key=str(tmp_path / "key"), reload=0.05)
    async with web(echo, tls=config) as service:
        first = await shown(service, client)
        (tmp_path / "cert").write_text("no certificate")
        await until_logged(service, "the new certificate is not taken")
        still = await shown(service, client)
        say("second")
        await until_logged(service, "the certificate was read again")
        with trio.fail_after(4):
            while await shown(service, client) == first:  # noqa: ASYNC110  key and certificate are two files
                await trio.sleep(0.05)

    assert still == first


async def until_logged(service: Any, event: str) -> None:
    with trio.fail_after(30):
        while event not in [log["event"] for log in service.logs]:  # noqa: ASYNC110  nothing tells
            await trio.sleep(0.01)


@pytest.mark.parametrize("http2", [False, True])
async def test_an_application_is_told_who_its_client_is(web: Any, keys: Keys, http2: bool) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["extensions"]["tls"])
        await echo(scope, receive, send)

    known = keys.client()
    keys.ca.issue_cert("client@example.org", common_name="a, b").configure_cert(known)
    config = TlsConfig(cert=keys.cert, key=keys.key, ca=keys.authorities, min_version="1.3")
    async with (
        web(app, tls=config) as service,
        httpx.AsyncClient(base_url=service.url, verify=known, http2=http2) as client,
    ):
        await client.get("/")

    assert seen[0]["client_cert_name"].startswith("CN=a\\, b,")
    assert seen[0]["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert seen[0]["tls_version"] == 0x0304


async def test_a_client_that_is_too_old_is_refused(web: Any, keys: Keys) -> None:
    old = keys.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with web(echo, tls=TlsConfig(cert=keys.cert, key=keys.key, min_version="1.3")) as service:
        with pytest.raises(trio.BrokenResourceError):
            await shown(service, old)

    assert service.logs == []


async def test_ciphers_that_nobody_knows_are_named(web: Any, keys: Keys) -> None:
    with pytest.RaisesGroup(StartupError, flatten_subgroups=True):
        async with web(echo, tls=TlsConfig(cert=keys.cert, key=keys.key, ciphers="NONE-SUCH")):
            pass


async def test_a_preface_that_is_wrong_ends_the_connection_and_says_why(web: Any, keys: Keys) -> None:
    async with web(echo, tls=keys.config) as service:
        stream = trio.SSLStream(await service.connect(), keys.client("h2"), server_hostname="localhost")
        await stream.send_all(b"INVALID CONNECTION PREFACE\r\n\r\n")
        with trio.fail_after(4):
            said = b"".join([chunk async for chunk in stream])
        await trio.aclose_forcefully(stream)

    assert said.endswith(b"\0\0\x08\7\0\0\0\0\0" + bytes(7) + b"\1")  # GOAWAY, PROTOCOL_ERROR


class ByHand:
    """A TLS client whose bytes leave when the test says so, in pieces that the test makes."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    async def shake_hands(self) -> None:
        """Do so, and keep back what would end it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.stream.send_all(self.outgoing.read())
                self.incoming.write(await self.stream.receive_some())
            else:
                return

    async def flush(self) -> None:
        await self.stream.send_all(self.outgoing.read())

    async def read_all(self) -> bytes:
        said = b""
        with trio.fail_after(4):
            async for data in self.stream:
                self.incoming.write(data)
                try:
                    while piece := self.tls.read():
                        said += piece
                except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    pass
        return said


GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def test_what_is_no_tls_behind_a_handshake_ends_the_connection(web: Any, keys: Keys) -> None:
    async with web(echo, tls=keys.config) as service, await service.connect() as stream:
        client = ByHand(stream, keys.client("http/1.1"))
        await client.shake_hands()
        await stream.send_all(client.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        await service.wait_connections(0)

    assert service.logs == []


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_stop_in_a_handshake_drops_nothing_that_was_asked(web: Any, keys: Keys, is_whole: bool) -> None:
    async with web(echo, tls=keys.config) as service, await service.connect() as stream:
        client = ByHand(stream, keys.client("http/1.1"))
        await client.shake_hands()
        await trio.testing.wait_all_tasks_blocked()
        if is_whole:
            client.tls.write(GET_AND_CLOSE)
            await client.flush()
        service.accepting.cancel()
        said = await client.read_all()

    assert said[:12] == (b"HTTP/1.1 200" if is_whole else b"")
    assert service.logs == []


@pytest.mark.parametrize("ending", ["error", "no error", "closed"])
async def test_a_body_that_nobody_reads_is_dropped_in_silence_when_its_client_ends(
    web: Any, keys: Keys, ending: str
) -> None:
    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()

    release = trio.Event()
    async with web(waits, tls=keys.config, body_buffer_bytes=0) as service:
        client = await open_h2(service, keys)
        stream_id = await client.request(method="POST", end=False)
        client.protocol.send_data(stream_id, b"x" * 1000)
        await client.flush()
        await service.intake.wait(lambda intake: intake.active)
        if ending == "closed":
            await client.stream.aclose()
        else:
            client.protocol.close_connection(error_code=2 if ending == "error" else 0)
            await client.flush()
        await trio.testing.wait_all_tasks_blocked(0.01)
        release.set()
        await service.intake.wait(lambda intake: not intake.active)
        await trio.aclose_forcefully(client.stream)
        await service.wait_connections(0)

    assert [log for log in service.logs if log["event"] != "the application returned without a complete answer"] == []
