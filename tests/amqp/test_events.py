"""Typed events over RabbitMQ: what the plugin `events` promises over every broker, with one key changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from kernel_events import Events, event, listens

from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

pytestmark = [pytest.mark.slow]
WIRED = {"driver": "queue", "protocol": "json"}
heard: Counter[tuple[str, str]] = Counter()


@event(name="hello.events")
@dataclass
class Hello:
    world: str


class Shared:
    @listens(Hello)
    async def on(self, event: Hello) -> None:
        heard["shared", event.world] += 1


class Every:
    @listens(Hello, per_process=True)
    async def on(self, event: Hello) -> None:
        heard["every", event.world] += 1


class Living:
    @listens(Hello, durable=False)
    async def on(self, event: Hello) -> None:
        heard["living", event.world] += 1


def service(mark: str, process: str) -> dict[str, Any]:
    classes = {"shared": Shared, "every": Every, "living": Living}
    return {
        "manifest": {
            "kernel": {"name": mark},
            "drivers": {
                "queue": {"plugin": "amqp", "prefix": mark},
                "events": {"plugin": "event_sender", **WIRED},
            },
            "dispatchers": {"heard": {"plugin": "event_listener", "process": process, **WIRED}},
            "workers": {name: {"use": name, "dispatcher": "heard"} for name in classes},
        },
        "registry": Registry((*discover().plugins, *Registry.of({"workers": classes}).plugins)),
    }


async def test_listeners_get_each_event_once_and_processes_share_what_is_not_their_own(mark: str) -> None:
    """What was sent while a process was down is there for its durable listeners when it is back."""
    heard.clear()
    async with open_kernel(**service(mark, "a")) as one:
        events = one.resource("driver/events")
        assert isinstance(events, Events)
        async with open_kernel(**service(mark, "b")) as two:
            await events.send(Hello("both"))
            await one.wait_settled(2)
            await two.wait_settled(2)
            await until(5)
        await events.send(Hello("one"))
        await until(8)
    async with open_kernel(**service(mark, "b")):
        await until(9)

    assert heard == Counter({
        ("shared", "both"): 1,
        ("every", "both"): 2,
        ("living", "both"): 2,
        ("shared", "one"): 1,
        ("every", "one"): 2,
        ("living", "one"): 1,
    })


async def until(count: int) -> None:
    with trio.fail_after(20):
        while heard.total() < count:  # noqa: ASYNC110  the workers of two services tell nobody
            await trio.sleep(0.01)
