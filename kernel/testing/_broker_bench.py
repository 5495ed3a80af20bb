"""What the cases of `check_broker` work with: a broker, fresh names and bounded waits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar, final

import attrs
import trio

from .._core.envelope import NO_HEADERS, Ack, Envelope, new_id
from ..abc import Binding, Broker, Capability, Delivery, Exchange, Queue, Subscription, Topology
from ._cancel import cancel_at_checkpoint

ErrorT = TypeVar("ErrorT", bound=Exception)

PATIENCE: Final = 10.0
"""Seconds within which what must happen must have happened; a real broker has a network to cross."""
QUIET: Final = 0.3
"""Seconds in which what must not happen has not happened."""
DELAY: Final = 1.0
"""Seconds of the delays and lives that cases ask for: longer than `QUIET`."""
_ENDLESS: Final = 1000
"""Messages; no case sends as many."""


@final
@attrs.frozen(repr=False)
class Bench:
    """One broker for one case; names are new in each, so that what an earlier run left behind is out of the way."""

    broker: Broker
    tag: str = attrs.field(factory=new_id)
    durable: bool = False
    """Whether what is declared outlives the broker."""
    prioritised: object = None
    """Options of queues that tell priorities apart."""

    def name(self, role: str) -> str:
        """Return a name that nobody else uses."""
        return f"{role}-{self.tag}"

    async def queue(
        self,
        role: str = "queue",
        *,
        exclusive: bool = False,
        max_length: int | None = None,
        overflow: str = "refuse",
        ttl: float | None = None,
        dead_letters: str = "",
        partition_by: str = "",
        deduplication_window: float = 0.0,
        options: object = None,
    ) -> str:
        """Declare a queue, and the one for its dead letters; returns its name."""
        queue = Queue(
            name=self.name(role),
            durable=self.durable and not exclusive,
            exclusive=exclusive,
            max_length=max_length,
            overflow=overflow,
            ttl=ttl,
            dead_letters=dead_letters and self.name(dead_letters),
            partition_by=partition_by,
            deduplication_window=deduplication_window,
            options=options,
        )
        dead = [Queue(name=queue.dead_letters, durable=self.durable)] if dead_letters else []
        await self.broker.declare(Topology(queues=[*dead, queue]))
        return queue.name

    async def bind(self, queue: str, *patterns: str) -> str:
        """Bind a queue to the exchange of this bench; returns the exchange's name."""
        exchange = Exchange(name=self.name("exchange"), durable=self.durable)
        bindings = [Binding(queue=queue, exchange=exchange.name, pattern=pattern) for pattern in patterns]
        await self.broker.declare(Topology(exchanges=[exchange], bindings=bindings))
        return exchange.name

    async def put(self, queue: str, *texts: str, delay: float = 0.0, priority: int = 0) -> None:
        """Send one message for each text straight to a queue."""
        await trio.lowlevel.checkpoint()
        for text in texts:
            envelope = Envelope(subject=queue, body=text.encode(), delay=delay, priority=priority)
            await self.broker.send(envelope, exchange="", mandatory=True)

    def consume(
        self, queue: str, *, prefetch: int = 10, reply_exchange: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Subscribe to a queue."""
        wish = Subscription(queue=queue, prefetch=prefetch, reply_exchange=reply_exchange)
        return self.broker.subscribe(wish)

    async def drain(self, queue: str) -> list[str]:
        """Take and acknowledge what is in a queue; returns the texts.

        Raises:
            AssertionError: if the queue does not come to an end, because what is acknowledged comes again.
        """
        texts: list[str] = []
        async with self.consume(queue) as deliveries:
            with trio.move_on_after(QUIET) as quiet:
                async for delivery in deliveries:
                    texts.append(text_of(delivery))
                    assert len(texts) < _ENDLESS, f"{text_of(delivery)!r} comes again and again"
                    with trio.CancelScope(shield=True):
                        await delivery.settle(Ack())
                    quiet.deadline = trio.current_time() + QUIET
        return texts


Case = Callable[[Bench], Awaitable[None]]


@final
@attrs.frozen(repr=False)
class Promise:
    """One sentence of the contract and the case that fails if it is broken."""

    text: str
    case: Case
    needs: frozenset[Capability] = frozenset()


def text_of(delivery: Delivery) -> str:
    """Return the text that was put."""
    return delivery.envelope.body.decode()


async def take(deliveries: AsyncIterator[Delivery]) -> Delivery:
    """Return the next delivery.

    Raises:
        AssertionError: if none comes within `PATIENCE`, or the iterator ends.
    """
    with trio.move_on_after(PATIENCE):
        delivery = await anext(deliveries, None)
        assert delivery is not None, "the iterator of a subscription ended by itself"
        return delivery
    raise AssertionError(f"nothing was delivered within {PATIENCE:g} s")


async def take_all(deliveries: AsyncIterator[Delivery], count: int) -> list[Delivery]:
    """Return that many deliveries."""
    await trio.lowlevel.checkpoint()
    return [await take(deliveries) for _ in range(count)]


async def take_acked(deliveries: AsyncIterator[Delivery], count: int) -> list[str]:
    """Take that many deliveries one after the other, acknowledge each, and return their texts."""
    await trio.lowlevel.checkpoint()
    texts: list[str] = []
    for _ in range(count):
        delivery = await take(deliveries)
        texts.append(text_of(delivery))
        await delivery.settle(Ack())
    return texts


async def refusal(kind: type[ErrorT], operation: Callable[[], Awaitable[object]]) -> ErrorT | None:
    """Run an operation; returns the error of that kind that it raised, or None if it was done."""
    await trio.lowlevel.checkpoint()
    try:
        await operation()
    except kind as error:
        return error
    return None


async def expect_quiet(deliveries: AsyncIterator[Delivery], *, seconds: float = QUIET) -> None:
    """Raise AssertionError if something is delivered; the iterator must not be used after it."""
    with trio.move_on_after(seconds):
        async for delivery in deliveries:
            raise AssertionError(f"{text_of(delivery)!r} was delivered, attempt {delivery.attempt}")


async def cut(operation: Callable[[], Awaitable[None]], at: int) -> bool:
    """Run an operation cancelled at its n-th checkpoint, 0 for before its start; returns whether it came so far."""
    if at:
        return await cancel_at_checkpoint(operation, at)
    with trio.CancelScope() as scope:
        scope.cancel()
        await operation()
    return True


def headers_of(delivery: Delivery) -> dict[str, object]:
    """Return the headers of a delivery."""
    return dict(delivery.envelope.headers or NO_HEADERS)
