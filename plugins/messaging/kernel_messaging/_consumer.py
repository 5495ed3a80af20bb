"""The dispatcher `consumer`: deliveries of one queue of any broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import new_id
from kernel.abc import (
    Binding,
    Broker,
    ByFields,
    Capability,
    Context,
    Delivery,
    Dispatcher,
    Exchange,
    Intake,
    Queue,
    Subscription,
    Topology,
    check_partition_by,
    check_window,
)
from kernel.errors import ConflictError, StartupError, SubscriptionLostError

from ._cancellation import CANCEL_EXCHANGE, CancellationQueue, Hearer

_POSITIVE: Final = attrs.validators.optional(attrs.validators.gt(0))
_LONGEST: Final = 255
"""Bytes of a name or pattern: as many as any broker carries."""


def _check_name(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if (size := len(value.encode())) > _LONGEST:
        raise ValueError(f"'{attribute.name}' must have at most {_LONGEST} bytes in UTF-8, and has {size}")


def _check_queue(config: object, attribute: attrs.Attribute[str], value: str) -> None:
    assert isinstance(config, ConsumerConfig)
    _check_name(config, attribute, value)
    if (size := len(config.dead_letter_queue.encode())) > _LONGEST and config.dead_letters is None:
        raise ValueError(
            f"'{attribute.name}' must leave room for its dead letters, whose queue ends in \".dead\": at most"
            f" {_LONGEST} bytes in UTF-8 together, and it has {size}; or give `dead_letters` a name"
        )


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConsumerConfig(ByFields):
    """The table of a dispatcher `consumer`."""

    queue: str = attrs.field(validator=attrs.validators.and_(attrs.validators.min_len(1), _check_queue))
    bindings: tuple[str, ...] = attrs.field(default=(), validator=attrs.validators.deep_iterable(_check_name))
    """Patterns of subjects that the queue gets from `exchange`."""
    exchange: str = attrs.field(
        default="events", validator=attrs.validators.and_(attrs.validators.min_len(1), _check_name)
    )
    durable: bool | None = None
    """Whether the queue must survive the broker's process; None leaves it to what the broker can do."""
    max_length: int | None = attrs.field(default=None, validator=_POSITIVE)
    """Messages; None leaves it to the broker."""
    overflow: str = attrs.field(default="refuse", validator=attrs.validators.in_(("refuse", "drop_oldest")))
    ttl: float | None = attrs.field(default=None, validator=_POSITIVE)
    """Seconds after which a waiting message is put aside."""
    dead_letters: str | None = attrs.field(default=None, validator=attrs.validators.optional(_check_name))
    """The queue for what is put aside; None is `<queue>.dead`, and empty drops it."""
    partition_by: str = attrs.field(default="", validator=check_partition_by)
    """`subject` or `header:NAME`: messages with the same one are handled one after the other; empty orders none."""
    deduplication_window: float = attrs.field(default=0.0, validator=check_window)
    """Seconds in which the queue takes a message of one id once; 0 takes all."""
    reply_exchange: str = ""
    """The exchange that replies are sent to; empty sends each straight to the queue that it is for."""
    cancellable: bool = False
    """Whether requests whose calls are cancelled are revoked."""
    cancel_exchange: str = attrs.field(default=CANCEL_EXCHANGE, validator=attrs.validators.min_len(1))
    """Where the callers tell of cancelled calls."""
    options: object = None
    """What only this broker knows about queues: an instance of its `BrokerOptions`."""
    declare: bool = True
    """Whether to make queue, dead letters, exchanges and bindings exist; if not, somebody else does."""

    @property
    def dead_letter_queue(self) -> str:
        """The name of the queue for what is put aside; empty for none."""
        return f"{self.queue}.dead" if self.dead_letters is None else self.dead_letters

    def topology(self) -> Topology:
        """Return what must exist."""
        durable = self.durable is not False
        queue = Queue(
            name=self.queue,
            durable=durable,
            max_length=self.max_length,
            overflow=self.overflow,
            ttl=self.ttl,
            dead_letters=self.dead_letter_queue,
            partition_by=self.partition_by,
            deduplication_window=self.deduplication_window,
            options=self.options,
        )
        dead = [Queue(name=queue.dead_letters, durable=durable)] if queue.dead_letters else []
        return Topology(
            exchanges=[Exchange(name=name) for name in self._exchanges()],
            queues=[*dead, queue],
            bindings=[Binding(queue=self.queue, exchange=self.exchange, pattern=text) for text in self.bindings],
        )

    def _exchanges(self) -> Iterable[str]:
        cancel_exchange = self.cancel_exchange if self.cancellable else ""
        named = (self.exchange if self.bindings else "", self.reply_exchange, cancel_exchange)
        return dict.fromkeys(name for name in named if name)


@final
class ConsumerDispatcher(Dispatcher):
    """Brings in the deliveries of a queue; takes as many ahead as may be in flight, and no more.

    A subscription that breaks with its connection is made again on the next one, and the workers do not notice. One
    that breaks otherwise is raised, so that the supervisor starts the dispatcher again.
    """

    Config: ClassVar[type[object]] = ConsumerConfig
    needs: ClassVar[type[object] | None] = Broker
    speaks: ClassVar[bool] = True

    def __init__(self, *, config: ConsumerConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context
        self._hearer: Final = Hearer() if config.cancellable else None

    @classmethod
    @override
    def requires(cls, config: object) -> frozenset[Capability]:
        assert isinstance(config, ConsumerConfig)
        wanted = {
            Capability.DURABLE: config.durable is True,
            Capability.MAX_LENGTH: config.max_length is not None,
            Capability.TTL: config.ttl is not None,
            Capability.DEAD_LETTERS: bool(config.dead_letter_queue) and config.declare,
            Capability.ORDERING: bool(config.partition_by),
            Capability.DEDUPLICATION: config.deduplication_window > 0,
            Capability.REQUEST_REPLY: bool(config.reply_exchange) or config.cancellable,
        }
        return frozenset(capability for capability, is_wanted in wanted.items() if is_wanted)

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, ConsumerConfig)
        if config.dead_letter_queue == config.queue:
            yield "`dead_letters` names the queue itself: what is put aside would come again for ever"
        if config.overflow == "drop_oldest" and config.max_length is None:
            yield "`overflow` without `max_length`: give the length at which the oldest are dropped"
        for key in ("partition_by", "deduplication_window"):
            if getattr(config, key) and not config.declare:
                yield f"`{key}` has no effect with `declare = false`: whoever declares the queue says so"

    @classmethod
    @override
    def topology(cls, config: object) -> Topology | None:
        assert isinstance(config, ConsumerConfig)
        return config.topology() if config.declare else None

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        if self._config.declare:
            await self._declare(self._config.topology())
        else:
            await trio.lowlevel.checkpoint()
        if self._hearer is None:
            yield
            return
        async with trio.open_nursery() as nursery:
            await nursery.start(self._hearer.listen, self._context.broker, self._cancellations)
            yield
            nursery.cancel_scope.cancel()

    async def _declare(self, topology: Topology) -> None:
        try:
            await self._context.broker.declare(topology)
        except ConflictError as error:  # to try again changes nothing
            raise StartupError(f"{self._context.id}: {error}") from error

    def _cancellations(self) -> CancellationQueue:
        return CancellationQueue(
            name=f"{self._context.service}.{self._context.name}.cancellations.{new_id()}",
            exchange=self._config.cancel_exchange,
            patterns=self._config.bindings or ("#",),
        )

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        subscription = Subscription(
            queue=self._config.queue, prefetch=intake.prefetch, reply_exchange=self._config.reply_exchange
        )
        is_first = True
        while True:
            with suppress(SubscriptionLostError), self._explaining():
                async with self._context.broker.subscribe(subscription) as deliveries:
                    if is_first:
                        task_status.started()
                    is_first = False
                    await self._submit_all(deliveries, intake)
                    return

    @contextmanager
    def _explaining(self) -> Generator[None]:
        """Say what to do about a queue that is not there, or not as it has to be, and that is somebody else's to declare."""
        try:
            yield
        except ConflictError as error:
            if self._config.declare:
                raise
            raise ConflictError(
                f"{error}; `declare = false` leaves it to somebody else: start what declares the queue, or leave that key"
                " out here"
            ) from error

    async def _submit_all(self, deliveries: AsyncIterator[Delivery], intake: Intake) -> None:
        async for delivery in deliveries:
            if self._hearer is None:
                await intake.submit(delivery)
            else:
                await self._hearer.submit(intake, delivery)
