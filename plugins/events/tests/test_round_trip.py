"""A hundred classes of events, drawn from a seed in all five styles, arrive as they were sent, over each broker."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kernel_events import listens
from trio.testing import MockClock

from kernel import new_id
from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

from ._classes import STYLES, Drawn, draw_classes

COUNT = 100
WIRED = {"driver": "queue", "protocol": "json"}


def on_rabbitmq(_: Path) -> dict[str, Any]:
    try:
        socket.create_connection(("127.0.0.1", 5672), timeout=2.0).close()
    except OSError:
        pytest.skip("needs RabbitMQ on 127.0.0.1:5672")
    # What listens while it lives alone takes its queues along, and the exchange goes with the last of them.
    return {
        "plugin": "amqp",
        "hosts": ["127.0.0.1:5672"],
        "prefix": f"round-trip-{new_id()}.",
        "exchanges": {"events": {"auto_delete": True}},
    }


BROKERS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "memory": lambda _: {"plugin": "memory"},
    "sqlite": lambda folder: {"plugin": "sqlite", "path": str(folder / "q.db")},
    "amqp": on_rabbitmq,
}
"""`plugin` -> the table of the driver. Every broker belongs here."""
SERVERLESS = {"memory", "sqlite"}
"""Those that tests use in virtual time."""


def listener_to(drawn: list[Drawn], heard: dict[str, object]) -> type[object]:
    """Return a worker that listens to all of the classes."""

    def listener(one: Drawn) -> Any:
        async def hear(self: object, event: Any) -> None:
            heard[one.cls.__name__] = event

        hear.__qualname__ = f"Hears.{one.cls.__name__}"
        hear.__annotations__ = {"event": one.cls}
        return listens(one.cls)(hear)

    return type("Hears", (), {f"on_{one.cls.__name__.lower()}": listener(one) for one in drawn})


async def sent_and_heard(driver: dict[str, Any], drawn: list[Drawn]) -> dict[str, object]:
    """Send an event of each class; return what was heard, by the names of the classes."""
    heard: dict[str, object] = {}
    own = Registry.of({"workers": {"hears": listener_to(drawn, heard)}})
    manifest = {
        "kernel": {"name": "shop"},
        "drivers": {"queue": driver, "events": {"plugin": "event_sender", **WIRED}},
        "dispatchers": {"heard": {"plugin": "event_listener", **WIRED}},
        "workers": {"hears": {"use": "hears", "dispatcher": "heard", "options": {"durable": False}}},
    }
    async with open_kernel(manifest, registry=Registry((*discover().plugins, *own.plugins))) as kernel:
        events = kernel.resource("driver/events")
        for one in drawn:
            await events.send(one.event, of=one.cls)
        await kernel.wait_settled(len(drawn))
    return heard


@pytest.mark.parametrize("name", sorted(SERVERLESS))
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_hundred_classes_arrive_as_they_were(
    name: str, seed: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    drawn = draw_classes(seed, COUNT)

    heard = await sent_and_heard(BROKERS[name](tmp_path), drawn)

    assert not [(one, heard.get(one.cls.__name__)) for one in drawn if heard.get(one.cls.__name__) != one.event]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BROKERS.keys() - SERVERLESS))
async def test_a_hundred_classes_arrive_as_they_were_over_a_server(name: str, tmp_path: Path) -> None:
    drawn = draw_classes(4, COUNT)

    heard = await sent_and_heard(BROKERS[name](tmp_path), drawn)

    assert not [(one, heard.get(one.cls.__name__)) for one in drawn if heard.get(one.cls.__name__) != one.event]


def test_the_hundred_are_of_all_styles_and_have_every_kind_of_field() -> None:
    drawn = draw_classes(1, COUNT)
    text = " ".join(one.text for one in drawn)

    assert {one.style for one in drawn} == set(STYLES)
    assert not [
        kind for kind in ("Nested", "None", "int |", "Size", "datetime", "Decimal", "list", "dict") if kind not in text
    ]
