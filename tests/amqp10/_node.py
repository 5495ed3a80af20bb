"""RabbitMQ with its plugin for AMQP 1.0: a node of the tests' own, and the driver opened on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trustme
from kernel_amqp10 import Amqp10Broker, Amqp10Config, Amqp10Driver

from kernel import Event
from kernel.testing import fake_context, free_port

from ..amqp._node import Node, running_node

PLUGINS: Final = ("rabbitmq_amqp1_0", "rabbitmq_management", "rabbitmq_auth_mechanism_ssl")
IDLE: Final = 1.0


@attrs.frozen
class Amqp10Node:
    """A node, and where its HTTP API is."""

    node: Node
    api: int
    tls: int

    def config(self, **more: Any) -> Amqp10Config:
        return Amqp10Config(**{"hosts": (self.node.address,), "management": self.management, **more})

    @property
    def secure(self) -> str:
        """Where it speaks TLS; what proves who is who is in its folder: `ca.pem`, and `client.pem` for guest."""
        return f"127.0.0.1:{self.tls}"

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.api}"

    def table(self, **more: object) -> dict[str, object]:
        """Return the table of the driver, with the shortest times."""
        return {"plugin": "amqp10", "management": self.management, "idle_timeout": IDLE, **more}

    def open(self, events: list[Event] | None = None, **more: Any) -> AbstractAsyncContextManager[Amqp10Broker]:
        return Amqp10Driver(config=self.config(**more), context=fake_context("driver/queue", events=events)).open()


@contextmanager
def running(
    folder: Path, programs: Path, *, plugins: Sequence[str] = (), lines: Sequence[str] = (), heartbeat: int = 1
) -> Iterator[Amqp10Node]:
    """A node that runs; whatever the test did to it, it is gone afterwards.

    Args:
        folder: Its own.
        programs: Where those of RabbitMQ are.
        plugins: What it has besides.
        lines: What its configuration says besides.
        heartbeat: Seconds that it lets a client be silent: over AMQP 1.0 that is its own to say, and a second the least.
    """
    api, tls = free_port(), free_port()
    _certify(folder)
    every = (
        f"heartbeat = {heartbeat}",
        f"management.tcp.port = {api}",
        "management.tcp.ip = 127.0.0.1",
        "loopback_users = none",
        *_secure(folder, tls),
        *lines,
    )
    (folder / "rabbitmq.conf").write_text("\n".join(every) + "\n")
    with running_node(folder, programs, plugins=(*PLUGINS, *plugins)) as node:
        yield Amqp10Node(node, api, tls)


def _certify(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    node = authority.issue_cert("localhost", "127.0.0.1")
    node.private_key_and_cert_chain_pem.write_to_path(folder / "node.pem")
    client = authority.issue_cert("guest@client.example", common_name="guest")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")


def _secure(folder: Path, port: int) -> tuple[str, ...]:
    """Return what has a node speak TLS, and take a name from a certificate."""
    return (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        f"ssl_options.cacertfile = {folder}/ca.pem",
        f"ssl_options.certfile = {folder}/node.pem",
        f"ssl_options.keyfile = {folder}/node.pem",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = false",
        "auth_mechanisms.1 = PLAIN",
        "auth_mechanisms.2 = ANONYMOUS",
        "auth_mechanisms.3 = EXTERNAL",
        "ssl_cert_login_from = common_name",
    )
