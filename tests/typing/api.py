"""What plugin authors and users write, for the type checkers alone: it is never run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, assert_type

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
