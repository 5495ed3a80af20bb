"""Callers that give up, callees that take long, and brokers that hang: for the tests of cancelled calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio
from kernel_messaging import ConsumerConfig, ConsumerDispatcher, RpcClient, RpcClientConfig, RpcClientDriver

from kernel import Ack, Envelope, Outcome
from kernel.abc import Binding, Broker, Delivery, Exchange, Protocol, Queue, Subscription, Topology
from kernel.errors import UnavailableError
from kernel.testing import RecordingIntake, fake_context, open_intake

CANCELLATIONS = "kernel.cancellations"


@attrs.define(eq=False)
class Faulty(Broker):
    """Passes on, except for what goes to the exchange of the cancellations."""

    inner: Broker
    fault: Callable[[], Any]
    sent: int = 0

    async def declare(self, topology: Topology) -> None:
        await self.inner.declare(topology)

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        if exchange == CANCELLATIONS:
            self.sent += 1
            await self.fault()
        await self.inner.send(envelope, exchange=exchange, mandatory=mandatory)

    def subscribe(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        return self.inner.subscribe(subscription)


async def refuse() -> None:
    await trio.lowlevel.checkpoint()
    raise UnavailableError("no connection")


class Handler:
    """Handles requests for a long time, and remembers which began and which were cancelled."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.began: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, delivery: Delivery) -> Outcome:
        name = delivery.envelope.body.decode()
        self.began.append(name)
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled.append(name)
            raise
        return Ack(Envelope(subject=delivery.envelope.reply_to, correlation_id=delivery.envelope.correlation_id))


@asynccontextmanager
async def open_consumer(
    broker: Broker, handler: Any, *, concurrency: int = 10, **config: Any
) -> AsyncGenerator[RecordingIntake]:
    """A consumer of requests whose subject begins with `sum`."""
    context = fake_context("dispatcher/sums", driver=broker)
    settings = {"queue": "sums", "bindings": ("sum.*",), "cancellable": True, **config}
    dispatcher = ConsumerDispatcher(config=ConsumerConfig(**settings), context=context)
    async with (
        dispatcher.open(),
        open_intake(answer=handler, concurrency=concurrency) as intake,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(dispatcher.accept, intake)
        yield intake
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_client(broker: Broker, protocol: Protocol, **config: Any) -> AsyncGenerator[RpcClient]:
    context = fake_context("driver/calls", driver=broker, protocol=protocol)
    async with RpcClientDriver(config=RpcClientConfig(**config), context=context).open() as client:
        yield client


async def cancel_call(client: RpcClient, payload: object = "a", *, after: float = 1.0) -> float:
    """Make a call and cancel it, without a deadline that travels with it; return how long that took."""
    began, scope = trio.current_time(), trio.CancelScope()

    async def call() -> None:
        with scope:
            await client.call("sum.double", payload)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.sleep(after)
        scope.cancel()
    return trio.current_time() - began


async def tap(broker: Broker, *queues: str) -> None:
    """Keep a copy of all cancellations in the queue `tap`; requests go to the queues, if no consumer declares one."""
    requests = [Binding(queue=queue, exchange="events", pattern="sum.*") for queue in queues]
    await broker.declare(
        Topology(
            exchanges=[Exchange(name=CANCELLATIONS), Exchange(name="events")],
            queues=[Queue(name=name) for name in ("tap", *queues)],
            bindings=[Binding(queue="tap", exchange=CANCELLATIONS, pattern="#"), *requests],
        )
    )
