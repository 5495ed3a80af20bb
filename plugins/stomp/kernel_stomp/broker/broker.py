"""The broker: one connection to send, and one for each subscription, behind the contract of `kernel.abc.Broker`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Envelope, Pace
from kernel.abc import Broker, Delivery, Queue, Settlements, Spared, Subscription, Topology
from kernel.errors import ConflictError, UnavailableError

from .._errors import LinkError, LinkLostError, LoginRefusedError
from ..core import Frame
from ..link.keeper import Keeper
from ..link.link import Link, open_link
from .catalog import Catalog
from .consumer import Consumer
from .dialect import Wish
from .in_flight import InFlight
from .outbox import Outbox
from .post import Post
from .rabbitmq import EXCLUSIVE_PREFETCH

_LEAVE_TIMEOUT: Final = 1.0
"""Seconds that leaving a subscription waits for the server."""
_SLOWEST: Final = 4
"""Failures in a row from which on the wait before the next try grows no more: a server that is there again is used."""
_PASSING: Final = ("forced", "shut", "stopp", "starting", "internal_error", "disposed")
"""Words in an ERROR that is not about what was asked for, but about a server that has to do with itself."""


@final
@attrs.define(eq=False, repr=False)
class _Held:
    """A connection that a task of the driver keeps open until it is released, whoever asked for it."""

    link: Link | None = attrs.field(default=None, init=False)
    error: LinkError | None = attrs.field(default=None, init=False)
    _opened: trio.Event = attrs.field(factory=trio.Event, init=False)
    _released: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def release(self) -> None:
        """Have the connection closed."""
        self._released.set()

    async def wait_opened(self) -> Link:
        """Return the connection once it is open.

        Raises:
            LinkError: if it cannot be opened.
        """
        await self._opened.wait()
        if self.link is None:
            raise self.error or LinkError("the connection is being closed")
        return self.link

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""
        await self._closed.wait()

    async def run(self, keeper: Keeper) -> None:  # noqa: ASYNC910  the connection may not come about
        """Keep the connection; for the driver's nursery alone."""
        try:
            async with open_link(keeper.settings(), close_timeout=keeper.close_timeout) as self.link:
                self._opened.set()
                await self._released.wait()
        except LinkError as error:
            self.error = error
        except LoginRefusedError as error:
            self.error = LinkError(str(error))  # a server that is starting refuses logins, too
        finally:
            self._opened.set()
            self._closed.set()


@final
@attrs.define(eq=False, repr=False)
class StompBroker(Broker):
    """RabbitMQ or ActiveMQ over STOMP, through connections that heal.

    Sending waits for a connection inside the caller's own deadline. A subscription ends with its connection. A queue
    whose `dead_letters` nobody declared is refused. That a message reaches no queue is not noticed: these servers tell
    nobody.
    """

    _catalog: Catalog
    _keeper: Keeper
    _outbox: Outbox
    _post: Post
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    """Starts a task that lives as long as the driver."""
    _numbers: Iterator[int] = attrs.field(factory=count, init=False)
    """Of subscriptions that make something exist: each id is used once."""
    _pace: Pace = attrs.field(factory=Pace, init=False)
    _spared: Spared = attrs.field(factory=Spared, init=False)
    _settlements: Settlements = attrs.field(factory=Settlements, init=False)
    _consumers: set[Consumer] = attrs.field(factory=set[Consumer], init=False)
    _exclusive: dict[str, Consumer] = attrs.field(factory=dict[str, Consumer], init=False)
    """Queues of one connection alone -> who has had them since they were declared."""

    @override
    async def declare(self, topology: Topology) -> None:
        self._catalog.check(topology)
        for queue in topology.queues:
            if problems := self._outbox.dialect.queue_problems(queue):
                raise ConflictError(problems[0])
        await self._declare(topology)
        self._catalog.add(topology)

    async def restore(self) -> None:
        """Declare again what was declared, on a connection that is new: the server may have forgotten.

        Raises:
            ConflictError: if something exists with other properties.
            LinkError: if there is no connection.
        """
        self._outbox.forget_places()
        await self._perform(self._catalog.all())

    @override
    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self._subscribe(subscription)

    @asynccontextmanager
    async def _subscribe(self, subscription: Subscription) -> AsyncGenerator[AsyncIterator[Delivery]]:
        if subscription.prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, not {subscription.prefetch}")
        consumer = await self._join(subscription)
        self._consumers.add(consumer)
        try:
            yield consumer
        finally:
            with trio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                await consumer.leave()
            self._consumers.discard(consumer)
            if consumer.spec is not None and consumer.spec.exclusive:
                self._exclusive.pop(subscription.queue, None)
                self._catalog.forget(subscription.queue)

    @override
    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        frame = self._outbox.frame(envelope, exchange=exchange, after=envelope.delay)
        if envelope.delay > 0:
            target = "" if exchange else envelope.subject
            await self._outbox.postpone(frame, delay=envelope.delay, target=target)
        else:
            await self._outbox.send(frame)

    async def aclose(self) -> None:
        """End all subscriptions, and wait for the answers to what was sent for their deliveries.

        Cancellation: Shielded for at most 2 s.
        """
        for consumer in self._consumers:
            consumer.end(lambda: UnavailableError("the connection to the server is closed"))
        await self._settlements.aclose()

    async def _declare(self, topology: Topology) -> None:
        failures = 0
        while True:
            failures += 1
            await self._keeper.link()
            try:
                await self._perform(topology)
            except (LinkError, LoginRefusedError) as error:
                await self._wait(error, failures)
            else:
                return

    async def _perform(self, topology: Topology) -> None:
        """Make a topology exist, on a connection for that alone: the server ends it at the first mistake."""
        await trio.lowlevel.checkpoint()
        queues = {queue.name: queue for queue in self._catalog.resolved(topology.queues)}
        for binding in topology.bindings:
            known = self._catalog.queue(binding.queue)
            if binding.queue not in queues and known is not None:
                queues[binding.queue] = known
        keeps = self._outbox.dialect.keeps_exclusive
        lasting = [queue for queue in queues.values() if not (queue.exclusive and keeps)]
        if lasting:
            async with open_link(self._keeper.settings()) as link:
                for queue in lasting:
                    await self._make(link, queue, topology)
        for queue in queues.values():
            if queue.exclusive and keeps:
                await self._make_exclusive(queue, topology)

    async def _make(self, link: Link, queue: Queue, topology: Topology) -> None:  # noqa: ASYNC910  there are frames
        wanted = [binding for binding in topology.bindings if binding.queue == queue.name]
        bindings = list(dict.fromkeys([*self._catalog.bindings(queue.name), *wanted]))
        for frame in self._outbox.dialect.declarations(queue, bindings):
            try:
                await link.request(Frame(frame.command, {**frame.headers, "id": f"made-{next(self._numbers)}"}))
            except LinkLostError as error:
                raise _refusal(f'queue "{queue.name}" cannot be declared', error) from error

    async def _make_exclusive(self, queue: Queue, topology: Topology) -> None:
        consumer = self._exclusive.get(queue.name)
        if consumer is None or consumer.link.lost is not None:
            wish = Wish(queue=queue.name, spec=queue, bindings=(), prefetch=EXCLUSIVE_PREFETCH)
            consumer, link = await self._open(wish)
            self._exclusive[queue.name] = consumer
            try:
                await self._make(link, queue, topology)
            except BaseException:
                del self._exclusive[queue.name]
                consumer.release()
                raise
        else:
            await self._make(consumer.link, queue, topology)

    async def _join(self, subscription: Subscription) -> Consumer:
        name = subscription.queue
        failures = 0
        while True:
            failures += 1
            spec = self._catalog.queue(name)
            if spec is not None and spec.exclusive:
                self._check_exclusive(name)
                if name in self._exclusive:
                    await trio.lowlevel.checkpoint()
                    return self._take_exclusive(subscription)
            if spec is None and not self._outbox.dialect.may_consume(name):
                raise ConflictError(f'nobody here declares queue "{name}": name it in `queues` of the driver')
            await self._keeper.link()
            wish = Wish(
                queue=name,
                spec=spec,
                bindings=self._catalog.bindings(name),
                prefetch=subscription.prefetch,
            )
            try:
                consumer, _ = await self._open(wish)
            except LinkError as error:
                await self._wait(_refusal(f'queue "{name}" cannot be consumed from', error), failures)
            else:
                consumer.in_flight.reply_exchange = subscription.reply_exchange
                return consumer

    async def _open(self, wish: Wish) -> tuple[Consumer, Link]:
        """Open a connection and have its messages taken.

        Raises:
            LinkError: if the server refuses that, or there is no connection.
        """
        held = _Held()
        supply = self._outbox.dialect.supply(wish)
        in_flight = InFlight(
            wish,
            supply,
            self._post,
            self._pace,
            self._start,
            held.release,
            self._spared,
            self._settlements,
        )
        consumer = Consumer(wish, supply, self._post, held.release, in_flight, wish.prefetch)
        self._start(lambda: held.run(self._keeper))
        try:
            link = await held.wait_opened()
            await consumer.begin(link)
        except BaseException:
            held.release()
            with trio.move_on_after(_LEAVE_TIMEOUT, shield=True):
                await held.wait_closed()
            raise
        return consumer, link

    async def _wait(self, error: Exception, failures: int) -> None:
        """Wait a while before the next try; raise what would be the same again."""
        if isinstance(error, ConflictError):
            raise error
        if failures > 1:  # one may be that of a connection that has just been lost
            self._post.log.warning("waits for the server", error=str(error))
        await trio.sleep(max(0.05, self._keeper.backoff.wait(min(failures, _SLOWEST))))

    def _check_exclusive(self, name: str) -> None:
        """Raise ConflictError if somebody has a queue that is for one consumer, or if it is gone."""
        is_gone = self._outbox.dialect.keeps_exclusive and name not in self._exclusive
        if is_gone or any(consumer.queue == name for consumer in self._consumers):
            raise ConflictError(f'queue "{name}" is exclusive, and another consumer has it, or had it')

    def _take_exclusive(self, subscription: Subscription) -> Consumer:
        consumer = self._exclusive[subscription.queue]
        consumer.prefetch = subscription.prefetch
        consumer.in_flight.reply_exchange = subscription.reply_exchange
        return consumer


def _refusal(what: str, error: LinkError) -> Exception:
    """Return a mistake of who asked, where the server says that it is one; else the error as it is."""
    text = error.text if isinstance(error, LinkLostError) else ""
    if text and not any(word in text.lower() for word in _PASSING):
        return ConflictError(f"{what}: {text}")
    return error
