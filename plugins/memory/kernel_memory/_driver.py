"""The driver `memory`: one broker for each of its lives."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, final

import attrs
import trio
from typing_extensions import override

from kernel.abc import Broker, ByFields, Capability, Context, Driver, Topology

from ._broker import MemoryBroker


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class MemoryConfig(ByFields):
    """The table of a driver `memory`."""

    max_length: int = attrs.field(default=100_000, validator=attrs.validators.ge(1))
    """Messages in a queue that names no bound of its own."""
    deduplication_limit: int = attrs.field(default=1_000_000, validator=attrs.validators.ge(1))
    """Ids that a queue with a `deduplication_window` remembers; beyond that, it forgets the oldest early."""


@final
class MemoryDriver(Driver[Broker]):
    """Holds queues in the memory of the process. A restart of the driver begins with empty queues."""

    Config: ClassVar[type[object]] = MemoryConfig
    provides: ClassVar[type[object]] = MemoryBroker
    capabilities: ClassVar[frozenset[Capability]] = frozenset({
        Capability.ALL_OR_NOTHING,
        Capability.DELAY,
        Capability.PRIORITY,
        Capability.TTL,
        Capability.ORDERING,
        Capability.DEDUPLICATION,
        Capability.REQUEST_REPLY,
        Capability.MANDATORY,
        Capability.MAX_LENGTH,
        Capability.DEAD_LETTERS,
        Capability.PEEK,
    })

    def __init__(self, *, config: MemoryConfig, context: Context) -> None:
        self._config: Final = config
        self._context: Final = context

    @classmethod
    @override
    def check_shared(cls, config: object) -> Iterable[str]:
        yield (
            "keeps its queues in one process, so that each of several would have its own: "
            'write plugin = "sqlite", or that of a broker of its own such as "amqp", or processes = 1'
        )

    @classmethod
    @override
    def remains(cls, config: object, topology: Topology) -> Iterable[str]:
        for queue in topology.queues:
            yield (
                f'queue "{queue.name}" is unbound, and nobody consumes it; what waits in it then stays there until the'
                " service ends"
            )

    @classmethod
    @override
    def preload(cls) -> None:
        for module in ("._consumer", "._store"):
            importlib.import_module(module, __package__)

    @override
    def open(self) -> AbstractAsyncContextManager[MemoryBroker]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[MemoryBroker]:
        from ._ledger import Ledger  # noqa: PLC0415  as its queues, which `kernel check` has no use for
        from ._store import Store  # noqa: PLC0415

        store = Store(
            self._config.max_length, self._config.deduplication_limit, Ledger(self._context.id, self._context.emit)
        )
        broker = MemoryBroker(store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.timers.run)
            try:
                yield broker
            finally:
                if held := broker.close():
                    self._context.log.warning("what queues still hold ends with the driver", queues=held)
                nursery.cancel_scope.cancel()
