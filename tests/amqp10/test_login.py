"""Who we are, and who the broker is: mechanisms of SASL, and TLS that is verified."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from kernel_amqp10 import LoginRefusedError
from kernel_amqp10._config import Amqp10TlsTable
from kernel_amqp10._errors import LinkError
from kernel_amqp10._settings import link_settings
from kernel_amqp10.link.connect import join
from kernel_amqp10.link.proton import load

from kernel import Ack, Envelope, Secret, new_id
from kernel.abc import Queue, Subscription, Topology

from ._node import Amqp10Node

pytestmark = pytest.mark.slow


async def there_and_back(rabbit: Amqp10Node, **how: Any) -> bytes:
    name = f"login-{new_id()}"
    with trio.fail_after(20):
        async with rabbit.open(**how) as broker:
            await broker.declare(Topology(queues=[Queue(name=name)]))
            await broker.send(Envelope(subject=name, body=b"x"), exchange="", mandatory=True)
            async with broker.subscribe(Subscription(queue=name, prefetch=1)) as deliveries:
                delivery = await anext(deliveries)
                await delivery.settle(Ack())
    return delivery.envelope.body


@pytest.mark.parametrize(
    ("mechanism", "certificate"), [("PLAIN", ""), ("EXTERNAL", "client.pem")], ids=["password", "certificate"]
)
async def test_an_encrypted_connection_is_verified_and_used(
    mechanism: str, certificate: str, rabbit: Amqp10Node
) -> None:
    folder = rabbit.node.folder
    table = Amqp10TlsTable(
        ca=str(folder / "ca.pem"), certificate=str(folder / certificate) if certificate else "", server_name="localhost"
    )

    assert await there_and_back(rabbit, hosts=(rabbit.secure,), tls=table, mechanism=mechanism) == b"x"


async def test_a_broker_may_take_those_without_a_name(rabbit: Amqp10Node) -> None:
    assert await there_and_back(rabbit, mechanism="ANONYMOUS") == b"x"


@pytest.mark.parametrize(
    "how",
    [{"password": Secret("wrong")}, {"mechanism": "EXTERNAL", "tls": None}],
    ids=["password", "mechanism"],
)
async def test_a_login_that_is_refused_is_told_at_once(how: dict[str, Any], rabbit: Amqp10Node) -> None:
    with trio.fail_after(30), pytest.raises(LoginRefusedError) as refused:
        async with rabbit.open(**how):
            pass

    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (Amqp10TlsTable(), "its certificate is not accepted"),
        (Amqp10TlsTable(ca="ca.pem", server_name="other.example"), "its certificate is not accepted"),
    ],
    ids=["nobody known", "another name"],
)
async def test_a_broker_that_proves_nothing_is_not_talked_to(
    table: Amqp10TlsTable, reason: str, rabbit: Amqp10Node
) -> None:
    ca = str(rabbit.node.folder / table.ca) if table.ca else ""
    tls = Amqp10TlsTable(ca=ca, server_name=table.server_name or "localhost")
    settings = link_settings(rabbit.config(hosts=(rabbit.secure,), tls=tls), name="login", close_timeout=1.0)

    with trio.fail_after(20), pytest.raises(LinkError, match=reason):
        await join(load(), settings)
