"""Our side: a service over RabbitMQ whose workers the test gives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, final

import attrs
import trio

from kernel._manifest.registry import Registry, discover
from kernel.testing import RunningService, open_kernel

QUEUE: Final[Mapping[str, object]] = {"plugin": "amqp"}
AS_NAMEKO: Final[Mapping[str, object]] = {"dead_letters": ""}
"""What a queue must be so that Nameko and micro-framework may declare it too: they give no arguments."""


def serving(
    workers: Mapping[str, object],
    *,
    drivers: Mapping[str, Mapping[str, object]] | None = None,
    dispatchers: Mapping[str, Mapping[str, object]] | None = None,
    broker: Mapping[str, object] | None = None,
    name: str = "ours",
    more_workers: Mapping[str, Mapping[str, object]] | None = None,
    **tables: Mapping[str, Mapping[str, object]],
) -> AbstractAsyncContextManager[RunningService]:
    """Open a service with the broker `queue`; a worker's dispatcher has the worker's name.

    Args:
        workers: Name -> class or function.
        drivers: Tables of drivers that use the broker.
        dispatchers: Tables of consumers.
        broker: More for the table of the broker.
        name: That of the service.
        more_workers: Tables of workers that are found as in any manifest.
        **tables: Other parts of the manifest.
    """
    dispatchers = {
        key: {"plugin": "consumer", "driver": "queue", **table} for key, table in (dispatchers or {}).items()
    }
    manifest: dict[str, object] = {
        "kernel": {"name": name},
        "drivers": {
            "queue": {**QUEUE, **(broker or {})},
            **{key: {"driver": "queue", **table} for key, table in (drivers or {}).items()},
        },
        "dispatchers": dispatchers,
        "workers": {key: worker_table(key, dispatchers) for key in workers} | dict(more_workers or {}),
        **tables,
    }
    plugins = (*discover().plugins, *Registry.of({"workers": dict(workers)}).plugins)
    return open_kernel(manifest, registry=Registry(plugins), expected=Exception)


def worker_table(name: str, dispatchers: Mapping[str, object]) -> dict[str, object]:
    return {"use": name, **({"dispatcher": name} if name in dispatchers else {})}


@final
@attrs.define(eq=False)
class Inbox:
    """What a worker was given, in order; the test waits for it."""

    seen: list[Any] = attrs.field(factory=list)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def put(self, item: Any) -> None:
        self.seen.append(item)
        self._changed.unpark_all()

    async def get(self, count: int) -> list[Any]:
        """Wait until there are so many, and return them."""
        with trio.fail_after(15):
            while len(self.seen) < count:
                await self._changed.park()
        return self.seen
