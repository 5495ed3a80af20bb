"""What plugin authors and users write, for the type checkers alone: it is never run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, assert_type
from typing import Protocol as Structural

import attrs
from typing_extensions import override

from kernel import (
    Ack,
    Arguments,
    DeadLetter,
    Envelope,
    Message,
    Outcome,
    Retry,
    Return,
    Secret,
    answers,
    contract,
    current_delivery,
    handles,
)
from kernel.abc import (
    Binding,
    Broker,
    Capability,
    Context,
    Delivery,
    Dispatcher,
    Driver,
    Exchange,
    Intake,
    Protocol,
    Queue,
    Subscription,
    Topology,
)
from kernel.errors import DecodeError, KernelError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trio


@attrs.frozen(kw_only=True)
class Settings:
    """A configuration with a secret."""

    password: Secret
    size: int = 10


class Store:
    """A resource."""

    async def save(self, key: str) -> None:
        raise NotImplementedError(key)


class StoreDriver(Driver[Store]):
    """A driver is generic in its resource."""

    Config: ClassVar[type[object]] = Settings
    provides: ClassVar[type[object]] = Store
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.DELAY})

    def __init__(self, *, config: Settings, context: Context) -> None:
        self._config = config
        self._context = context

    @override
    def open(self) -> AbstractAsyncContextManager[Store]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Store]:
        assert_type(self._config.password.reveal(), str)
        yield Store()


class Plain(Protocol):
    """A protocol has no async method."""

    @override
    def decode(self, envelope: Envelope) -> Message:
        try:
            return Message(subject=envelope.subject, payload=envelope.body.decode())
        except UnicodeDecodeError as error:
            raise DecodeError("is not text") from error

    @override
    def encode(self, message: Message) -> Envelope:
        return Envelope(subject=message.subject, body=str(message.payload).encode())

    @override
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        return None


class Subscriber(Dispatcher):
    """A dispatcher over any broker."""

    needs: ClassVar[type[object] | None] = Broker

    def __init__(self, *, config: object, context: Context) -> None:
        self._broker = context.broker

    @override
    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        await self._broker.declare(
            Topology(
                exchanges=[Exchange(name="events")],
                queues=[Queue(name="all", dead_letters="all.dead")],
                bindings=[Binding(queue="all", exchange="events", pattern="#")],
            )
        )
        yield

    @override
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        async with self._broker.subscribe(Subscription(queue="all", prefetch=intake.concurrency)) as deliveries:
            task_status.started()
            async for delivery in deliveries:
                assert_type(delivery, Delivery)
                await intake.submit(delivery)


@contract("stock")
class Stock(Structural):
    """What a service expects of another one."""

    async def take(self, sku: str, *, amount: int = 1) -> int:
        """Take from the shelf."""
        ...

    @handles("stock.counted")
    async def counted(self, shelf: dict[str, int]) -> None:
        """Tell how much there is."""
        ...


class Buyer:
    """A worker that is given the contract of a driver calls it as what it is."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock

    async def run(self) -> None:
        """Buy."""
        assert_type(await self.stock.take("tea", amount=2), int)
        await self.stock.counted({"tea": 2})
        await self.stock.take(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.stock.take("tea", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await self.stock.tkae("tea")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


class Clerk:
    """A worker needs no base class, and its handlers keep their types."""

    def __init__(self, store: Store, config: Settings) -> None:
        self.store = store
        self.size = config.size

    @handles("order.created", "order.changed")
    async def note(self, order: dict[str, str], envelope: Envelope) -> Outcome:
        try:
            await self.store.save(order["id"])
        except TransientError as error:
            return Retry(after=error.after or 1.0)
        except KernelError as error:
            return DeadLetter(str(error))
        return Ack()

    @answers("order.size")
    async def count(self, *orders: dict[str, str], limit: int = 1) -> int:
        cause = current_delivery()
        assert_type(cause, Delivery | None)
        call = Arguments(orders, {"limit": limit})
        assert_type(call.args, tuple[object, ...])
        assert_type(call.kwargs, Mapping[str, object])
        return len(call.args)


def describe(outcome: Outcome) -> str:
    """Outcomes are a closed set."""
    match outcome:
        case Ack():
            return "done"
        case Retry(after):
            return f"again after {after} s"
        case DeadLetter(reason):
            return reason
        case Return():
            return "returned"


async def use(clerk: Clerk) -> None:
    """A decorated handler is still the method it was."""
    assert_type(await clerk.note({"id": "1"}, Envelope(subject="order.created")), Outcome)
