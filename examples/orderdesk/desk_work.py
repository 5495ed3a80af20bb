"""What the desk does with orders, once they are accepted."""

from __future__ import annotations

import logging

import attrs
import trio
from desk_store import Board, Order, add_packed, enter
from kernel_messaging import Publisher
from kernel_timer import Tick

from kernel import Batch, Delivery, Envelope, Failure, answers, handles, payload_converter
from kernel.abc import Transaction, Transactional
from kernel.errors import PermanentError, TransientError

log = logging.getLogger(__name__)
as_order = payload_converter(Order)


async def relay(order: Order, envelope: Envelope, events: Publisher) -> None:
    """Publish what the outbox holds; again after a failure, with the same id."""
    await events.publish(envelope.subject, order, headers={"order": order.id}, id=envelope.id)


class _Settles:
    """Writes what became of an order, and tells of it, in one transaction."""

    def __init__(self, store: Transactional, outbox: Publisher) -> None:
        self.store = store
        self.outbox = outbox

    async def _settle(self, transaction: Transaction, order: Order, state: str) -> None:
        settled = attrs.evolve(order, state=state)
        await enter(transaction, settled)
        await self.outbox.publish(f"order.{state}", settled, headers={"order": order.id}, transaction=transaction)


class Packer(_Settles):
    """Packs orders. Each is packed once, however often its message is delivered."""

    @handles("order.accepted")
    async def pack(self, order: Order, envelope: Envelope, delivery: Delivery) -> None:
        """Pack one order; what it raises has it tried again, or lost."""
        if order.sku == "poison":
            raise PermanentError("we do not sell poison")
        if order.sku == "oil" and delivery.attempt == 1:
            raise TransientError("the barrel is being changed", after=2.0)
        async with self.store.transaction() as transaction:
            if await transaction.once(envelope.id, scope="packer"):
                await self._settle(transaction, order, "packed")


class Mourner(_Settles):
    """Gets the orders that the packer failed at for good."""

    async def __call__(self, failure: Failure, envelope: Envelope) -> None:
        """Note that the order is lost."""
        log.warning("an order is lost: %s", failure.reason)
        order = as_order(failure.payload)
        assert isinstance(order, Order)
        async with self.store.transaction() as transaction:
            if await transaction.once(envelope.id, scope="mourner"):
                await self._settle(transaction, order, "lost")


async def tell(order: Order, board: Board) -> None:
    """Tell those who watch."""
    await trio.lowlevel.checkpoint()
    board.tell(order)


class Statistician:
    """Counts what was packed, many orders at a time."""

    def __init__(self, store: Transactional) -> None:
        self.store = store

    @handles("order.packed")
    async def count(self, orders: list[Order], batch: Batch) -> None:
        """Add up a batch in one transaction; an order that was counted before is not counted again."""
        async with self.store.transaction() as transaction:
            ids = [delivery.envelope.id for delivery in batch.deliveries]
            new = [order for order, id_ in zip(orders, ids, strict=True) if await transaction.once(id_, scope="count")]
            await add_packed(transaction, new)
        log.info("counted %d orders", len(new))


@answers("pricing.quote")
async def quote(sku: str, config: dict[str, int], quantity: int = 1) -> dict[str, object]:
    """Say what an order would cost."""
    await trio.lowlevel.checkpoint()
    if sku not in config:
        raise PermanentError(f"nobody sells {sku}")
    return {"sku": sku, "cents": config[sku] * quantity}


async def report(tick: Tick, store: Transactional) -> None:
    """Say how much was packed."""
    async with store.transaction() as transaction:
        rows = await transaction.execute("SELECT sku, quantity FROM packed ORDER BY sku")
    log.info("packed so far: %s", ", ".join(f"{quantity} x {sku}" for sku, quantity in rows) or "nothing")
