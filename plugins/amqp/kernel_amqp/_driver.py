"""The driver `amqp`: opens the connections for as long as it lives."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel import Usage
from kernel.abc import Broker, Capability, Complaints, Context, Driver, Topology
from kernel.errors import ConflictError, KernelError, StartupError

from ._config import AmqpConfig
from ._settings import link_settings
from ._tables import AmqpOptions
from .broker.advice import advice, problems_of, remains
from .broker.broker import AmqpBroker
from .broker.catalog import Catalog
from .broker.declaring import Step, perform
from .broker.delays import PLUGIN
from .broker.naming import Names
from .broker.outbox import Outbox
from .broker.post import Post
from .broker.postponing import Postponer
from .link.connect import LinkSettings
from .link.keeper import Keeper
from .link.session import Session


@final
class AmqpDriver(Driver[Broker]):
    """A broker over AMQP 0-9-1. What it holds outlives the process."""

    Config: ClassVar[type[object]] = AmqpConfig
    BrokerOptions: ClassVar[type[object] | None] = AmqpOptions
    provides: ClassVar[type[object]] = AmqpBroker
    capabilities: ClassVar[frozenset[Capability]] = frozenset({
        Capability.DEAD_LETTERS,
        Capability.DELAY,
        Capability.DURABLE,
        Capability.MANDATORY,
        Capability.MAX_LENGTH,
        Capability.ORDERING,
        Capability.PRIORITY,
        Capability.REQUEST_REPLY,
        Capability.TTL,
    })

    def __init__(self, *, config: AmqpConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, AmqpConfig)
        return (tls.ca, tls.certificate, tls.key) if (tls := config.tls) is not None else ()

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, AmqpConfig)
        yield from config.problems()

    @classmethod
    @override
    def check_topology(cls, config: object, topology: Topology) -> Iterable[str]:
        assert isinstance(config, AmqpConfig)
        return problems_of(config, topology)

    @classmethod
    @override
    def advise(cls, config: object, topologies: Sequence[Topology]) -> Iterable[str]:
        assert isinstance(config, AmqpConfig)
        return advice(config, topologies)

    @classmethod
    @override
    def remains(cls, config: object, topology: Topology) -> Iterable[str]:
        assert isinstance(config, AmqpConfig)
        return remains(config, topology)

    @classmethod
    @override
    def hold_limit(cls, config: object) -> float:
        assert isinstance(config, AmqpConfig)
        return config.consumer_timeout or math.inf

    @override
    def open(self) -> AbstractAsyncContextManager[AmqpBroker]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[AmqpBroker]:
        failure: KernelError | None = None
        async with trio.open_nursery() as nursery:
            try:
                wires = _Wires(self._config, self._context, nursery.start_soon)
                await wires.connect(nursery)
            except KernelError as error:
                # Raised outside of the nursery, which would wrap it.
                failure = error
            else:
                self._context.report_usage(wires.usage)
                try:
                    yield wires.broker
                finally:
                    await wires.aclose()  # noqa: ASYNC102  it shields itself
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


@final
@attrs.define(eq=False, repr=False)
class _Wires:
    """What the driver is made of, and who knows whom."""

    _config: AmqpConfig
    _context: Context
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    _catalog: Catalog = attrs.field(init=False)
    _sending: Keeper = attrs.field(init=False)
    _consuming: Keeper = attrs.field(init=False)
    broker: AmqpBroker = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        names = Names(self._config.prefix)
        self._catalog = Catalog(names.of_config(self._config), self._context.id, self._context.log)
        complaints = Complaints(self._context)
        context = self._context
        settings = partial(
            link_settings,
            self._config,
            name=f"{context.service} {context.id}",
            path=context.path,
            close_timeout=context.stop_timeout / 2,
        )
        self._sending = self._keeper("sending", partial(settings, role="sending"), complaints, lambda: None)
        self._consuming = self._keeper(
            "consuming", partial(settings, role="consuming"), complaints, self._catalog.forget_exclusive
        )
        outbox = Outbox(self._sending)
        postponer = Postponer(self._sending, outbox, self._config.delayed_exchange)

        def make_post(broker: AmqpBroker) -> Post:
            context, kind = self._context, self._config.delay_queues
            return Post(context.id, context.log, context.emit, outbox, postponer, broker.redeclare, kind)

        self.broker = AmqpBroker(
            self._catalog,
            names,
            self._sending,
            self._consuming,
            outbox,
            postponer,
            make_post,
            self._start,
            self._config.heartbeat,
            context.service,
        )

    def usage(self) -> Usage:
        """Return how many of the two connections are there. May be called from any thread."""
        return Usage(used=sum(keeper.current is not None for keeper in (self._sending, self._consuming)), limit=2)

    async def connect(self, nursery: trio.Nursery) -> None:
        """Open both connections, as soon as there is a broker, and declare what the tables of the driver ask for.

        Raises:
            LinkError: if a connection breaks meanwhile.
            StartupError: if the broker does not let us in, or refuses what the tables ask for.
        """
        await nursery.start(self._sending.run)
        await nursery.start(self._consuming.run)
        link = (await self._consuming.session()).link
        try:
            if self._config.delayed_exchange:
                await perform(link, [Step("exchange", PLUGIN.name, PLUGIN.methods()[0])])
            await self._catalog.declare_own(link)
        except ConflictError as error:
            raise StartupError(f"{self._context.id}: {error}") from error

    async def aclose(self) -> None:
        """Refuse everything from here on.

        Cancellation: Shielded for at most 2 s, in which the broker answers what it has got.
        """
        await self.broker.aclose()
        self._sending.close()
        self._consuming.close()

    def _keeper(
        self, role: str, settings: Callable[[], LinkSettings], complaints: Complaints, lost: Callable[[], None]
    ) -> Keeper:
        return Keeper(
            f"the connection for {role}",
            settings,
            complaints,
            self._restore,
            self._config.backoff_initial,
            self._config.backoff_max,
            lost,
        )

    async def _restore(self, session: Session) -> None:
        await self._catalog.restore(session.link)
