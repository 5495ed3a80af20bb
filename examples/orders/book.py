"""The orders of the shop, kept in memory, and the driver that opens them for the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from kernel.abc import Context, Driver, NoConfig


@attrs.frozen(kw_only=True)
class NewOrder:
    """What a customer sends."""

    sku: str = attrs.field(validator=[attrs.validators.min_len(1), attrs.validators.max_len(40)])
    quantity: int = attrs.field(validator=[attrs.validators.ge(1), attrs.validators.le(1000)])


@attrs.frozen(kw_only=True)
class Order:
    """What the shop knows of an order; also the payload of the event `order.accepted`."""

    id: str
    sku: str
    quantity: int
    state: str = "accepted"
    """`accepted`, `fulfilled` or `dead`."""


class Book:
    """All orders, by id."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def enter(self, order: Order) -> None:
        """Add an order, or replace what was known of it."""
        self._orders[order.id] = order

    def find(self, order_id: str) -> Order | None:
        """Return an order, or None if there is none."""
        return self._orders.get(order_id)

    def count(self) -> Counter[str]:
        """Return how many orders are in each state."""
        return Counter(order.state for order in self._orders.values())


@attrs.frozen(kw_only=True)
class BookDriver(Driver[Book]):
    """Opens the book. A real shop would connect to a database here."""

    provides = Book

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Book]:
        """Yield an empty book."""
        await trio.lowlevel.checkpoint()
        yield Book()
