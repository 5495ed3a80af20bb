"""Services behind a websocket whose workers the test gives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, final
from urllib.parse import urlsplit

import attrs
import trio
from kernel_websocket import WebSocketClient
from kernel_websocket._boundary import reason_in
from trio_websocket import WebSocketConnection, wrap_client_stream

from kernel import Listening, answers
from kernel._manifest.registry import Registry, discover
from kernel.testing import RunningService, open_kernel

_ADDRESSES: Final[dict[int, str]] = {}
AT_A_DOOR: Final = ContextVar("at_a_door", default=False)
"""Whether services are reached over a `web` dispatcher, and not at a port of their own."""


@answers("double")
async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return number * 2


def url_of(service: RunningService) -> str:
    return _ADDRESSES[id(service)]


@asynccontextmanager
async def serving(workers: Mapping[str, object], **table: Any) -> AsyncGenerator[RunningService]:
    """Open a service whose workers all stand behind one websocket, at a free port or at the root of a `web` dispatcher."""
    way: dict[str, Any] = {"driver": "door"} if AT_A_DOOR.get() else {"port": 0}
    manifest = {
        "kernel": {"name": "test"},
        "dispatchers": {"web": {"plugin": "websocket", "protocol": "jsonrpc", **way, **table}},
        "workers": {name: {"use": name, "dispatcher": "web"} for name in workers},
    }
    if AT_A_DOOR.get():
        manifest["drivers"] = {"door": {"plugin": "websocket"}}
        manifest["dispatchers"]["api"] = {
            "plugin": "web",
            "bind": "127.0.0.1:0",
            "write_timeout": table.get("send_timeout", 10.0),
        }
        manifest["workers"]["gate"] = {"use": "kernel_websocket:WebSocketApp", "dispatcher": "api"}
    plugins = (*discover().plugins, *Registry.of({"workers": dict(workers)}).plugins)
    async with open_kernel(manifest, registry=Registry(plugins), expected=Exception) as service:
        address = (await service.wait_event(Listening)).address
        _ADDRESSES[id(service)] = address.replace("http:", "ws:").rstrip("/") + "/"
        yield service


@asynccontextmanager
async def open_socket(url: str, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> AsyncGenerator[WebSocketConnection]:
    """Open a plain websocket; unlike the library's own, it leaves nothing open when it is refused."""
    parts = urlsplit(url)
    assert parts.port
    stream = await trio.open_tcp_stream("127.0.0.1", parts.port)
    try:
        async with trio.open_nursery() as nursery:
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            yield await wrap_client_stream(nursery, stream, parts.netloc, path, extra_headers=list(headers))
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise reason_in(group) from None
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def calling(url: str, **table: Any) -> AsyncGenerator[tuple[RunningService, WebSocketClient]]:
    """Open a service that calls."""
    driver = {"plugin": "websocket_client", "url": url, "protocol": "jsonrpc", "reconnect_first": 0.01, **table}
    async with open_kernel({"kernel": {"name": "caller"}, "drivers": {"rpc": driver}}) as service:
        yield service, service.resource("driver/rpc")


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
