"""Making a connection: hosts, TLS, login, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import attrs
import pytest
import trio
import trustme
from kernel_amqp._errors import LinkError, LoginRefusedError
from kernel_amqp.core import Settings
from kernel_amqp.link.connect import LinkSettings, shake_hands
from kernel_amqp.link.link import open_link
from pamqp import commands, header
from trio.testing import memory_stream_pair

from kernel.testing import free_port

from ..peer import Peer
from ..relay import open_relay
from ..scripted import SETTINGS, WHERE

GUEST = Settings(response="\0guest\0guest")
PASSWORD = "hunter2-canary"


def settings(host: str, port: int, **others: Any) -> LinkSettings:
    return LinkSettings(hosts=((host, port),), **{"core": GUEST, **others})


@asynccontextmanager
async def scripted(script: Callable[[Peer], Any]) -> AsyncGenerator[trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(script, Peer(theirs))
        async with ours:
            yield ours
        nursery.cancel_scope.cancel()


async def test_external_sends_its_mechanism_and_no_secret(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(peer.welcome)
        await shake_hands(ours, WHERE, Settings(mechanism="EXTERNAL"))
    assert peer.login is not None
    assert (peer.login.mechanism, peer.login.response) == ("EXTERNAL", "")


async def test_plain_sends_user_and_password(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = memory_stream_pair()
    peer = Peer(theirs)
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(peer.welcome)
        await shake_hands(ours, WHERE, SETTINGS)
    assert peer.login is not None
    assert (peer.login.mechanism, peer.login.response) == ("PLAIN", "\0guest\0guest")


async def test_peer_that_lacks_our_mechanism_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        peer.mechanisms = "AMQPLAIN"
        with pytest.raises((EOFError, AssertionError)):
            await peer.welcome()

    async with scripted(script) as stream:
        with pytest.raises((LinkError, LoginRefusedError), match=r"EXTERNAL|AMQPLAIN"):
            await shake_hands(stream, WHERE, Settings(mechanism="EXTERNAL"))


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (403, "ACCESS_REFUSED - Login was refused", LoginRefusedError),
        (530, "NOT_ALLOWED - vhost x not found", LoginRefusedError),
        (530, "NOT_ALLOWED - access to vhost refused: connection limit (3) is reached", LinkError),
        (541, "INTERNAL_ERROR", LinkError),
    ],
)
async def test_refusals_are_told_by_code(
    code: int, text: str, kind: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(header.ProtocolHeader)
        start = commands.Connection.Start(server_properties={}, mechanisms="PLAIN", locales="en_US")
        await peer.send(start, channel=0)
        await peer.expect(commands.Connection.StartOk)
        await peer.send(commands.Connection.Close(code, text, 0, 0), channel=0)
        await peer.expect(commands.Connection.CloseOk)

    async with scripted(script) as stream:
        with pytest.raises(kind, match=rf"peer:5672.*{code}") as caught:
            await shake_hands(stream, WHERE, Settings(response=f"\0guest\0{PASSWORD}"))
    assert type(caught.value) is kind
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"\x01\x00\x00"])
async def test_what_is_no_broker_is_an_error(words: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(header.ProtocolHeader)
        if words:
            await peer.stream.send_all(words)
        await peer.stream.aclose()

    async with scripted(script) as stream:
        with pytest.raises(LinkError, match=r"peer:5672"):
            await shake_hands(stream, WHERE, SETTINGS)


async def test_refused_port_is_named() -> None:
    port = free_port()
    with pytest.raises(LinkError, match=rf"127.0.0.1:{port} cannot be reached: Connection refused"):
        async with open_link(settings("127.0.0.1", port)):
            pass


@pytest.mark.slow
async def test_silent_host_is_given_up_after_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = trio.current_time()
        with pytest.raises(LinkError, match=rf"127.0.0.1:{port} did not open a connection within 0.3 s"):
            async with open_link(settings("127.0.0.1", port, connect_timeout=0.3)):
                pass
    assert trio.current_time() - began < 1.0


@pytest.mark.parametrize(("heartbeat", "seconds"), [(1.0, 2), (3.0, 4), (60.0, 10), (0.0, 10)])
async def test_an_attempt_takes_at_most_two_heartbeats(
    heartbeat: float, seconds: float, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect_never(*_: object) -> NoReturn:
        await trio.sleep_forever()

    monkeypatch.setattr("trio.open_tcp_stream", connect_never)
    core = attrs.evolve(GUEST, heartbeat=heartbeat)
    with pytest.raises(LinkError, match=rf"did not open a connection within {seconds} s"):
        async with open_link(LinkSettings(hosts=(("nowhere", 1),), core=core)):
            pass
    assert trio.current_time() == pytest.approx(seconds)


async def test_hosts_are_tried_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def refuse(host: str, _port: int) -> NoReturn:
        tried.append(host)
        await trio.lowlevel.checkpoint()
        raise OSError

    monkeypatch.setattr("trio.open_tcp_stream", refuse)
    for _ in range(200):
        with pytest.raises(LinkError):
            async with open_link(LinkSettings(hosts=(("a", 1), ("b", 1), ("c", 1)), core=GUEST)):
                pass

    assert len({"".join(tried[at : at + 3]) for at in range(0, len(tried), 3)}) == 6


async def test_next_host_is_tried_when_one_is_down(rabbitmq: tuple[str, int]) -> None:
    for _ in range(5):  # the first is chosen at random
        async with open_link(LinkSettings(hosts=(("127.0.0.1", free_port()), rabbitmq), core=GUEST)) as link:
            assert link.where == f"{rabbitmq[0]}:{rabbitmq[1]}"


async def test_error_names_every_host() -> None:
    ports = free_port(), free_port()
    with pytest.raises(LinkError) as caught:
        async with open_link(LinkSettings(hosts=tuple(("127.0.0.1", port) for port in ports), core=GUEST)):
            pass
    assert all(f"127.0.0.1:{port}" in str(caught.value) for port in ports)


@pytest.mark.slow
async def test_wrong_password_is_refused_without_being_told(rabbitmq: tuple[str, int]) -> None:
    with pytest.raises(LoginRefusedError, match=r"403") as caught:
        async with open_link(settings(*rabbitmq, core=Settings(response=f"\0guest\0{PASSWORD}"))):
            pass
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(settings(*rabbitmq, core=Settings(response=f"\0guest\0{PASSWORD}")))


async def test_unknown_virtual_host_is_refused(rabbitmq: tuple[str, int]) -> None:
    core = Settings(response="\0guest\0guest", virtual_host="no-such-host")
    with pytest.raises(LoginRefusedError, match=r"530 .*no-such-host"):
        async with open_link(settings(*rabbitmq, core=core)):
            pass


class Keys:
    """A certificate of a server, and clients that trust its issuer or another."""

    def __init__(self, name: str = "127.0.0.1", *, is_expired: bool = False) -> None:
        self.ca = trustme.CA()
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        issued = self.ca.issue_cert(name, not_after=past if is_expired else None)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(self.server)

    @property
    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


async def test_tls_carries_a_connection(rabbitmq: tuple[str, int]) -> None:
    keys = Keys()
    async with (
        open_relay(rabbitmq, keys.server) as relay,
        open_link(settings("127.0.0.1", relay.port, tls=keys.client)) as link,
        link.open_channel() as channel,
    ):
        answer = await channel.call(commands.Basic.Qos(prefetch_count=1))
        assert isinstance(answer, commands.Basic.QosOk)


async def test_certificate_may_be_for_the_server_name_that_is_given(rabbitmq: tuple[str, int]) -> None:
    keys = Keys("broker.example.org")
    async with open_relay(rabbitmq, keys.server) as relay:
        given = settings("127.0.0.1", relay.port, tls=keys.client, server_name="broker.example.org")
        async with open_link(given) as link:
            assert link.lost is None


@pytest.mark.parametrize(
    ("server", "client", "text"),
    [
        (Keys("other.example.org"), None, "not valid for '127.0.0.1'"),
        (Keys(is_expired=True), None, "expired"),
        (Keys(), Keys().client, "issuer"),
    ],
    ids=["wrong name", "expired", "unknown authority"],
)
async def test_certificate_that_is_not_accepted_is_one_error(
    server: Keys, client: ssl.SSLContext | None, text: str, rabbitmq: tuple[str, int]
) -> None:
    async with open_relay(rabbitmq, server.server) as relay:
        with pytest.raises(LinkError, match=rf"127.0.0.1:{relay.port}: its certificate is not accepted: .*{text}"):
            async with open_link(settings("127.0.0.1", relay.port, tls=client or server.client)):
                pass


async def test_tls_to_a_port_in_the_clear_is_one_error(rabbitmq: tuple[str, int]) -> None:
    with pytest.raises(LinkError, match=r"TLS"):
        async with open_link(settings(*rabbitmq, tls=Keys().client)):
            pass


async def test_clear_text_to_a_port_of_tls_is_one_error(rabbitmq: tuple[str, int]) -> None:
    async with open_relay(rabbitmq, Keys().server) as relay:
        with pytest.raises(LinkError, match=r"TLS|broke"):
            async with open_link(settings("127.0.0.1", relay.port)):
                pass
