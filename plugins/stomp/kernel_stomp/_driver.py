"""The driver `stomp`: opens the connections for as long as it lives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel.abc import Broker, Capability, Complaints, Context, Driver, Topology
from kernel.errors import KernelError

from ._config import StompConfig, StompOptions, is_loopback
from ._settings import link_settings
from .broker.activemq import ActiveMq
from .broker.broker import StompBroker
from .broker.catalog import Catalog
from .broker.dialect import Dialect
from .broker.outbox import Outbox
from .broker.post import Post
from .broker.rabbitmq import RabbitMq
from .link.keeper import Backoff, Keeper


@final
class StompDriver(Driver[Broker]):
    """A broker over STOMP. What it holds outlives the process."""

    Config: ClassVar[type[object]] = StompConfig
    BrokerOptions: ClassVar[type[object] | None] = StompOptions
    provides: ClassVar[type[object]] = StompBroker
    capabilities: ClassVar[frozenset[Capability]] = RabbitMq(frozenset()).capabilities

    def __init__(self, *, config: StompConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def capabilities_of(cls, config: object) -> frozenset[Capability]:
        assert isinstance(config, StompConfig)
        return dialect_of(config).capabilities

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, StompConfig)
        return (tls.ca, tls.certificate, tls.key) if (tls := config.tls) is not None else ()

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, StompConfig)
        yield from config.problems()

    @classmethod
    @override
    def check_topology(cls, config: object, topology: Topology) -> Iterable[str]:
        assert isinstance(config, StompConfig)
        dialect = dialect_of(config)
        return [problem for queue in topology.queues for problem in dialect.queue_problems(queue)]

    @classmethod
    @override
    def advise(cls, config: object, topologies: Sequence[Topology]) -> Iterable[str]:
        assert isinstance(config, StompConfig)
        if config.tls is not None and not config.tls.verify:
            yield "`tls.verify` is false: whoever is between can be the server, and read and change everything"
        foreign = [host for host, _ in config.addresses if not is_loopback(host)]
        if config.tls is None and config.login and foreign:
            yield f"the passcode goes in the clear to {', '.join(foreign)}: give the table `tls`"

    @override
    def open(self) -> AbstractAsyncContextManager[StompBroker]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[StompBroker]:
        failure: KernelError | None = None
        async with trio.open_nursery() as nursery:
            try:
                wires = _Wires(self._config, self._context, nursery.start_soon)
                await nursery.start(wires.keeper.run)
            except KernelError as error:
                # Raised outside of the nursery, which would wrap it.
                failure = error
            else:
                try:
                    yield wires.broker
                finally:
                    await wires.broker.aclose()  # noqa: ASYNC102  it shields itself
                    wires.keeper.close()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


def dialect_of(config: StompConfig) -> Dialect:
    """Return how the server of a manifest is spoken to."""
    return (
        RabbitMq(frozenset(config.exchanges))
        if config.server == "rabbitmq"
        else ActiveMq(config.delays, frozenset(config.queues))
    )


@final
@attrs.define(eq=False, repr=False)
class _Wires:
    """What the driver is made of, and who knows whom."""

    _config: StompConfig
    _context: Context
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    keeper: Keeper = attrs.field(init=False)
    broker: StompBroker = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config, context = self._config, self._context
        settings = partial(link_settings, config, context.path)
        self.keeper = Keeper(
            "the connection for sending",
            settings,
            Complaints(context),
            self._restore,
            Backoff(initial=config.backoff_initial, longest=config.backoff_max),
            context.stop_timeout / 2,
        )
        outbox = Outbox(dialect_of(config), self.keeper, settings)
        post = Post(context.id, context.log, context.emit, outbox)
        self.broker = StompBroker(Catalog(), self.keeper, outbox, post, self._start)

    async def _restore(self) -> None:
        await self.broker.restore()
