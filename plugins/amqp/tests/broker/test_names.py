"""Facts about names: what RabbitMQ takes works, and a prefix keeps systems apart that share a broker."""

from __future__ import annotations

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig
from kernel_amqp._config import BindingTable, ExchangeTable, QueueTable

from kernel import Ack, DeadLetter, Envelope, Outcome, Retry, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.errors import EncodeError, UnroutableError

from ..bench import depth, open_amqp, take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]


def tied(queue: Queue, *, exchange: str, pattern: str = "#") -> Topology:
    dead = [Queue(name=queue.dead_letters, durable=queue.durable)] if queue.dead_letters else []
    return Topology(
        exchanges=[Exchange(name=exchange, durable=False)],
        queues=[*dead, queue],
        bindings=[Binding(queue=queue.name, exchange=exchange, pattern=pattern)],
    )


async def handle(broker: AmqpBroker, queue: str, outcome: Outcome) -> Envelope:
    """Take the first message of a queue and settle it."""
    async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
        delivery = await take(deliveries)
        await delivery.settle(outcome)
        return delivery.envelope


@pytest.mark.parametrize(
    "name",
    ["Bestellungen-für-Österreich", "Заказы", "orders[eu]", "a b", '{"$%&"}', "x" * 200, "ж" * 100],
    ids=["umlauts", "cyrillic", "brackets", "space", "signs", "long", "many-bytes"],
)
async def test_a_name_that_rabbitmq_takes_works_for_everything(name: str) -> None:
    queue = f"{name}{new_id()}"
    async with open_amqp() as broker:
        await broker.declare(
            tied(Queue(name=queue, durable=False, dead_letters=f"{queue}.dead"), exchange=queue, pattern="заказ.*")
        )
        await broker.send(Envelope(subject="заказ.[x]", delay=0.01), exchange=queue)
        first = await handle(broker, queue, Retry(0.01))
        second = await handle(broker, queue, DeadLetter("no"))
        dead = await handle(broker, f"{queue}.dead", Ack())

    assert [one.subject for one in (first, second, dead)] == ["заказ.[x]"] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [-float("inf")]}], ids=repr)
async def test_a_header_that_rabbitmq_does_not_take_is_its_senders_error_and_touches_nobody_else(value: object) -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await broker.declare(Topology(queues=[Queue(name=queue, durable=False)]))
        before = broker._outbox._keeper.current

        async def send(**headers: object) -> None:
            await broker.send(Envelope(subject=queue, headers=headers), exchange="", mandatory=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(n=1))
            with pytest.raises(EncodeError, match="is no number that RabbitMQ takes"):
                await send(n=value)
            nursery.start_soon(lambda: send(n=2))

        assert await depth(queue) == 2
        assert broker._outbox._keeper.current is before


# --- a prefix -------------------------------------------------------------------------------------------------------


async def test_two_systems_with_a_prefix_each_do_not_meet() -> None:
    one, two = (AmqpConfig(prefix=f"{new_id()}.") for _ in range(2))
    async with open_amqp(one) as ours, open_amqp(two) as theirs:
        for broker in (ours, theirs):
            await broker.declare(tied(Queue(name="orders", durable=False), exchange="events"))
        await ours.send(Envelope(subject="order.created"), exchange="events", mandatory=True)

        counts = [await depth(f"{config.prefix}orders") for config in (one, two)]

    assert counts == [1, 0]


async def test_with_a_prefix_a_message_is_the_same_for_whoever_handles_it() -> None:
    config = AmqpConfig(prefix=f"{new_id()}.")
    async with open_amqp(config) as broker:
        await broker.declare(tied(Queue(name="orders", durable=False, dead_letters="orders.dead"), exchange="events"))
        await broker.send(Envelope(subject="order.created"), exchange="events", mandatory=True)
        retried = await handle(broker, "orders", Retry(0.01))
        put_aside = await handle(broker, "orders", DeadLetter("no"))
        dead = await handle(broker, "orders.dead", Ack())
        await broker.send(Envelope(subject="orders", headers={"h": 1}, delay=0.01), exchange="", mandatory=True)
        straight = await handle(broker, "orders", Ack())

    assert [one.subject for one in (retried, put_aside, dead, straight)] == [*["order.created"] * 3, "orders"]
    assert straight.headers == {"h": 1}


async def test_with_a_prefix_answers_find_their_queue_through_any_other_service() -> None:
    ours = AmqpConfig(prefix=f"{new_id()}.")
    address = new_id()
    async with open_amqp(ours) as broker, open_amqp() as peer:
        await broker.declare(Topology(queues=[Queue(name=address, durable=False, exclusive=True)]))
        async with broker.subscribe(Subscription(queue=address, prefetch=1)) as answers:
            await peer.send(Envelope(subject=address, body=b"42"), exchange="", mandatory=True)
            answer = await take(answers)
            await answer.settle(Ack())

    assert answer.envelope.body == b"42"


async def test_the_tables_of_the_driver_have_the_prefix_and_what_the_broker_keeps_for_itself_has_not() -> None:
    config = AmqpConfig(
        prefix=f"{new_id()}.",
        exchanges={"lost": ExchangeTable(type="fanout", durable=False, bindings=(BindingTable(exchange="amq.topic"),))},
        queues={
            "lost": QueueTable(durable=False, dead_letters="lost.dead", bindings=(BindingTable(exchange="lost"),)),
            "lost.dead": QueueTable(durable=False),
        },
    )
    async with open_amqp(config) as broker:
        await broker.send(Envelope(subject="x"), exchange="amq.topic", mandatory=True)
        await broker.send(Envelope(subject="y"), exchange="lost", mandatory=True)
        with pytest.raises(UnroutableError, match=f'no exchange "{config.prefix}nowhere"'):
            await broker.send(Envelope(subject="y"), exchange="nowhere")

        assert await depth(f"{config.prefix}lost") == 2
        assert await depth(f"{config.prefix}lost.dead") == 0
