"""What the desk keeps: orders in a database, and who watches them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import attrs
import trio

from kernel.abc import Context, Driver, NoConfig, Transaction

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, sku TEXT, quantity INTEGER, state TEXT)",
    "CREATE TABLE IF NOT EXISTS packed (sku TEXT PRIMARY KEY, quantity INTEGER)",
)
_WAITING: Final = 100
"""Events that wait for one watcher; for one that reads more slowly, the newer ones are dropped."""


@attrs.frozen(kw_only=True)
class Order:
    """What the desk knows of an order; also the payload of `order.*`."""

    id: str
    sku: str
    quantity: int
    state: str = "accepted"
    """`accepted`, `packed` or `lost`."""


async def prepare(transaction: Transaction) -> None:
    """Make the tables exist."""
    await trio.lowlevel.checkpoint()
    for statement in SCHEMA:
        await transaction.execute(statement)


async def enter(transaction: Transaction, order: Order) -> None:
    """Add an order, or replace what was known of it."""
    await transaction.execute(
        "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", [order.id, order.sku, order.quantity, order.state]
    )


async def find(transaction: Transaction, order_id: str) -> Order | None:
    """Return an order; None if there is no such one."""
    rows = await transaction.execute("SELECT id, sku, quantity, state FROM orders WHERE id = ?", [order_id])
    for id_, sku, quantity, state in rows:
        return Order(id=str(id_), sku=str(sku), quantity=int(str(quantity)), state=str(state))
    return None


async def add_packed(transaction: Transaction, orders: Sequence[Order]) -> None:
    """Add what was packed to the statistics."""
    await trio.lowlevel.checkpoint()
    for order in orders:
        await transaction.execute(
            "INSERT INTO packed VALUES (?, ?) ON CONFLICT (sku) DO UPDATE SET quantity = quantity + excluded.quantity",
            [order.sku, order.quantity],
        )


class Board:
    """Tells watchers what happens."""

    def __init__(self) -> None:
        self._watchers: set[trio.MemorySendChannel[Order]] = set()

    def tell(self, order: Order) -> None:
        """Tell all who watch; never blocks."""
        for watcher in self._watchers:
            try:
                watcher.send_nowait(order)
            except trio.WouldBlock:
                continue

    @contextmanager
    def watch(self) -> Generator[trio.MemoryReceiveChannel[Order]]:
        """Watch while inside."""
        send, receive = trio.open_memory_channel[Order](_WAITING)
        self._watchers.add(send)
        try:
            yield receive
        finally:
            self._watchers.discard(send)


@attrs.frozen(kw_only=True)
class BoardDriver(Driver[Board]):
    """Opens the board."""

    provides = Board

    config: NoConfig
    context: Context

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Board]:
        """Yield a board that nobody watches yet."""
        await trio.lowlevel.checkpoint()
        yield Board()
