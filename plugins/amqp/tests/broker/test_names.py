"""Facts about names: what RabbitMQ takes works, and a prefix keeps systems apart that share a broker."""

from __future__ import annotations

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpOptions
from kernel_amqp._tables import BindingTable, ExchangeTable, QueueTable
from kernel_amqp.link.link import open_link
from pamqp import commands

from kernel import Ack, DeadLetter, Envelope, Outcome, Retry, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.errors import EncodeError, UnavailableError, UnroutableError

from ..bench import SETTINGS, SOON, depth, open_amqp, take

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
            with pytest.raises(EncodeError, match="header 'n' is nothing that JSON can say"):
                await send(n=value)
            nursery.start_soon(lambda: send(n=2))

        assert await depth(queue) == 2
        assert broker._outbox._keeper.current is before


# --- a queue of one connection alone ---------------------------------------------------------------------------------


async def hold(queue: str, release: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    """Have a queue for a connection alone that the broker believes in until it is released."""
    async with open_link(SETTINGS) as link, link.open_channel() as channel:
        await channel.call(commands.Queue.Declare(queue=queue, exclusive=True))
        task_status.started()
        await release.wait()


async def test_an_exclusive_queue_is_waited_for_until_the_broker_lets_go_of_the_old_connection() -> None:
    queue, release = new_id(), trio.Event()
    wish = Topology(queues=[Queue(name=queue, durable=False, options=AmqpOptions(exclusive=True))])
    async with open_amqp() as broker, trio.open_nursery() as nursery:
        await nursery.start(hold, queue, release)
        with trio.move_on_after(0.3) as waiting:
            await broker.declare(wish)
        release.set()
        with trio.fail_after(SOON):
            await broker.declare(wish)

    assert waiting.cancelled_caught


async def test_an_exclusive_queue_of_somebody_else_is_an_error_after_two_heartbeats() -> None:
    queue, release = new_id(), trio.Event()
    wish = Topology(queues=[Queue(name=queue, durable=False, options=AmqpOptions(exclusive=True))])
    async with open_amqp() as broker, trio.open_nursery() as nursery:
        broker._heartbeat = 0.1
        await nursery.start(hold, queue, release)
        with pytest.raises(UnavailableError, match="belongs to another connection alone"):
            await broker.declare(wish)
        release.set()


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
