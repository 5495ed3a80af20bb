"""The broker: two connections behind the contract of `kernel.abc.Broker`, one to send and one to consume.

A broker that is short of memory reads nothing from connections that send: acknowledgements must not wait behind.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Final, final

import attrs
import trio
from pamqp import commands
from typing_extensions import override

from kernel import Envelope, Pace
from kernel.abc import (
    Broker,
    Delivery,
    Lease,
    Leasing,
    Queue,
    Settlements,
    Spared,
    Subscription,
    Topology,
    check_lease_name,
)
from kernel.errors import ConflictError, UnavailableError

from .._errors import ChannelClosedError, LinkLostError, MissingError
from ..link.keeper import Keeper
from ..link.session import Held, Session
from .catalog import Catalog
from .conflicts import consume_error
from .consumer import Consumer
from .declaring import perform, queue_step
from .headers import SUBJECT
from .leases import PREFIX, AmqpLease
from .letters import write_letter
from .naming import Names
from .outbox import Outbox
from .post import Post
from .postponing import Postponer
from .streams import Progress, is_stream
from .topology import options_of

_LEAVE_TIMEOUT: Final = 1.0
"""Seconds that leaving a subscription waits for the broker."""
_LOCKED_LONGEST: Final = 20.0
"""Seconds that a queue may be another connection's at most, whatever the heartbeat: a component has to start in time."""
_LOCKED_WAIT: Final = 0.5
"""Seconds between two looks whether a queue is still another connection's."""


@final
@attrs.define(eq=False, repr=False)
class AmqpBroker(Broker, Leasing):
    """RabbitMQ, through connections that heal.

    Sending waits for a connection inside the caller's own deadline. A subscription ends with its connection. A queue
    whose `dead_letters` nobody declared is refused. Where several queues are bound and one of them is full, the
    others may get what is refused. To declare a queue that is for one connection alone waits for two heartbeats while
    it is another's: that may be our own which broke, and which the broker believes in for so long.
    """

    _catalog: Catalog
    _names: Names
    _sending: Keeper
    _consuming: Keeper
    _outbox: Outbox
    _postponer: Postponer
    _make_post: Callable[[AmqpBroker], Post]
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _heartbeat: float
    """Seconds."""
    _service: str
    """What consumers are called, unless their queue says so."""
    _post: Post = attrs.field(init=False)
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _spared: Spared = attrs.field(factory=Spared, init=False)
    _settlements: Settlements = attrs.field(factory=Settlements, init=False)
    _progress: dict[str, Progress] = attrs.field(factory=dict[str, Progress], init=False)
    """Of streams, by name."""
    _consumers: set[Consumer] = attrs.field(factory=set[Consumer], init=False)

    def __attrs_post_init__(self) -> None:
        self._post = self._make_post(self)

    @override
    async def declare(self, topology: Topology) -> None:
        topology = self._names.of_topology(topology)
        until = trio.current_time() + min(2 * self._heartbeat, _LOCKED_LONGEST)
        while True:
            session = await self._consuming.session()
            try:
                await self._catalog.declare(session.link, topology)
            except LinkLostError:
                await trio.lowlevel.checkpoint()
            except MissingError as error:
                if not error.is_locked or trio.current_time() >= until:
                    raise
                await trio.sleep(_LOCKED_WAIT)
            else:
                return

    @override
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        if subscription.prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, not {subscription.prefetch}")
        subscription = attrs.evolve(
            subscription,
            queue=self._queue_name(subscription.queue),
            reply_exchange=self._names.of(subscription.reply_exchange),
        )
        with self._following(subscription.queue) as progress:
            consumer = await self._join(subscription, progress)
            self._consumers.add(consumer)
            try:
                yield consumer
            finally:
                with trio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                    await consumer.leave()
                self._consumers.discard(consumer)
                self._forget_exclusive(subscription.queue)

    def _forget_exclusive(self, name: str) -> None:
        if (queue := self._catalog.queue(name)) is not None and queue.exclusive:
            self._catalog.forget(queue.name)

    @contextmanager
    def _following(self, name: str) -> Generator[Progress | None]:
        """Note how far a stream is consumed: a subscription goes on where the one before ended, with the same options.

        Raises:
            ConflictError: if somebody consumes it through this driver already.
        """
        queue = self._catalog.queue(name)
        if queue is None or not is_stream(queue):
            yield None
            return
        progress = self._progress.get(name)
        if progress is None or (progress.options != options_of(queue) and not progress.is_used):
            progress = self._progress[name] = Progress(options_of(queue))
        if progress.is_used:
            raise ConflictError(
                f'stream "{name}" is consumed here already: give the other consumer a driver of its own'
            )
        progress.is_used = True
        try:
            yield progress
        finally:
            progress.is_used = False

    # No coroutine of its own: each that a message goes through costs. mypy and pyright differ about what `async def` is.
    @override
    def send(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, envelope: Envelope, *, exchange: str, mandatory: bool = False
    ) -> Coroutine[Any, Any, None]:
        now = 0.0 if envelope.deadline == math.inf else trio.current_time()
        letter, key = write_letter(envelope, now=now), envelope.subject
        if self._names.prefix:
            exchange, key = self._names.of(exchange), key if exchange else self._queue_name(key)
            if key != envelope.subject:
                letter.headers = {**(letter.headers or {}), SUBJECT: envelope.subject}
        if envelope.delay <= 0:
            return self._outbox.publish(letter, envelope.body, exchange=exchange, routing_key=key, mandatory=mandatory)
        kind = self._post.delay_kind(None if exchange else self._catalog.queue(key))
        return self._postponer.publish(
            letter, envelope.body, exchange=exchange, routing_key=key, delay=envelope.delay, kind=kind
        )

    @override
    def lease(self, name: str) -> Lease:
        return AmqpLease(self._sending, name, self._names.of(f"{PREFIX}{check_lease_name(name)}"))

    def _queue_name(self, name: str) -> str:
        """Return what a queue is called on the broker; those of one connection alone have no prefix."""
        own = self._catalog.queue(name)
        return name if own is not None and own.exclusive else self._names.of(name)

    async def redeclare(self, name: str) -> bool:
        """Make a queue exist again that this service has declared; returns whether it has.

        Raises:
            ConflictError: if it exists with other properties.

        Cancellation: Is a checkpoint.
        """
        queue = self._catalog.queue(name)
        session = await self._consuming.session()
        if queue is not None:
            await perform(session.link, [queue_step(queue)])
        await trio.lowlevel.checkpoint()
        return queue is not None

    async def aclose(self) -> None:
        """End all subscriptions, and wait for the answers to what was sent for their deliveries.

        Cancellation: Shielded for at most 2 s.
        """
        for consumer in self._consumers:
            consumer.end(lambda: UnavailableError("the connection to the broker is closed"))
        await self._settlements.aclose()

    async def _join(self, subscription: Subscription, progress: Progress | None) -> Consumer:
        while True:
            session = await self._consuming.session()
            queue = self._catalog.queue(subscription.queue)
            consumer = Consumer(
                subscription,
                queue,
                self._post,
                self._pace,
                self._start,
                self._spared,
                self._service,
                progress,
                self._settlements,
            )
            try:
                await self._consume(session, consumer, subscription.queue, queue)
            except LinkLostError:
                await trio.lowlevel.checkpoint()
            except ChannelClosedError as error:
                raise consume_error(subscription.queue, error) from error
            else:
                return consumer

    async def _consume(self, session: Session, consumer: Consumer, name: str, queue: Queue | None) -> None:
        """Have a consumer fed from a channel of its own."""
        held = await session.hold(on_closed=consumer.lose)
        consumer.start(held)
        try:
            await held.channel.call(commands.Basic.Qos(prefetch_count=consumer.prefetch))
            await held.channel.consume(
                name,
                consumer_tag=consumer.tag,
                on_delivery=consumer.take_in,
                on_cancel=consumer.cancelled,
                exclusive=queue is not None and queue.exclusive,
                arguments=consumer.arguments,
            )
        except BaseException:
            await _drop(consumer, held)  # noqa: ASYNC102  it shields itself
            raise


async def _drop(consumer: Consumer, held: Held) -> None:
    """Have a channel closed, and what it was brought given back.

    The consumer goes first: what it is sending anew would come a second time if the channel were closed meanwhile.
    """
    with trio.move_on_after(_LEAVE_TIMEOUT, shield=True):
        await consumer.leave()
        await held.wait_closed()
    held.release()
