"""A hundred classes of events, drawn from a seed in all five styles, arrive as they were sent, over each broker."""

from __future__ import annotations

from typing import Any

import pytest
from kernel_events import listens
from trio.testing import MockClock

from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

from ._classes import STYLES, Drawn, draw_classes
from .conftest import Table

COUNT = 100
WIRED = {"driver": "queue", "protocol": "json"}


def listener_to(drawn: list[Drawn], heard: dict[str, object]) -> type[object]:
    """Return a worker that listens to all of the classes."""

    def listener(one: Drawn) -> Any:
        async def hear(self: object, event: Any) -> None:
            heard[one.cls.__name__] = event

        hear.__qualname__ = f"Hears.{one.cls.__name__}"
        hear.__annotations__ = {"event": one.cls}
        return listens(one.cls)(hear)

    return type("Hears", (), {f"on_{one.cls.__name__.lower()}": listener(one) for one in drawn})


async def sent_and_heard(queue: Table, drawn: list[Drawn]) -> dict[str, object]:
    """Send an event of each class; return what was heard, by the names of the classes."""
    heard: dict[str, object] = {}
    own = Registry.of({"workers": {"hears": listener_to(drawn, heard)}})
    manifest = {
        "kernel": {"name": "shop"},
        "drivers": {"queue": queue, "events": {"plugin": "event_sender", **WIRED}},
        "dispatchers": {"heard": {"plugin": "event_listener", **WIRED}},
        "workers": {"hears": {"use": "hears", "dispatcher": "heard", "options": {"durable": False}}},
    }
    async with open_kernel(manifest, registry=Registry((*discover().plugins, *own.plugins))) as kernel:
        events = kernel.resource("driver/events")
        for one in drawn:
            await events.send(one.event, of=one.cls)
        await kernel.wait_settled(len(drawn))
    return heard


def unlike(drawn: list[Drawn], heard: dict[str, object]) -> list[tuple[Drawn, object]]:
    """Return what did not arrive as it was sent, with what did."""
    return [(one, heard.get(one.cls.__name__)) for one in drawn if heard.get(one.cls.__name__) != one.event]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_hundred_classes_arrive_as_they_were(seed: int, autojump_clock: MockClock) -> None:
    drawn = draw_classes(seed, COUNT)

    heard = await sent_and_heard({"plugin": "memory"}, drawn)

    assert not unlike(drawn, heard)


@pytest.mark.slow
async def test_a_hundred_classes_arrive_as_they_were_over_each_transport(queue: Table) -> None:
    drawn = draw_classes(4, COUNT)

    heard = await sent_and_heard(queue, drawn)

    assert not unlike(drawn, heard)


def test_the_hundred_are_of_all_styles_and_have_every_kind_of_field() -> None:
    drawn = draw_classes(1, COUNT)
    text = " ".join(one.text for one in drawn)

    assert {one.style for one in drawn} == set(STYLES)
    assert not [
        kind for kind in ("Nested", "None", "int |", "Size", "datetime", "Decimal", "list", "dict") if kind not in text
    ]
