"""Connections that break under the driver, through a proxy in front of the real broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict, TypeGuard

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig
from pamqp import commands

from kernel import Ack, DeadLetter, Envelope, Event, Retry, SettleFailed, State, StateChanged, handles, new_id
from kernel.abc import Binding, Delivery, Exchange, Queue, Subscription, Topology
from kernel.errors import SubscriptionLostError, TransientError, UnavailableError, UnknownOutcomeError
from kernel.testing import LineFaults, Proxy, RunningService, open_kernel, open_proxy

from ..bench import HERE, SOON, ask, delete, depth, open_amqp, take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]

HOLE = LineFaults(black_hole=True)
FAST = {"heartbeat": 2.0, "backoff_initial": 0.05, "backoff_max": 0.2}


@asynccontextmanager
async def through_proxy(events: list[Event] | None = None) -> AsyncGenerator[tuple[Proxy, AmqpBroker]]:
    async with open_proxy(*HERE) as proxy:
        config = AmqpConfig(hosts=(f"127.0.0.1:{proxy.port}",), **FAST)
        async with open_amqp(config, events) as broker:
            yield proxy, broker


async def put(broker: AmqpBroker, queue: str, *texts: str) -> None:
    for text in texts:
        await broker.send(Envelope(subject=queue, body=text.encode()), exchange="", mandatory=True)


async def exhaust(deliveries: AsyncIterator[Delivery], taken: list[Delivery]) -> None:
    while True:
        taken.append(await take(deliveries))


def settle_late(taken: list[Delivery]) -> None:
    for delivery in taken:
        with pytest.raises(UnknownOutcomeError):
            delivery.settle_nowait(Ack())


async def drain(broker: AmqpBroker, queue: str, count: int) -> list[str]:
    texts: list[str] = []
    async with broker.subscribe(Subscription(queue=queue, prefetch=10)) as deliveries:
        while len(texts) < count:
            delivery = await take(deliveries)
            texts.append(delivery.envelope.body.decode())
            await delivery.settle(Ack())
    return texts


async def test_a_subscription_ends_with_its_connection_and_what_it_held_comes_again() -> None:
    queue = new_id()
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        await put(broker, queue, "a", "b", "c")
        async with broker.subscribe(Subscription(queue=queue, prefetch=2)) as deliveries:
            first, second = await take(deliveries), await take(deliveries)
            await first.settle(Ack())
            await put(broker, queue, "d")
            proxy.reset()
            in_hand = [second]
            with trio.move_on_after(0.5) as held:
                await exhaust(deliveries, in_hand)
            settle_late(in_hand)
            with pytest.raises(SubscriptionLostError, match=queue):
                await take(deliveries)
        assert held.cancelled_caught, "what is in hand comes again, so it ends first"
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            again = await take(deliveries)
            await again.settle(Ack())
        assert (again.envelope.body, again.redelivered, again.attempt) == (b"b", True, 1)

        assert sorted(await drain(broker, queue, 2)) == ["c", "d"]


async def test_an_ack_of_an_old_connection_settles_nothing_on_the_new_one() -> None:
    queue = new_id()
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        await put(broker, queue, "a")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            old = await take(deliveries)
            proxy.reset()
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            new = await take(deliveries)
            with pytest.raises(UnknownOutcomeError):
                await old.settle(DeadLetter("late"))
        assert not new.settle_nowait(Retry(0.05))
        await new.settle(Retry(0.05))

        assert await drain(broker, queue, 1) == ["a"]
        assert await depth(queue) == 0


async def test_a_sender_waits_for_the_connection_inside_its_own_deadline() -> None:
    queue = new_id()
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        proxy.go_down()
        proxy.reset()
        await trio.sleep(0.1)
        with trio.move_on_after(0.3) as scope:
            await put(broker, queue, "too soon")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, broker, queue, "a")
            await trio.sleep(0.2)
            proxy.come_back()

        assert await drain(broker, queue, 1) == ["a"]


async def test_what_was_written_and_not_confirmed_has_an_unknown_outcome() -> None:
    queue = new_id()
    outcomes: list[str] = []
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        await put(broker, queue, "before")
        proxy.to_client = HOLE

        async def send() -> None:
            with pytest.raises(UnknownOutcomeError, match="not known"):
                await put(broker, queue, "unknown")
            outcomes.append("unknown")

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
            await trio.sleep(0.2)
            proxy.to_client = LineFaults()
            proxy.reset()
        assert len(outcomes) == 5
        await put(broker, queue, "after")

        got = Counter(await drain(broker, queue, (await depth(queue)) or 0))
    assert got["before"] == got["after"] == 1
    assert got["unknown"] <= 5


async def test_what_was_declared_is_declared_again() -> None:
    queue, exchange = new_id(), new_id()
    topology = Topology(
        exchanges=[Exchange(name=exchange, durable=False)],
        queues=[Queue(name=queue, durable=False)],
        bindings=[Binding(queue=queue, exchange=exchange, pattern="#")],
    )
    async with through_proxy() as (proxy, broker):
        await broker.declare(topology)
        proxy.go_down()
        proxy.reset()
        await delete(queues=[queue], exchanges=[exchange])
        proxy.come_back()
        await broker.send(Envelope(subject="a", body=b"a"), exchange=exchange, mandatory=True)

        assert await drain(broker, queue, 1) == ["a"]


async def test_an_exclusive_queue_is_not_declared_again() -> None:
    queue = new_id()
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue, durable=False, exclusive=True)]))
        proxy.reset()
        await broker.declare(Topology(queues=[Queue(name=f"{queue}.other", durable=False)]))

        assert await depth(queue) is None
        assert broker._catalog.queue(queue) is None


async def test_what_cannot_be_declared_again_keeps_nothing_else_from_it() -> None:
    queue = new_id()
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=f"{queue}.{name}", durable=False) for name in "abc"]))
        proxy.go_down()
        proxy.reset()
        await delete(queues=[f"{queue}.{name}" for name in "abc"])
        await ask(commands.Queue.Declare(queue=f"{queue}.b", durable=True))
        proxy.come_back()
        await put(broker, f"{queue}.a", "a")
        await put(broker, f"{queue}.c", "c")


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_connection_that_is_silent_is_found_and_replaced(direction: str) -> None:
    queue = new_id()
    async with through_proxy() as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue)]))
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            setattr(proxy, direction, HOLE)
            proxy.let_go()
            began = trio.current_time()
            with pytest.raises(UnavailableError):
                await take(deliveries)
        assert trio.current_time() - began < 2 * FAST["heartbeat"] + 1
        with trio.fail_after(SOON):
            await put(broker, queue, "a")
            assert await drain(broker, queue, 1) == ["a"]


async def test_the_driver_says_that_it_is_degraded_and_ready_again() -> None:
    events: list[Event] = []
    queue = new_id()
    async with through_proxy(events) as (proxy, broker):
        await broker.declare(Topology(queues=[Queue(name=queue, durable=False)]))
        proxy.go_down()
        proxy.reset()
        await trio.sleep(0.3)
        proxy.come_back()
        await put(broker, queue, "a")
        await drain(broker, queue, 1)

    states = [event.new.value for event in events if isinstance(event, StateChanged)]
    reasons = " ".join(event.reason for event in events if isinstance(event, StateChanged))
    assert states[0] == "degraded"
    assert states[-1] == "ready"
    assert "127.0.0.1" in reasons
    assert "guest" not in reasons


async def test_a_driver_waits_for_a_broker_that_is_away_at_its_start() -> None:
    queue = new_id()
    async with open_proxy(*HERE) as proxy, trio.open_nursery() as nursery:
        proxy.go_down()
        config = AmqpConfig(hosts=(f"127.0.0.1:{proxy.port}",), **FAST)

        async def come_back() -> None:
            await trio.sleep(0.3)
            proxy.come_back()

        nursery.start_soon(come_back)
        with trio.fail_after(SOON):
            async with open_amqp(config) as broker:
                await broker.declare(Topology(queues=[Queue(name=queue)]))
                await put(broker, queue, "a")
                texts = await drain(broker, queue, 1)

    assert texts == ["a"]


async def test_the_driver_closes_in_time_though_the_broker_is_silent() -> None:
    async with open_proxy(*HERE) as proxy:
        config = AmqpConfig(hosts=(f"127.0.0.1:{proxy.port}",), heartbeat=60.0)
        queue = new_id()
        async with open_amqp(config) as broker:
            await broker.declare(Topology(queues=[Queue(name=queue, durable=False)]))
            await put(broker, queue, "a", "b")
            subscription = broker.subscribe(Subscription(queue=queue, prefetch=2))
            async with subscription as deliveries:
                await take(deliveries)
                proxy.to_client = proxy.to_server = HOLE
                began = trio.current_time()
        # To delete what was declared takes its part of it, around the proxy.
        assert trio.current_time() - began < 2.0 + 1.5
        proxy.to_client = proxy.to_server = LineFaults()


# --- a whole service ------------------------------------------------------------------------------------------------


SEEN: Counter[int] = Counter()


class Order(TypedDict):
    number: int


@handles("order.*")
async def work(order: Order) -> None:
    await trio.sleep(0.005)
    SEEN[order["number"]] += 1
    if order["number"] % 7 == 0 and SEEN[order["number"]] == 1:
        raise TransientError("once more", after=0.05)


def service(port: int, tag: str) -> dict[str, Any]:
    return {
        "kernel": {"name": "orders"},
        "drivers": {
            "rabbit": {"plugin": "amqp", "hosts": [f"127.0.0.1:{port}"], **FAST},
            "events": {
                "plugin": "publisher",
                "driver": "rabbit",
                "protocol": "json",
                "exchange": f"{tag}.events",
                "mandatory": True,
            },
        },
        "dispatchers": {
            "orders": {
                "plugin": "consumer",
                "driver": "rabbit",
                "protocol": "json",
                "queue": f"{tag}.orders",
                "exchange": f"{tag}.events",
                "bindings": ["order.*"],
                "concurrency": 10,
            }
        },
        "workers": {"work": {"use": f"{__name__}:work", "dispatcher": "orders"}},
    }


async def publish_all(running: RunningService, numbers: range) -> None:
    """Publish each order until it is known that it was taken."""
    for number in numbers:
        while True:
            try:
                await running.publish("events", "order.created", {"number": number}, id=f"order-{number}")
            except UnknownOutcomeError:
                await trio.lowlevel.checkpoint()
            else:
                break


def is_of_dispatcher(event: Event) -> TypeGuard[StateChanged]:
    return isinstance(event, StateChanged) and event.component == "dispatcher/orders"


async def test_a_service_that_loses_its_connections_under_load_loses_no_message() -> None:
    tag, count = new_id(), 400
    SEEN.clear()
    try:
        async with open_proxy(*HERE) as proxy, open_kernel(service(proxy.port, tag), expected=Exception) as running:
            async with trio.open_nursery() as nursery:
                for first in range(0, count, 100):
                    nursery.start_soon(publish_all, running, range(first, first + 100))
                for _ in range(8):  # more than the restarts that a dispatcher has by default
                    await trio.sleep(0.2)
                    proxy.reset()
            assert proxy.accepted > 2
            with trio.fail_after(3 * SOON):
                while not (len(SEEN) == count and all(SEEN[number] >= 2 for number in range(0, count, 7))):  # noqa: ASYNC110
                    await trio.sleep(0.05)
                while await depth(f"{tag}.orders"):  # noqa: ASYNC110  the broker tells nobody
                    await trio.sleep(0.05)
            assert {event.new for event in running.events if is_of_dispatcher(event)} == {State.STARTING, State.READY}
            # What was under way at a reset could not be settled, and has come again.
            running.events[:] = [event for event in running.events if not isinstance(event, SettleFailed)]
        assert await depth(f"{tag}.orders.dead") == 0
    finally:
        await delete(queues=[f"{tag}.orders", f"{tag}.orders.dead"], exchanges=[f"{tag}.events"])
