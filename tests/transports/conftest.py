"""A driver of each transport, as a manifest has it: what is tested here holds on all of them, and one table says which."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from kernel import new_id
from kernel.testing import free_port

from ..amqp._node import scripts
from ..amqp10._node import Amqp10Node, running
from ..stomp._activemq import ActiveMq, activemq_is_here, running_activemq

Table = dict[str, Any]


@attrs.frozen
class Rabbit:
    """A RabbitMQ that speaks all it can."""

    node: Amqp10Node
    stomp: int
    """Its port of STOMP."""


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """One of the tests' own."""
    programs, stomp = scripts(), free_port()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    more = (f"stomp.listeners.tcp.1 = 127.0.0.1:{stomp}",)
    folder = tmp_path_factory.mktemp("rabbit")
    with running(folder, programs, plugins=("rabbitmq_stomp",), lines=more, heartbeat=30) as node:
        yield Rabbit(node, stomp)


@pytest.fixture(scope="session")
def active(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActiveMq]:
    """An ActiveMQ, likewise."""
    if not activemq_is_here():
        pytest.skip("needs ActiveMQ: apt-get install activemq")
    with running_activemq(tmp_path_factory.mktemp("active")) as server:
        yield server


def _sqlite(request: pytest.FixtureRequest) -> Table:
    folder: Path = request.getfixturevalue("tmp_path")
    return {"plugin": "sqlite", "path": str(folder / "queue.db")}


def _amqp(request: pytest.FixtureRequest) -> Table:
    rabbit: Rabbit = request.getfixturevalue("rabbit")
    return {"plugin": "amqp", "hosts": [rabbit.node.node.address], "prefix": f"{new_id()}."}


def _amqp10(request: pytest.FixtureRequest) -> Table:
    if importlib.util.find_spec("proton") is None:
        pytest.skip("needs python-qpid-proton: uv sync --group engine")
    node: Amqp10Node = request.getfixturevalue("rabbit").node
    return {"plugin": "amqp10", "hosts": [node.node.address], "management": node.management}


def _stomp(request: pytest.FixtureRequest) -> Table:
    rabbit: Rabbit = request.getfixturevalue("rabbit")
    return {"plugin": "stomp", "server": "rabbitmq", "hosts": [f"127.0.0.1:{rabbit.stomp}"]}


def _stomp_activemq(request: pytest.FixtureRequest) -> Table:
    active: ActiveMq = request.getfixturevalue("active")
    return {"plugin": "stomp", "server": "activemq", "hosts": [f"127.0.0.1:{active.port}"], "delays": True}


TRANSPORTS: Final[Mapping[str, Callable[[pytest.FixtureRequest], Table]]] = {
    "memory": lambda _: {"plugin": "memory"},
    "sqlite": _sqlite,
    "amqp": _amqp,
    "amqp10": _amqp10,
    "stomp": _stomp,
    "stomp-activemq": _stomp_activemq,
}
"""Every broker that carries what others may read and write belongs here."""


@pytest.fixture(params=sorted(TRANSPORTS))
def queue(request: pytest.FixtureRequest) -> Table:
    """The table of a driver, of each transport in turn."""
    return TRANSPORTS[request.param](request)
