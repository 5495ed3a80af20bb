"""Typed events over STOMP with aspyx-event 0.9.0 on the other side: what it sends, and what it hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from kernel_events import event, listens

from kernel import Ack, new_id
from kernel._manifest.registry import Registry, discover
from kernel.abc import Binding, Exchange, Queue, Topology
from kernel.testing import open_kernel

from ..amqp._peer import Peer, start
from ..stomp._activemq import ActiveMq
from .conftest import TRANSPORTS, Rabbit, Table

pytestmark = pytest.mark.slow

PEER = str(Path(__file__).parent / "peers" / "aspyx_peer.py")
WIRED = {"driver": "queue", "protocol": "json"}
heard: list[object] = []


@event(name="HelloEvent")
@attrs.frozen
class Hello:
    world: str
    count: int


class Greeter:
    @listens(Hello, name="greeter")
    async def greet(self, event: Hello) -> None:
        heard.append(event)


@pytest.fixture
def start_peer() -> Iterator[Callable[..., Peer]]:
    """Starts it; it ends with the test."""
    peers: list[Peer] = []

    def start_one(*arguments: object) -> Peer:
        peers.append(start(PEER, *map(str, arguments)))
        return peers[-1]

    yield start_one
    for peer in peers:
        peer.ask_to_end()
    for peer in peers:
        peer.end()


def port_of(request: pytest.FixtureRequest, transport: str) -> int:
    if transport == "stomp-activemq":
        active: ActiveMq = request.getfixturevalue("active")
        return active.port
    rabbit: Rabbit = request.getfixturevalue("rabbit")
    return rabbit.stomp


def sender(queue: Table) -> dict[str, Any]:
    return {
        "kernel": {"name": "shop"},
        "drivers": {"queue": queue, "events": {"plugin": "event_sender", "exchange": "hello", **WIRED}},
    }


def listener(queue: Table, name: str) -> dict[str, Any]:
    """Return a service that listens at a queue: aspyx-event sends to that of the event's name."""
    options = {"queues": {"greeter": name}}
    return {
        **sender(queue),
        "dispatchers": {"heard": {"plugin": "event_listener", "exchange": "hello", "dead_letters": False, **WIRED}},
        "workers": {"greeter": {"use": "greeter", "dispatcher": "heard", "options": options}},
    }


REGISTRY = Registry((*discover().plugins, *Registry.of({"workers": {"greeter": Greeter}}).plugins))


@pytest.mark.parametrize("transport", ["stomp", "stomp-activemq"])
async def test_what_it_sends_is_heard(
    transport: str, request: pytest.FixtureRequest, start_peer: Callable[..., Peer]
) -> None:
    queue, port = TRANSPORTS[transport](request), port_of(request, transport)
    name = f"Hello-{new_id()}"
    heard.clear()
    async with open_kernel(listener(queue, name), registry=REGISTRY) as kernel:
        start_peer("stomp", port, name, "--send", "wörld", 2)
        settled = await kernel.wait_settled(1)

    assert settled[0].outcome == Ack()
    assert heard == [Hello("wörld", 2)]


async def test_it_hears_what_is_sent_once_it_is_repaired(rabbit: Rabbit, start_peer: Callable[..., Peer]) -> None:
    said = await said_of_an_event(rabbit, start_peer, "--repaired")

    assert said == {"heard": ["wörld", 3]}


async def test_as_it_is_it_hears_nothing(rabbit: Rabbit, start_peer: Callable[..., Peer]) -> None:
    said = await said_of_an_event(rabbit, start_peer)

    assert said == {"raised": "AttributeError"}


async def said_of_an_event(rabbit: Rabbit, start_peer: Callable[..., Peer], *more: str) -> dict[str, Any]:
    """Send an event to its queue, at which it listens; return what it says of that."""
    queue = {"plugin": "stomp", "server": "rabbitmq", "hosts": [f"127.0.0.1:{rabbit.stomp}"]}
    name = f"Hello-{new_id()}"
    async with open_kernel(sender(queue), registry=REGISTRY) as kernel:
        await kernel.resource("driver/queue").declare(bound(name))
        peer = start_peer("stomp", rabbit.stomp, name, "--listen", *more)
        await peer.wait_ready()
        await kernel.resource("driver/events").send(Hello("wörld", 3))
        return await peer.line(lambda line: "raised" in line or "heard" in line)


def bound(name: str) -> Topology:
    """Return the queue of its listener, which gets the event."""
    return Topology(
        exchanges=[Exchange(name="hello")],
        queues=[Queue(name=name)],
        bindings=[Binding(queue=name, exchange="hello", pattern="HelloEvent")],
    )
