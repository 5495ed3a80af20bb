"""A shelf of goods that many people look at: each call that changes it is told to all who watch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from kernel_websocket import Line, RequestDelivery

from kernel import answers
from kernel.abc import Delivery

_PAGE: Final = Path(__file__).with_name("page.html")


@attrs.frozen(kw_only=True)
class ShelfConfig:
    """The `config` table."""

    goods: list[str]
    """What there is."""
    each: int
    """How much of each lies there at the start."""


class TooFewError(Exception):
    """There is not as much."""


class Shelf:
    """What is called."""

    def __init__(self, config: ShelfConfig) -> None:
        self.left = dict.fromkeys(config.goods, config.each)
        self.watchers: set[Line] = set()

    @answers("shelf.watch")
    async def watch(self, delivery: Delivery) -> dict[str, int]:
        """Return what lies there, and tell the caller from now on what changes."""
        await trio.lowlevel.checkpoint()
        assert isinstance(delivery, RequestDelivery)
        self.watchers.add(delivery.line)
        return self.left

    @answers("shelf.take")
    async def take(self, sku: str, amount: int = 1) -> int:
        """Take something away, and return what remains."""
        await trio.lowlevel.checkpoint()
        if not 0 < amount <= self.left.get(sku, 0):
            raise TooFewError(f"there are {self.left.get(sku, 0)} of {sku}")
        self.left[sku] -= amount
        self.watchers = {
            line for line in self.watchers if line.notify("shelf.left", {"sku": sku, "left": self.left[sku]})
        }
        return self.left[sku]


async def page(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer with the page, as ASGI has it."""
    del receive
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body, status = (await trio.Path(_PAGE).read_bytes(), 200) if scope["path"] == "/" else (b"", 404)
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"content-security-policy", b"default-src 'none'; script-src 'unsafe-inline'; connect-src 'self'"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
