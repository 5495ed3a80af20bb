"""The driver `amqp10`: opens the connections for as long as it lives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel.abc import Broker, Capability, Complaints, Context, Driver, Topology
from kernel.errors import ConflictError, KernelError

from ._addresses import Rabbit4Addresses, RabbitAddresses, addresses
from ._config import Amqp10Config
from ._errors import LinkError, ManagementError
from ._options import Amqp10Options
from ._settings import api_of, link_settings
from .broker.broker import Amqp10Broker
from .broker.catalog import Catalog
from .broker.outbox import Outbox
from .broker.post import Post
from .broker.postponing import Postponer
from .link.keeper import Keeper
from .link.proton import MISSING, Proton, is_installed, load
from .management.directory import Directory


@final
class Amqp10Driver(Driver[Broker]):
    """A broker over AMQP 1.0. What it holds outlives the process."""

    Config: ClassVar[type[object]] = Amqp10Config
    BrokerOptions: ClassVar[type[object] | None] = Amqp10Options
    provides: ClassVar[type[object]] = Amqp10Broker
    capabilities: ClassVar[frozenset[Capability]] = frozenset({
        Capability.DEAD_LETTERS,
        Capability.DELAY,
        Capability.DURABLE,
        Capability.MANDATORY,
        Capability.PRIORITY,
        Capability.REQUEST_REPLY,
    })

    def __init__(self, *, config: Amqp10Config, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def capabilities_of(cls, config: object) -> frozenset[Capability]:
        assert isinstance(config, Amqp10Config)
        return cls.capabilities if config.has_directory else cls.capabilities - {Capability.MANDATORY}

    @classmethod
    @override
    def reads(cls, config: object) -> Iterable[str]:
        assert isinstance(config, Amqp10Config)
        return (tls.ca, tls.certificate, tls.key) if (tls := config.tls) is not None else ()

    @classmethod
    @override
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, Amqp10Config)
        if not is_installed():
            yield MISSING
        yield from config.problems()

    @classmethod
    @override
    def check_topology(cls, config: object, topology: Topology) -> Iterable[str]:
        assert isinstance(config, Amqp10Config)
        if config.has_directory:
            return
        for queue in topology.queues:
            if queue.options is not None:
                yield f'queue "{queue.name}" has `options`, which `dialect = "artemis"` cannot declare'

    @override
    def open(self) -> AbstractAsyncContextManager[Amqp10Broker]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Amqp10Broker]:
        failure: KernelError | None = None
        async with trio.open_nursery() as nursery:
            try:
                wires = _Wires(self._config, self._context, nursery.start_soon, load())
                await wires.connect(nursery)
            except KernelError as error:
                # Raised outside of the nursery, which would wrap it.
                failure = error
            else:
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

    _config: Amqp10Config
    _context: Context
    _start: Callable[[Callable[[], Awaitable[None]]], None]
    _proton: Proton
    _catalog: Catalog = attrs.field(init=False)
    _postponer: Postponer | None = attrs.field(default=None, init=False)
    _sending: Keeper = attrs.field(init=False)
    _consuming: Keeper = attrs.field(init=False)
    broker: Amqp10Broker = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        config, context = self._config, self._context
        names = addresses(config.dialect, with_exchange=config.exchange_in_address)
        directory = None
        if isinstance(names, RabbitAddresses | Rabbit4Addresses):
            directory = Directory(api_of(config, path=context.path), config.virtual_host)
            self._postponer = Postponer(names, directory)
        complaints = Complaints(context)
        self._catalog = Catalog(names, directory)
        self._sending = self._keeper("sending", complaints, _nothing)
        self._consuming = self._keeper("consuming", complaints, self._restore)
        post = Post(context, self._proton, names, Outbox(self._sending), self._postponer, config.text_bodies)
        self.broker = Amqp10Broker(names, self._catalog, directory, post, self._consuming, self._start)

    async def connect(self, nursery: trio.Nursery) -> None:
        """Open both connections, as soon as there is a broker.

        Raises:
            StartupError: if the broker does not let us in.
        """
        await nursery.start(self._sending.run)
        await nursery.start(self._consuming.run)

    async def aclose(self) -> None:
        """Refuse everything from here on.

        Cancellation: Shielded for at most 2 s, in which the broker answers what it has got.
        """
        await self.broker.aclose()
        self._sending.close()
        self._consuming.close()

    def _keeper(self, role: str, complaints: Complaints, restore: Callable[[], Awaitable[None]]) -> Keeper:
        context = self._context
        settings = partial(
            link_settings,
            self._config,
            name=f"{context.service} {context.id} {role}",
            path=context.path,
            close_timeout=context.stop_timeout / 2,
        )
        config = self._config
        return Keeper(
            f"the connection for {role}",
            self._proton,
            settings,
            complaints,
            restore,
            config.backoff_initial,
            config.backoff_max,
        )

    async def _restore(self) -> None:
        """Make exist again what was declared, before anybody uses a new connection."""
        if self._postponer is not None:
            self._postponer.forget()
        try:
            await self._catalog.restore()
        except (ConflictError, ManagementError) as error:
            raise LinkError(f"what was declared cannot be declared again: {error}") from error


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()
