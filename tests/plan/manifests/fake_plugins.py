"""Plugins that do nothing, for manifests that are only checked."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import ClassVar, Literal

import attrs
import trio

from kernel import Envelope, Message, Secret
from kernel._manifest.registry import Registry
from kernel.abc import Broker, Capability, Dispatcher, Driver, Intake, NoConfig, Protocol


class Store:
    """What the driver `store` provides."""


@attrs.frozen(kw_only=True)
class StoreConfig:
    url: str
    password: Secret | None = None
    pool: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    mode: Literal["read", "write"] = "write"
    tags: tuple[str, ...] = ()


class StoreDriver(Driver[Store]):
    Config = StoreConfig
    provides = Store

    def __init__(self, *, config: object, context: object) -> None:
        pass

    def open(self) -> AbstractAsyncContextManager[Store]:
        return nullcontext(Store())

    @classmethod
    def check(cls, config: object) -> Iterable[str]:
        assert isinstance(config, StoreConfig)
        if config.mode == "read" and config.pool > 100:
            yield "a store that is only read needs no more than 100 in its pool"


@attrs.frozen(kw_only=True)
class QueueOptions:
    lazy: bool = False


class QueueDriver(StoreDriver):
    """A broker that can do everything."""

    Config = NoConfig
    provides = Broker
    capabilities = frozenset(Capability)
    BrokerOptions = QueueOptions

    @classmethod
    def check(cls, config: object) -> Iterable[str]:
        return ()


class PoorQueueDriver(QueueDriver):
    """A broker that can do nothing, and knows no options."""

    capabilities = frozenset()
    BrokerOptions = None


class BareDriver(QueueDriver):
    """Does not say what it provides."""

    provides = object
    BrokerOptions = None


class SenderDriver(QueueDriver):
    """Uses a broker and a protocol, as a publisher does."""

    provides = Store
    needs = Broker
    speaks = True


@attrs.frozen(kw_only=True)
class SourceConfig:
    queue: str
    priority: bool = False
    options: object = None


class SourceDispatcher(Dispatcher):
    Config: ClassVar[type[object]] = SourceConfig
    needs = Broker
    speaks = True

    def __init__(self, *, config: object, context: object) -> None:
        pass

    def open(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    @classmethod
    def requires(cls, config: object) -> frozenset[Capability]:
        assert isinstance(config, SourceConfig)
        return frozenset({Capability.PRIORITY}) if config.priority else frozenset()


class TickDispatcher(SourceDispatcher):
    """Needs neither driver nor protocol."""

    Config = NoConfig
    needs = None
    speaks = False

    @classmethod
    def requires(cls, config: object) -> frozenset[Capability]:
        return frozenset()


@attrs.frozen(kw_only=True)
class PageOptions:
    path: str = "/"


class PagesDispatcher(TickDispatcher):
    """Delivers nothing: hosts its workers."""

    WorkerOptions = PageOptions
    delivers = False

    @classmethod
    def check_worker(cls, worker: object, options: object) -> Iterable[str]:
        assert isinstance(options, PageOptions)
        if not options.path.startswith("/"):
            yield f"its path {options.path} must start with /"


class PlainProtocol(Protocol):
    def decode(self, envelope: Envelope) -> Message:
        return Message(subject=envelope.subject, payload=envelope.body)

    def encode(self, message: Message) -> Envelope:
        return Envelope(subject=message.subject)

    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return None


@attrs.frozen(kw_only=True)
class FramedConfig:
    size: int


class FramedProtocol(PlainProtocol):
    """Cannot be used without a table."""

    Config = FramedConfig


class UnfinishedDriver(Driver[None]):
    """Lacks `open`."""


class EchoWorker:
    """What the entry point `echo` of kernel.workers names."""

    async def __call__(self, payload: object) -> object:
        return payload


REGISTRY = Registry.of({
    "drivers": {
        "store": StoreDriver,
        "queue": QueueDriver,
        "poor_queue": PoorQueueDriver,
        "bare": BareDriver,
        "sender": SenderDriver,
        "unfinished": UnfinishedDriver,
    },
    "dispatchers": {"source": SourceDispatcher, "tick": TickDispatcher, "pages": PagesDispatcher},
    "protocols": {"plain": PlainProtocol, "framed": FramedProtocol},
    "workers": {"echo": EchoWorker},
})
