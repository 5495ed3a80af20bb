"""TLS and EXTERNAL with a real broker: who proves what to whom, and what is said where the proof is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from kernel_amqp import AmqpConfig, AmqpDriver
from kernel_amqp._errors import LinkError
from kernel_amqp._settings import link_settings
from kernel_amqp.link.link import open_link

from kernel import Ack, Envelope, Secret
from kernel._convert.structure import structure
from kernel.abc import Queue, Subscription, Topology
from kernel.errors import StartupError
from kernel.testing import fake_context, free_port

from ._node import Node, running_node, scripts

USER = "service.example"
STRANGER = "stranger.example"
SOON = 20.0
AUTHORITY = "its certificate is not accepted"

pytestmark = pytest.mark.slow


@attrs.frozen
class Place:
    """A node that speaks nothing but TLS to us, and the files with which to speak to it."""

    node: Node
    port: int
    folder: Path

    def config(
        self, *, ca: str = "ca", client: str = "", tls: dict[str, object] | None = None, **keys: object
    ) -> AmqpConfig:
        table: dict[str, object] = {"ca": str(self.folder / f"{ca}.pem"), **(tls or {})}
        if client:
            table["certificate"] = str(self.folder / f"{client}.pem")
        given: dict[str, object] = {"hosts": [f"localhost:{self.port}"], "backoff_max": 0.2, "tls": table, **keys}
        problems: list[object] = []
        config = structure(given, AmqpConfig, report=lambda *problem: problems.append(problem))
        assert isinstance(config, AmqpConfig), problems
        return config


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server: apt-get install rabbitmq-server")
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    authority, foreign = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    foreign.cert_pem.write_to_path(str(folder / "foreign.pem"))
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
    for name in (USER, STRANGER):
        authority.issue_cert(name, common_name=name).private_key_and_cert_chain_pem.write_to_path(
            str(folder / f"{name}.pem")
        )
    (folder / "rabbitmq.conf").write_text(
        f"""
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
"""
    )
    with running_node(folder, programs, plugins=("rabbitmq_auth_mechanism_ssl",)) as node:
        node.control("add_user", USER, "is never asked for")
        node.control("set_permissions", USER, ".*", ".*", ".*")
        yield Place(node, port, folder)


async def there_and_back(config: AmqpConfig) -> bytes:
    """Send a message over a connection and take it from its queue again."""
    async with AmqpDriver(config=config, context=fake_context("driver/rabbit")).open() as broker:
        await broker.declare(Topology(queues=[Queue(name="tls", dead_letters="")]))
        await broker.send(Envelope(subject="tls", body=b"tea"), exchange="")
        async with broker.subscribe(Subscription(queue="tls", prefetch=1)) as deliveries:
            delivery = await anext(deliveries)
            await delivery.settle(Ack())
        return delivery.envelope.body


async def refusal(config: AmqpConfig) -> str:
    """Return why no connection can be made."""
    with trio.fail_after(SOON), pytest.raises(LinkError) as caught:
        async with open_link(link_settings(config, name="rabbit", close_timeout=1.0)):
            raise AssertionError("it was let in")
    return str(caught.value)


async def test_a_message_goes_there_and_back_over_tls(place: Place) -> None:
    with trio.fail_after(SOON):
        assert await there_and_back(place.config(password=Secret("guest"))) == b"tea"


async def test_the_certificate_says_who_we_are(place: Place) -> None:
    with trio.fail_after(SOON):
        assert await there_and_back(place.config(client=USER, mechanism="EXTERNAL")) == b"tea"
        async with AmqpDriver(
            config=place.config(client=USER, mechanism="EXTERNAL"), context=fake_context("driver/rabbit")
        ).open():
            users = await trio.to_thread.run_sync(
                place.node.control, "list_connections", "--no-table-headers", "user", "auth_mechanism"
            )

    assert {tuple(line.split("\t")) for line in users.splitlines()} == {(USER, "EXTERNAL")}


@pytest.mark.parametrize("client", [STRANGER, ""], ids=["unknown", "none"])
async def test_a_certificate_of_nobody_is_refused(place: Place, client: str) -> None:
    with trio.fail_after(SOON), pytest.raises(StartupError, match="EXTERNAL"):
        await there_and_back(place.config(client=client, mechanism="EXTERNAL"))


async def test_a_broker_that_another_authority_vouches_for_is_not_spoken_to(place: Place) -> None:
    said = await refusal(place.config(ca="foreign", password=Secret("guest")))

    assert AUTHORITY in said


async def test_a_broker_of_another_name_is_not_spoken_to(place: Place) -> None:
    said = await refusal(place.config(tls={"server_name": "elsewhere.example"}, password=Secret("guest")))

    assert "elsewhere.example" in said


async def test_without_verification_any_broker_is_spoken_to(place: Place) -> None:
    config = place.config(ca="foreign", tls={"verify": False}, password=Secret("guest"))
    with trio.fail_after(SOON):
        assert await there_and_back(config) == b"tea"
