"""A service to look into, and how to look into it from outside."""

from __future__ import annotations

import io
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from kernel._control import client
from kernel._control.orders import Desk
from kernel._control.places import Place
from kernel._control.server import answer_at, open_socket
from kernel._core.masks import Masks
from kernel._core.secret import Secret
from kernel._log.levels import Levels
from kernel._log.log import Log, LogSettings
from kernel._log.sinks import Stream
from kernel._manifest.registry import Registry, discover
from kernel.testing import open_kernel

CANARY = "yellow-feathers"
BROKER = {"driver": "queue", "protocol": "json"}


def shop(handler: Any, **more: Any) -> dict[str, Any]:
    """What `open_kernel` is to be called with: a queue, a dispatcher, a worker, and what else there is."""
    tables: dict[str, Any] = {
        "kernel": {"name": "shop"},
        "drivers": {"queue": {"plugin": "memory"}, "orders": {"plugin": "publisher", **BROKER}},
        "dispatchers": {"work": {"plugin": "consumer", "queue": "work", "bindings": ["#"], "concurrency": 4, **BROKER}},
        "workers": {"packer": {"use": "packer", "dispatcher": "work"}},
    }
    classes = more.pop("classes", {})
    for table, entries in more.items():
        tables[table] = {**tables.get(table, {}), **entries}
    given = Registry.of({
        "workers": {"packer": handler, **classes.get("workers", {})},
        "drivers": classes.get("drivers", {}),
    })
    return {"manifest": tables, "registry": Registry((*discover().plugins, *given.plugins))}


@attrs.frozen
class Look:
    """A service that listens."""

    service: Any
    place: Place
    log: Log

    async def ask(self, order: str, **arguments: object) -> Any:
        return await trio.to_thread.run_sync(lambda: client.ask(self.place, order, **arguments))

    async def raw(self, talk: Callable[[socket.socket], Any]) -> Any:
        """What a function returns that talks by a socket of its own."""

        def connect() -> Any:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(self.place.path))
                return talk(connection)

        return await trio.to_thread.run_sync(connect)


@asynccontextmanager
async def looking(folder: Path, handler: Any, **more: Any) -> AsyncIterator[Look]:
    """Run a service that listens while inside, on the real clock."""
    log = Log(LogSettings(sink=Stream(io.StringIO()), levels=Levels(), masks=Masks.of([Secret(CANARY)])))
    place = Place.of("shop", {"KERNEL_CONTROL_DIR": str(folder / "run")})
    expected = more.pop("expected", ())
    listener = open_socket(place, log.logger())
    assert listener is not None
    async with open_kernel(**shop(handler, **more), expected=expected) as service:
        with listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    answer_at, listener, place, lambda bridge: Desk(service.kernel, log, bridge), log.logger()
                )
                yield Look(service, place, log)
                nursery.cancel_scope.cancel()


def lines(connection: socket.socket) -> Iterator[bytes]:
    with connection.makefile("rb") as stream:
        yield from stream


def states(tree: Mapping[str, Any]) -> dict[str, str]:
    return {one["id"]: one["state"] for one in tree["components"]}
