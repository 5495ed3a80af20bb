"""Nobody is faster than the topology: what a worker publishes in its first moment reaches the consumers of its service."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kernel import ComponentFailed, handles
from kernel._manifest.registry import Registry, discover
from kernel.errors import StartupError, UnroutableError
from kernel.testing import RunningService, open_kernel

COUNT = 50
SOON = 20.0


class Hasty:
    """Publishes as soon as it runs."""

    def __init__(self, orders: Any, failed: list[Exception], done: trio.Event) -> None:
        self._orders = orders
        self._failed = failed
        self._done = done

    async def run(self) -> None:
        for number in range(COUNT):
            try:
                await self._orders.publish("order.created", number)
            except UnroutableError as error:
                self._failed.append(error)
        self._done.set()
        await trio.sleep_forever()


class Packer:
    """Enters when everything has been published, and its dispatcher waits for it."""

    def __init__(self, published: trio.Event) -> None:
        self.packed: list[int] = []
        self._published = published

    async def __aenter__(self) -> None:
        await self._published.wait()

    async def __aexit__(self, *_: object) -> None:
        await trio.lowlevel.checkpoint()

    @handles("order.created")
    async def pack(self, number: int) -> None:
        self.packed.append(number)


def brokers(folder: Path) -> Mapping[str, Mapping[str, object]]:
    return {"memory": {"plugin": "memory"}, "sqlite": {"plugin": "sqlite", "path": str(folder / "queues.db")}}


def manifest(broker: Mapping[str, object], queues: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    consumer = {"plugin": "consumer", "driver": "queue", "protocol": "json", "bindings": ["order.*"]}
    return {
        "kernel": {"name": "shop"},
        "drivers": {
            "queue": broker,
            "orders": {"plugin": "publisher", "driver": "queue", "protocol": "json"},
        },
        "dispatchers": {name: {**consumer, "queue": name, **more} for name, more in queues.items()},
        "workers": {
            "hasty": {"use": "hasty"},
            **{f"packer_{name}": {"use": "packer", "dispatcher": name} for name in queues},
        },
    }


@pytest.mark.parametrize("broker", ["memory", "sqlite"])
@pytest.mark.parametrize("queues", [1, 5])
async def test_what_is_published_in_the_first_moment_is_handled_by_all(
    broker: str, queues: int, tmp_path: Path
) -> None:
    packers: list[Packer] = []
    failed: list[Exception] = []
    names: dict[str, Mapping[str, object]] = {f"q{number}": {} for number in range(queues)}
    async with opened(manifest(brokers(tmp_path)[broker], names), packers, failed) as service:
        with trio.move_on_after(SOON):
            await service.wait_settled(COUNT * queues)

    assert failed == []
    assert [len(packer.packed) for packer in packers] == [COUNT] * queues


async def test_what_nobody_takes_is_an_error_of_the_publisher(autojump_clock: MockClock) -> None:
    failed: list[Exception] = []
    async with opened(manifest({"plugin": "memory"}, {"q": {"bindings": ["payment.*"]}}), [], failed):
        await trio.sleep(1)

    assert len(failed) == COUNT


async def test_a_queue_that_cannot_be_declared_is_the_failure_of_its_dispatcher_alone(
    autojump_clock: MockClock,
) -> None:
    failed: list[Exception] = []
    other: Mapping[str, object] = {"queue": "q", "max_length": 5, "essential": False, "restart": {"policy": "never"}}
    async with opened(manifest({"plugin": "memory"}, {"q": {}, "other": other}), [], failed, ready=False) as service:
        await service.wait_settled(COUNT)
        error = await service.wait_event(ComponentFailed)
        result = await service.stop()

    assert (error.component, type(error.error)) == ("dispatcher/other", StartupError)
    assert failed == []
    assert result.status in {0, 1}


def opened(
    tables: Mapping[str, object], packers: list[Packer], failed: list[Exception], *, ready: bool = True
) -> AbstractAsyncContextManager[RunningService]:
    done = trio.Event()

    class Hurried(Hasty):
        def __init__(self, orders: Any) -> None:
            super().__init__(orders, failed, done)

    class Counting(Packer):
        def __init__(self) -> None:
            super().__init__(done)
            packers.append(self)

    workers = Registry.of({"workers": {"hasty": Hurried, "packer": Counting}})
    return open_kernel(tables, registry=Registry((*discover().plugins, *workers.plugins)), ready=ready)
