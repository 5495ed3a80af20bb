"""What the tests over STOMP share: a RabbitMQ and an ActiveMQ of their own, and peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from kernel.testing import free_port

from ..amqp._node import Node, running_node, scripts
from ..amqp._peer import Peer, start
from ._activemq import ActiveMq, activemq_is_here, running_activemq

PEER = str(Path(__file__).parent / "peers" / "stomp_peer.py")


@attrs.frozen(kw_only=True)
class Server:
    """One of the two, as a test sees it."""

    kind: str
    port: int
    """Of STOMP."""
    process: Node | ActiveMq

    @property
    def table(self) -> dict[str, Any]:
        """The keys of a driver `stomp` that reach it."""
        return {"hosts": [f"127.0.0.1:{self.port}"], **self.kind_table}

    @property
    def kind_table(self) -> dict[str, Any]:
        """The keys that do not say where it is."""
        delays = {"delays": True} if self.kind == "activemq" else {}
        return {"plugin": "stomp", "server": self.kind, "heartbeat": 1.0, **delays}


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A RabbitMQ that speaks STOMP, to be restarted and killed as one likes."""
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    folder, port = tmp_path_factory.mktemp("rabbit"), free_port()
    (folder / "rabbitmq.conf").write_text(f"stomp.listeners.tcp.1 = 127.0.0.1:{port}\n")
    with running_node(folder, programs, plugins=("rabbitmq_stomp",)) as node:
        yield Server(kind="rabbitmq", port=port, process=node)


@pytest.fixture(scope="session")
def active(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An ActiveMQ, likewise."""
    if not activemq_is_here():
        pytest.skip("needs ActiveMQ: apt-get install activemq")
    with running_activemq(tmp_path_factory.mktemp("active")) as server:
        yield Server(kind="activemq", port=server.port, process=server)


@pytest.fixture(params=["rabbitmq", "activemq"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two."""
    found: Server = request.getfixturevalue({"rabbitmq": "rabbit", "activemq": "active"}[request.param])
    return found


@pytest.fixture
def start_peer() -> Iterator[Callable[..., Peer]]:
    """Starts stomp.py, connected to a port; it ends with the test."""
    peers: list[Peer] = []

    def start_one(port: int, *arguments: str) -> Peer:
        peers.append(start(PEER, "--port", str(port), *arguments))
        return peers[-1]

    yield start_one
    for peer in peers:
        peer.ask_to_end()
    for peer in peers:
        peer.end()
