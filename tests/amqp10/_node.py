"""RabbitMQ with its plugin for AMQP 1.0: a node of the tests' own, and the driver opened on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from kernel_amqp10 import Amqp10Broker, Amqp10Config, Amqp10Driver

from kernel import Event
from kernel.testing import fake_context

from ..amqp._node import Node, free_port, running_node

PLUGINS: Final = ("rabbitmq_amqp1_0", "rabbitmq_management")
IDLE: Final = 1.0


@attrs.frozen
class Amqp10Node:
    """A node, and where its HTTP API is."""

    node: Node
    api: int

    def config(self, **more: Any) -> Amqp10Config:
        return Amqp10Config(**{"hosts": (self.node.address,), "management": self.management, **more})

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.api}"

    def table(self, **more: object) -> dict[str, object]:
        """Return the table of the driver, with the shortest times."""
        return {"plugin": "amqp10", "management": self.management, "idle_timeout": IDLE, **more}

    def open(self, events: list[Event] | None = None, **more: Any) -> AbstractAsyncContextManager[Amqp10Broker]:
        return Amqp10Driver(config=self.config(**more), context=fake_context("driver/queue", events=events)).open()


@contextmanager
def running(folder: Path, programs: Path) -> Iterator[Amqp10Node]:
    """A node that runs; whatever the test did to it, it is gone afterwards."""
    api = free_port()
    # How long RabbitMQ lets a client be silent is its own to say, over AMQP 1.0: a whole second is the least.
    lines = ("heartbeat = 1", f"management.tcp.port = {api}", "management.tcp.ip = 127.0.0.1", "loopback_users = none")
    (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
    with running_node(folder, programs, plugins=PLUGINS) as node:
        yield Amqp10Node(node, api)
