"""What the shop does: fulfil orders, and report."""

from __future__ import annotations

import logging

import attrs
import trio
from kernel_timer import Tick

from kernel import handles

from .book import Book, Order

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class FulfilConfig:
    """The `config` table of the worker."""

    seconds: float = attrs.field(default=0.5, validator=attrs.validators.ge(0))
    """How long it takes to fulfil an order."""


class Fulfil:
    """Fulfils orders. An order for poison fails every time, so that one can see what becomes of it."""

    def __init__(self, book: Book, config: FulfilConfig) -> None:
        self.book = book
        self.config = config

    @handles("order.accepted")
    async def fulfil(self, order: Order) -> None:
        """Fulfil one order; called again if it raises, as the `retry` table says."""
        if order.sku == "poison":
            raise ValueError("nobody can fulfil an order for poison")
        await trio.sleep(self.config.seconds)
        self.book.enter(attrs.evolve(order, state="fulfilled"))


async def report(tick: Tick, book: Book) -> None:
    """Say how the shop is doing, every time the timer ticks."""
    await trio.lowlevel.checkpoint()
    counted = ", ".join(f"{count} {state}" for state, count in sorted(book.count().items()))
    log.info("orders: %s", counted or "none yet")
