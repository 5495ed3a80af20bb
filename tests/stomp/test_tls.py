"""A RabbitMQ that speaks STOMP over TLS: it must prove who it is, and its user what he knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trustme
from kernel_stomp import LoginRefusedError, StompConfig, StompDriver
from kernel_stomp._config import TlsTable
from kernel_stomp._errors import LinkError
from kernel_stomp._settings import link_settings
from kernel_stomp.link.connect import join

from kernel import Ack, Envelope, Secret
from kernel.abc import Queue, Subscription, Topology
from kernel.testing import fake_context, free_port

from ..amqp._node import running_node, scripts
from .conftest import Server

pytestmark = pytest.mark.slow


@attrs.frozen
class Encrypted:
    """Where it is, and whom to trust."""

    port: int
    authority: Path


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    folder, port, authority = tmp_path_factory.mktemp("tls"), free_port(), trustme.CA()
    own = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    own.private_key_pem.write_to_path(str(folder / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    files = {"cacertfile": "ca.pem", "certfile": "cert.pem", "keyfile": "key.pem"}
    options = [f"ssl_options.{name} = {folder / file}" for name, file in files.items()]
    lines = ["stomp.listeners.tcp = none", f"stomp.listeners.ssl.1 = 127.0.0.1:{port}", *options]
    (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
    with running_node(folder, programs, plugins=("rabbitmq_stomp",)):
        yield Encrypted(port, folder / "ca.pem")


def config_of(encrypted: Encrypted, authority: Path | None = None, *, server_name: str = "") -> StompConfig:
    tls = TlsTable(ca=str(authority or encrypted.authority), server_name=server_name)
    return StompConfig(hosts=(f"127.0.0.1:{encrypted.port}",), tls=tls)


async def test_messages_go_over_an_encrypted_connection(encrypted: Encrypted) -> None:
    body = bytes(range(256)) * 4000
    async with StompDriver(config=config_of(encrypted), context=fake_context("driver/q")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name="over-tls")]))
        await broker.send(Envelope(subject="over-tls", body=body), exchange="")
        async with broker.subscribe(Subscription(queue="over-tls", prefetch=1)) as deliveries:
            delivery = await anext(deliveries)
            await delivery.settle(Ack())

    assert delivery.envelope.body == body


async def test_a_server_that_nobody_trusts_is_not_talked_to(encrypted: Encrypted, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pem"
    trustme.CA().cert_pem.write_to_path(str(foreign))

    with pytest.raises(LinkError, match="certificate is not accepted"):
        await join(link_settings(config_of(encrypted, foreign)))


async def test_nor_is_one_of_another_name(encrypted: Encrypted) -> None:
    with pytest.raises(LinkError, match="certificate is not accepted"):
        await join(link_settings(config_of(encrypted, server_name="elsewhere.example")))


async def test_a_server_in_the_clear_is_not_taken_for_one_with_tls(encrypted: Encrypted, rabbit: Server) -> None:
    with pytest.raises(LinkError, match="TLS"):
        await join(link_settings(config_of(Encrypted(rabbit.port, encrypted.authority))))


@pytest.mark.parametrize("wrong", [{"passcode": Secret("hunter2")}, {"host": "elsewhere"}])
async def test_a_login_that_is_refused_ends_the_start(server: Server, wrong: dict[str, object]) -> None:
    if server.kind == "activemq" and "host" in wrong:
        pytest.skip("ActiveMQ does not look at the header `host`")
    config = StompConfig(
        server="rabbitmq" if server.kind == "rabbitmq" else "activemq",
        hosts=(f"127.0.0.1:{server.port}",),
        **wrong,  # type: ignore[arg-type]
    )

    with pytest.raises(LoginRefusedError) as caught:
        async with StompDriver(config=config, context=fake_context("driver/q")).open():
            pass
    assert "hunter2" not in str(caught.value)
