"""What the conformance check does not ask: foreign peers, refusals that disturb nobody, tables of the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from kernel_amqp import (
    AmqpBroker,
    AmqpConfig,
    AmqpDriver,
    AmqpOptions,
    ConsumerCancelledError,
    LoginRefusedError,
    MessageDropped,
)
from kernel_amqp._tables import BindingTable, ExchangeTable, QueueTable
from kernel_amqp.broker.declaring import Step, perform
from kernel_amqp.broker.outbox import _MAX_LANES
from kernel_amqp.core import Properties
from kernel_amqp.link.link import Link, open_link
from pamqp import commands

from kernel import Ack, DeadLetter, Envelope, Event, Outcome, Retry, Return, Secret, Usage, new_id
from kernel.abc import Binding, Exchange, Queue, Subscription, Topology
from kernel.errors import (
    ConflictError,
    EncodeError,
    QueueFullError,
    SendError,
    StartupError,
    UnavailableError,
    UnknownOutcomeError,
    UnroutableError,
)
from kernel.testing import fake_context

from ..bench import SETTINGS, SOON, ask, delete, depth, open_amqp, take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]


async def declare(broker: AmqpBroker, *queues: Queue) -> None:
    await broker.declare(Topology(queues=queues))


def channels(broker: AmqpBroker) -> Sequence[int]:
    """Return the channels that are open for sending."""
    session = broker._sending.current
    return [] if session is None else list(session.link._channels)


async def put(broker: AmqpBroker, queue: str, *texts: str, exchange: str = "") -> None:
    for text in texts:
        await broker.send(Envelope(subject=queue, body=text.encode()), exchange=exchange, mandatory=True)


# --- sending --------------------------------------------------------------------------------------------------------


async def test_an_unknown_exchange_disturbs_no_other_sender() -> None:
    queue, missing = new_id(), new_id()
    refused: list[str] = []
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False))

        async def send_nowhere() -> None:
            for _ in range(10):
                with pytest.raises(UnroutableError, match=missing):
                    await broker.send(Envelope(subject="a"), exchange=missing)
                refused.append(missing)

        async def send_well(number: int) -> None:
            for text in range(20):
                await put(broker, queue, f"{number}-{text}")

        async with trio.open_nursery() as senders:
            senders.start_soon(send_nowhere)
            for number in range(5):
                senders.start_soon(send_well, number)

        assert len(refused) == 10
        assert await depth(queue) == 100


async def test_an_exchange_that_goes_away_while_in_use_is_unroutable_until_it_is_back() -> None:
    queue, exchange = new_id(), new_id()
    topology = Topology(
        exchanges=[Exchange(name=exchange, durable=False)],
        queues=[Queue(name=queue, durable=False)],
        bindings=[Binding(queue=queue, exchange=exchange, pattern="#")],
    )
    async with open_amqp() as broker:
        await broker.declare(topology)
        await put(broker, "a", "1", exchange=exchange)
        await delete(exchanges=[exchange])
        with pytest.raises(UnroutableError):
            await put(broker, "a", "lost", exchange=exchange)
        with pytest.raises(UnroutableError):
            await put(broker, "a", "lost", exchange=exchange)
        await broker.declare(topology)
        await put(broker, "a", "2", exchange=exchange)

        assert await depth(queue) == 2


async def test_many_exchanges_share_a_bounded_number_of_channels() -> None:
    names = [f"{new_id()}-{number}" for number in range(_MAX_LANES + 20)]
    async with open_amqp() as broker:
        await broker.declare(Topology(exchanges=[Exchange(name=name, durable=False) for name in names]))
        for name in names:
            await broker.send(Envelope(subject="a"), exchange=name)

        assert len(broker._outbox._lanes) == _MAX_LANES
        await broker.send(Envelope(subject="a"), exchange=names[0])


async def test_no_channel_is_forgotten_that_one_of_too_many_exchanges_at_a_time_had() -> None:
    names = [f"{new_id()}-{number}" for number in range(_MAX_LANES + 20)]
    async with open_amqp() as broker:
        await broker.declare(Topology(exchanges=[Exchange(name=name, durable=False) for name in names]))
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(partial(broker.send, Envelope(subject="a"), exchange=name))
        await broker.send(Envelope(subject="a"), exchange="")
        with trio.move_on_after(SOON):
            while len(channels(broker)) > _MAX_LANES:  # noqa: ASYNC110  the broker answers each goodbye
                await trio.sleep(0.02)

        assert len(channels(broker)) == _MAX_LANES
        assert len(broker._outbox._lanes) == _MAX_LANES


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(subject="x" * 256),
        Envelope(subject="a", id="x" * 256),
        Envelope(subject="a", headers={"k" * 256: 1}),
        Envelope(subject="a", headers={"big": 2**64}),
        Envelope(subject="a", headers={"object": object()}),
        Envelope(subject="\ud800"),
    ],
    ids=["subject", "id", "key", "number", "object", "surrogate"],
)
async def test_what_has_no_place_in_amqp_is_refused_and_disturbs_nobody(envelope: Envelope) -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False))
        with pytest.raises(EncodeError, match=r"cannot be written|is nothing that JSON can say"):
            await broker.send(envelope, exchange="")
        await put(broker, queue, "a")

        assert await depth(queue) == 1


async def test_a_delayed_message_keeps_its_subject_on_the_way_through_an_exchange() -> None:
    queue, exchange = new_id(), new_id()
    async with open_amqp() as broker:
        await broker.declare(
            Topology(
                exchanges=[Exchange(name=exchange, durable=False)],
                queues=[Queue(name=queue, durable=False)],
                bindings=[Binding(queue=queue, exchange=exchange, pattern="order.*")],
            )
        )
        await broker.send(Envelope(subject="order.late", delay=0.05, headers={"a": 1}), exchange=exchange)
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            delivery = await take(deliveries)
            await delivery.settle(Ack())

    assert (delivery.envelope.subject, dict(delivery.envelope.headers)) == ("order.late", {"a": 1})
    assert (delivery.attempt, delivery.redelivered) == (1, False)


async def test_a_delay_to_an_unknown_exchange_is_unroutable() -> None:
    async with open_amqp() as broker:
        with pytest.raises(UnroutableError):
            await broker.send(Envelope(subject="a", delay=0.05), exchange=new_id())


async def test_a_delay_queue_that_somebody_deletes_is_made_again() -> None:
    queue = new_id()
    await delete(queues=["kernel.delay.kept.63."])
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False))
        for _ in range(2):
            await broker.send(Envelope(subject=queue, delay=0.063), exchange="")
            await trio.sleep(0.2)
            await delete(queues=["kernel.delay.kept.63."])

        assert await depth(queue) == 2


async def test_many_delayed_messages_at_once_declare_their_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, declared = new_id(), list[str]()

    async def noting(link: Link, steps: Sequence[Step]) -> None:
        declared.extend(step.name for step in steps[:1])
        await perform(link, steps)

    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False))
        monkeypatch.setattr("kernel_amqp.broker.postponing.perform", noting)
        async with trio.open_nursery() as senders:
            for number in range(500):
                message = Envelope(subject=queue, body=str(number).encode(), delay=0.3)
                senders.start_soon(partial(broker.send, message, exchange=""))
            await trio.sleep(0.01)
            channels = len((await broker._outbox._keeper.session()).link._channels)
        assert await wait_depth(queue, 500) == 500

    assert declared == ["kernel.delay.kept.300."]
    assert channels < 10


async def wait_depth(queue: str, count: int) -> int | None:
    with trio.move_on_after(SOON):
        while await depth(queue) != count:  # noqa: ASYNC110  the broker tells nobody
            await trio.sleep(0.05)
    return await depth(queue)


async def test_a_channel_that_the_broker_closes_leaves_no_task_behind() -> None:
    async with open_amqp() as broker:
        await refuse(broker, 5)
        before = trio.lowlevel.current_statistics().tasks_living
        await refuse(broker, 40)
        await trio.testing.wait_all_tasks_blocked()

        assert trio.lowlevel.current_statistics().tasks_living <= before + 2


async def refuse(broker: AmqpBroker, count: int) -> None:
    """Send what this user must not, so that the broker closes the channel each time."""
    for _ in range(count):
        with pytest.raises(SendError, match="403"):
            await broker.send(Envelope(subject="a"), exchange="amq.rabbitmq.trace")


# --- consuming ------------------------------------------------------------------------------------------------------


async def test_a_message_of_a_foreign_program_is_delivered() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False))
        await publish_bare(queue, b"bare")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            first = await take(deliveries)
            await first.settle(Retry())
            again = await take(deliveries)
            await again.settle(Ack())

    assert (first.envelope.subject, first.envelope.body, first.attempt) == (queue, b"bare", 1)
    assert (again.envelope.subject, again.envelope.id, again.attempt) == (queue, first.envelope.id, 2)


async def publish_bare(queue: str, body: bytes) -> None:
    async with open_link(SETTINGS) as link, link.open_channel() as channel:
        await channel.confirm_select()
        await channel.publish(exchange="", routing_key=queue, properties=Properties(), body=body)


async def test_a_consumer_whose_queue_is_deleted_is_told_so() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False))
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await delete(queues=[queue])
            with pytest.raises(ConsumerCancelledError, match=queue):
                await take(deliveries)


@pytest.mark.parametrize("dead", [True, False])
async def test_a_message_that_is_too_large_is_put_aside_unread(dead: bool) -> None:
    queue, events = new_id(), list[Event]()
    grave = f"{queue}.dead" if dead else ""
    async with open_amqp(AmqpConfig(max_message_bytes=1000), events) as broker:
        await declare(
            broker,
            *([Queue(name=grave, durable=False)] if dead else []),
            Queue(name=queue, durable=False, dead_letters=grave),
        )
        await put(broker, queue, "x" * 1001, "fits")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            delivery = await take(deliveries)
            await delivery.settle(Ack())
        assert delivery.envelope.body == b"fits"
        assert await depth(queue) == 0
        dropped = [event for event in events if isinstance(event, MessageDropped)]
        if dead:
            assert (await depth(grave), dropped) == (1, [])
        else:
            assert [event.reason for event in dropped] == ["too large: 1001 bytes"]


async def test_a_dead_letter_of_the_broker_says_where_it_was() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(
            broker,
            Queue(name=f"{queue}.dead", durable=False),
            Queue(name=queue, durable=False, dead_letters=f"{queue}.dead", ttl=0.05),
        )
        await put(broker, queue, "a")
        async with broker.subscribe(Subscription(queue=f"{queue}.dead", prefetch=1)) as deliveries:
            letter = await take(deliveries)
            await letter.settle(Ack())

    assert (letter.envelope.subject, letter.attempt) == (queue, 1)
    assert dict(letter.envelope.headers) == {
        "kernel-death-reason": "expired",
        "kernel-death-queue": queue,
        "kernel-death-attempts": 0,
        "kernel-death-subject": queue,
    }


async def test_a_queue_of_dead_letters_that_is_gone_is_made_again() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(
            broker,
            Queue(name=f"{queue}.dead", durable=False),
            Queue(name=queue, durable=False, dead_letters=f"{queue}.dead"),
        )
        await put(broker, queue, "a")
        await delete(queues=[f"{queue}.dead"])
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await (await take(deliveries)).settle(DeadLetter("no use"))

        assert await depth(f"{queue}.dead") == 1


async def test_a_retry_that_finds_its_queue_full_is_not_lost() -> None:
    """It waits before a delay queue that does not forget; the broker offers it again within three minutes."""
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False, max_length=1))
        await put(broker, queue, "first")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            first = await take(deliveries)
            await put(broker, queue, "second")
            await first.settle(Retry())
            second = await take(deliveries)
            await second.settle(Ack())
            again = await take(deliveries)
            await again.settle(Ack())

    assert (second.envelope.body, again.envelope.body, again.attempt) == (b"second", b"first", 2)


@pytest.mark.parametrize(("kind", "place"), [("classic", "kernel.delay.78."), ("quorum", "kernel.delay.kept.78.")])
async def test_a_delay_can_go_through_each_type_of_queue(kind: Any, place: str) -> None:
    queue = new_id()
    async with open_amqp(AmqpConfig(delay_queues=kind)) as broker:
        await declare(broker, Queue(name=queue, durable=False, options=AmqpOptions(type="classic")))
        await put(broker, queue, "a")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await (await take(deliveries)).settle(Retry(0.078))
            again = await take(deliveries)
            await again.settle(Ack())

        assert (again.attempt, again.envelope.subject, dict(again.envelope.headers)) == (2, queue, {})
        assert await depth(place) == 0


@pytest.mark.parametrize("outcome", [DeadLetter("no use"), Retry(3600.0)], ids=["dead", "expired"])
async def test_dead_letters_of_a_queue_of_others_are_left_to_the_broker(outcome: Outcome) -> None:
    queue, dead, events = new_id(), new_id(), list[Event]()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    await ask(commands.Queue.Declare(queue=dead), commands.Queue.Declare(queue=queue, arguments=arguments))
    async with open_amqp(events=events) as broker:
        deadline = trio.current_time() + 60
        await broker.send(Envelope(subject=queue, deadline=deadline), exchange="", mandatory=True)
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await (await take(deliveries)).settle(outcome)
        assert (await depth(dead), events) == (1, [])
    await delete(queues=[queue, dead])


async def test_the_death_of_what_a_quorum_queue_delivered_too_often_is_told() -> None:
    queue = new_id()
    options = AmqpOptions(type="quorum", delivery_limit=1)
    async with open_amqp() as broker:
        await declare(
            broker,
            Queue(name=f"{queue}.dead"),
            Queue(name=queue, dead_letters=f"{queue}.dead", options=options),
        )
        await put(broker, queue, "a")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            for _ in range(2):
                await (await take(deliveries)).settle(Return())
        async with broker.subscribe(Subscription(queue=f"{queue}.dead", prefetch=1)) as deliveries:
            letter = await take(deliveries)
            await letter.settle(Ack())

    assert letter.envelope.headers["kernel-death-reason"] == "delivery_limit"


async def test_what_was_settled_before_the_end_is_settled_for_good() -> None:
    """The last acknowledgements are written, and the broker has seen them, when the driver is closed."""
    queue = new_id()
    try:
        async with open_amqp() as broker:
            await declare(broker, Queue(name=queue))
            broker._catalog.forget(queue)
            await put(broker, queue, *map(str, range(200)))
            async with broker.subscribe(Subscription(queue=queue, prefetch=200)) as deliveries:
                taken = [await take(deliveries) for _ in range(200)]
            for delivery in taken:
                assert delivery.settle_nowait(Ack())
        assert await depth(queue) == 0
    finally:
        await delete(queues=[queue])


async def test_what_a_process_returns_to_a_quorum_queue_is_never_counted() -> None:
    queue = new_id()
    attempts: list[int] = []
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, options=AmqpOptions(type="quorum")))
        await put(broker, queue, "a")
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            for _ in range(13):
                delivery = await take(deliveries)
                attempts.append(delivery.attempt)
                await delivery.settle(Return())

    assert attempts == [1] * 13


async def test_a_delivery_that_outlives_its_broker_is_not_settled() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=True))
        await put(broker, queue, "a", "b")
        async with broker.subscribe(Subscription(queue=queue, prefetch=2)) as deliveries:
            one, two = await take(deliveries), await take(deliveries)

    with pytest.raises(UnknownOutcomeError):
        one.settle_nowait(Ack())
    with pytest.raises(UnknownOutcomeError):
        await two.settle(DeadLetter("no use"))


# --- declaring ------------------------------------------------------------------------------------------------------


async def test_a_queue_that_others_declared_otherwise_is_a_conflict_that_names_the_key() -> None:
    queue = new_id()
    await ask(commands.Queue.Declare(queue=queue, durable=True, arguments={"x-max-length": 7, "x-max-priority": 9}))
    async with open_amqp() as broker:
        with pytest.raises(ConflictError) as caught:
            await declare(broker, Queue(name=queue, max_length=8))
        await declare(broker, Queue(name=f"{queue}.other", durable=False))
        await put(broker, f"{queue}.other", "a")
    await delete(queues=[queue])

    assert f'queue "{queue}" exists with another `max_length`' in str(caught.value)
    assert "'8'" in str(caught.value)
    assert "'7'" in str(caught.value)


async def test_what_exists_is_adopted_and_declared_otherwise() -> None:
    queue, options = new_id(), AmqpOptions(adopt=True)
    async with open_amqp() as broker:
        await declare(broker, Queue(name=f"{queue}.new", durable=False, options=options))
        await ask(commands.Queue.Declare(queue=queue, durable=True, arguments={"x-max-length": 7}))
        await declare(broker, Queue(name=queue, durable=False, options=options))
        await put(broker, queue, "a")
        await put(broker, f"{queue}.new", "a")


async def test_a_passive_queue_must_exist() -> None:
    queue = new_id()
    passive = Queue(name=queue, options=AmqpOptions(passive=True))
    async with open_amqp() as broker:
        with pytest.raises(UnavailableError, match="does not exist"):
            await declare(broker, passive)
        await ask(commands.Queue.Declare(queue=queue, arguments={"x-max-length": 7}))
        await broker.declare(
            Topology(queues=[passive], bindings=[Binding(queue=queue, exchange="amq.topic", pattern=f"{queue}.*")])
        )
        await put(broker, f"{queue}.a", "a", exchange="amq.topic")

        assert await depth(queue) == 1


async def test_tables_of_the_driver_declare_exchanges_of_every_type_and_bind_them() -> None:
    tag = new_id()
    headers, fan, queue, dead = (f"{tag}.{name}" for name in ("headers", "fan", "queue", "dead"))
    match = BindingTable(exchange=headers, pattern="", arguments={"x-match": "all", "tenant": "a"})
    config = AmqpConfig(
        exchanges={
            headers: ExchangeTable(type="headers", durable=False),
            fan: ExchangeTable(type="fanout", durable=False, bindings=(match,)),
        },
        queues={
            dead: QueueTable(durable=False),
            queue: QueueTable(durable=False, dead_letters=dead, bindings=(BindingTable(exchange=fan),)),
        },
    )
    async with open_amqp(config) as broker:
        await broker.declare(Topology(exchanges=[Exchange(name=fan)]))  # a component that knows no more than its name
        await broker.send(Envelope(subject="x", headers={"tenant": "a"}), exchange=headers, mandatory=True)
        with pytest.raises(UnroutableError):
            await broker.send(Envelope(subject="x", headers={"tenant": "b"}), exchange=headers, mandatory=True)
        async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
            await (await take(deliveries)).settle(DeadLetter("no use"))

        assert await depth(dead) == 1


async def test_a_queue_is_declared_in_one_place() -> None:
    queue = new_id()
    async with open_amqp(AmqpConfig(queues={queue: QueueTable(durable=False)})) as broker:
        await declare(broker, Queue(name=queue))
        with pytest.raises(ConflictError, match=r"has a table `queues` at driver/rabbit"):
            await declare(broker, Queue(name=queue, ttl=5.0))


async def test_dead_letters_must_have_a_queue() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        with pytest.raises(ConflictError, match="which nobody declared"):
            await declare(broker, Queue(name=queue, dead_letters=f"{queue}.dead"))
        assert await depth(queue) is None
        await ask(commands.Queue.Declare(queue=f"{queue}.dead"))
        await declare(broker, Queue(name=queue, durable=False, dead_letters=f"{queue}.dead"))
    await delete(queues=[f"{queue}.dead"])


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [AmqpConfig(exchanges={"a": ExchangeTable(type="x-nothing")}), AmqpConfig(delayed_exchange=True)],
    ids=["table", "plugin"],
)
async def test_an_exchange_type_that_the_broker_lacks_ends_the_start(config: AmqpConfig) -> None:
    with trio.fail_after(SOON), pytest.raises(StartupError, match="unknown exchange type"):
        async with open_amqp(config):
            raise AssertionError("opened")


async def test_a_wrong_password_is_refused_and_not_shown() -> None:
    config = AmqpConfig(password=Secret("geheim"))
    driver = AmqpDriver(config=config, context=fake_context("driver/rabbit"))
    with pytest.raises(LoginRefusedError) as caught:
        async with driver.open():
            raise AssertionError("opened")

    assert "geheim" not in f"{caught.value!r} {caught.value}"


async def test_full_queues_refuse_and_the_channel_goes_on() -> None:
    queue = new_id()
    async with open_amqp() as broker:
        await declare(broker, Queue(name=queue, durable=False, max_length=1))
        await put(broker, queue, "a")
        for _ in range(3):
            with pytest.raises(QueueFullError, match=f'queue "{queue}" is full'):
                await put(broker, queue, "b")

        assert await depth(queue) == 1


async def test_whoever_looks_sees_how_many_connections_there_are() -> None:
    asked: list[Callable[[], Usage]] = []
    context = attrs.evolve(fake_context("driver/rabbit"), report_usage=asked.append)
    async with AmqpDriver(config=AmqpConfig(), context=context).open():
        [look] = asked
        assert look() == Usage(used=2, limit=2)

    assert look() == Usage(used=0, limit=2)
