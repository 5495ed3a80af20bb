"""Sockets of pyzmq with no code of ours but the waiting, and services whose workers the test gives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, final

import attrs
import trio
import zmq
from kernel_zmq._socket import Socket

from kernel._manifest.registry import Registry, discover
from kernel.testing import RunningService, open_kernel

LOCAL: Final = "tcp://127.0.0.1:*"


@asynccontextmanager
async def open_raw(
    kind: int, *, bind: str = "", connect: str = "", subscribe: bytes | None = None, **options: Any
) -> AsyncGenerator[Socket]:
    context = zmq.Context()
    raw = context.socket(kind)
    raw.linger = 0
    try:
        for name, value in options.items():
            setattr(raw, name, value)
        if subscribe is not None:
            raw.subscribe(subscribe)
        if bind:
            raw.bind(bind)
        if connect:
            raw.connect(connect)
        yield Socket(raw)
    finally:
        raw.close()
        context.term()


def address_of(socket: Socket) -> str:
    return socket.raw.getsockopt_string(zmq.LAST_ENDPOINT)


def serving(
    workers: Mapping[str, object],
    *,
    dispatchers: Mapping[str, Mapping[str, object]] | None = None,
    drivers: Mapping[str, Mapping[str, object]] | None = None,
    worker: Mapping[str, object] | None = None,
    **tables: Mapping[str, object],
) -> AbstractAsyncContextManager[RunningService]:
    """Open a service; a worker's dispatcher has the worker's name. All speak `json` unless they say otherwise.

    Args:
        workers: Name -> class or function.
        dispatchers: Their tables.
        drivers: Their tables.
        worker: More for the table of each worker.
        **tables: Other parts of the manifest.
    """
    brought = {name: _speaking(table) for name, table in (dispatchers or {}).items()}
    manifest: dict[str, object] = {
        "kernel": {"name": "test"},
        "dispatchers": brought,
        "drivers": {name: _speaking(table) for name, table in (drivers or {}).items()},
        "workers": {
            name: {"use": name, **({"dispatcher": name} if name in brought else {}), **(worker or {})}
            for name in workers
        },
        **tables,
    }
    plugins = (*discover().plugins, *Registry.of({"workers": dict(workers)}).plugins)
    return open_kernel(manifest, registry=Registry(plugins), expected=Exception)


def _speaking(table: Mapping[str, object]) -> Mapping[str, object]:
    return table if table["plugin"] == "zmq_proxy" else {"protocol": "json", **table}


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
        with trio.fail_after(10):
            while len(self.seen) < count:
                await self._changed.park()
        return self.seen
