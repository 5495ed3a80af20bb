"""An outcome that cannot be sent costs no second handling: it is kept, or the broker puts the message aside."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import attrs
import pytest
import trio
from kernel_amqp import AmqpBroker, MessageDropped
from kernel_amqp.core import Delivered, Properties, TooLarge
from kernel_amqp.link.link import open_link
from pamqp import commands

from kernel import Ack, DeadLetter, Envelope, Event, Outcome, Retry, new_id
from kernel.abc import Delivery, Queue, Subscription, Topology

from ..bench import SETTINGS, SOON, ask, delete, depth, open_amqp, take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]

ATTEMPTS = 3
LOOKED_AT = 1.0
"""Seconds in which a message that came again at once would have come hundreds of times."""


def field(name: bytes, kind: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + kind + value


def table(*fields: bytes) -> bytes:
    data = b"".join(fields)
    return struct.pack(">I", len(data)) + data


def text(name: bytes, length: int) -> bytes:
    return field(name, b"S", struct.pack(">I", length) + b"x" * length)


def nested(depth: int, name: bytes = b"deep") -> bytes:
    inner = table()
    for _ in range(depth):
        inner = table(field(b"a", b"F", inner))
    return field(name, b"F", inner)


def time(seconds: int) -> bytes:
    return field(b"born", b"T", struct.pack(">q", seconds))


FOREIGN: Mapping[str, bytes] = {
    "a time before 1970": table(time(-86_400)),
    "a time before 1970 in an array": table(field(b"times", b"A", table(b"T" + struct.pack(">q", -1)))),
    "a time long before all others": table(time(-(2**62))),
    "a time in milliseconds": table(time(1_700_000_000_000)),
    "a time after all others": table(time(2**63 - 1)),
    "headers that fill a frame": table(text(b"long", 130_900)),
    "headers that fill a frame when they are copied": table(*(field(b"%05d" % n, b"b", b"1") for n in range(14_000))),
    "a key that is no text": table(field(b"\xff" * 255, b"t", b"\x01")),
    "nesting to the bound": table(nested(30)),
    "a decimal with many places": table(field(b"d", b"D", b"\xff\x7f\xff\xff\xff")),
    "a number of 32 bits": table(field(b"f", b"f", struct.pack(">f", 0.1))),
    "text that is none": table(field(b"s", b"S", table(b"\xff\xfe"))),
    "a death that nests to the bound": table(nested(30, b"kernel-death-reason")),
    "attempts that are no number": table(text(b"kernel-attempts", 3)),
}
OUTCOMES: Mapping[str, Outcome] = {
    "tried again at once": Retry(),
    "tried again later": Retry(0.05),
    "put aside": DeadLetter("no use"),
}


@attrs.define
class Bench:
    """One queue with its dead letters, whose messages all end in one way."""

    broker: AmqpBroker
    outcome: Outcome
    queue: str = attrs.field(factory=new_id)
    runs: int = 0

    @property
    def grave(self) -> str:
        return f"{self.queue}.dead"

    async def declare(self) -> None:
        grave, queue = Queue(name=self.grave), Queue(name=self.queue, dead_letters=self.grave)
        await self.broker.declare(Topology(queues=[grave, queue]))

    async def handle(self, seconds: float = LOOKED_AT) -> None:
        """Handle what comes as the kernel would."""
        wish = Subscription(queue=self.queue, prefetch=10)
        with trio.move_on_after(seconds):
            async with self.broker.subscribe(wish) as deliveries:
                async for delivery in deliveries:
                    self.runs += 1
                    await settle(delivery, self._judge(delivery))

    def _judge(self, delivery: Delivery) -> Outcome:
        is_over = isinstance(self.outcome, Retry) and delivery.attempt >= ATTEMPTS
        return DeadLetter("attempts used up") if is_over else self.outcome


async def settle(delivery: Delivery, outcome: Outcome) -> None:
    with trio.CancelScope(shield=True):
        if not delivery.settle_nowait(outcome):
            await delivery.settle(outcome)


async def publish(queue: str, properties: Properties) -> None:
    async with open_link(SETTINGS) as link, link.open_channel() as channel:
        await channel.confirm_select()
        await channel.publish(exchange="", routing_key=queue, properties=properties, body=b"{}", mandatory=True)


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())
@pytest.mark.parametrize("raw", FOREIGN.values(), ids=FOREIGN.keys())
async def test_what_a_foreign_program_has_written_is_handled_as_often_as_is_allowed(
    raw: bytes, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_amqp() as broker:
        bench = Bench(broker, outcome)
        await bench.declare()
        with monkeypatch.context() as patch:
            patch.setattr("kernel_amqp.core.properties.encode_table", lambda _: raw)
            await publish(bench.queue, Properties(headers={"any": 1}))

        await bench.handle()

        assert 1 <= bench.runs <= (ATTEMPTS if isinstance(outcome, Retry) else 1)
        assert (await depth(bench.queue), await depth(bench.grave)) == (0, 1)


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())
@pytest.mark.parametrize(
    "properties",
    [
        Properties(message_id="\udcff" * 100),
        Properties(message_id="\udcff" * 255),
        Properties(correlation_id="\udcff" * 255, reply_to="\udcfe" * 255),
        Properties(content_type="\udcff" * 100, type="\udcff" * 255, app_id="\udcff" * 255),
        Properties(timestamp=2**64 - 1),
    ],
    ids=["an id", "the longest id", "a reply address", "names", "a time"],
)
async def test_properties_that_are_no_text_go_with_every_copy(properties: Properties, outcome: Outcome) -> None:
    async with open_amqp() as broker:
        bench = Bench(broker, outcome)
        await bench.declare()
        await publish(bench.queue, properties)

        await bench.handle()

        assert bench.runs == (ATTEMPTS if isinstance(outcome, Retry) else 1)
        assert (await depth(bench.queue), await depth(bench.grave)) == (0, 1)


async def test_the_longest_wait_that_a_handler_can_ask_for_is_one_that_the_broker_can_hold() -> None:
    async with open_amqp() as broker:
        bench = Bench(broker, Retry(1_000_000.0))
        await bench.declare()
        await publish(bench.queue, Properties())
        await delete(queues=["kernel.delay.kept.1000000000."])

        await bench.handle()

        assert bench.runs == 1
        assert (await depth(bench.queue), await depth("kernel.delay.kept.1000000000.")) == (0, 1)
    await delete(queues=["kernel.delay.kept.1000000000."])


async def test_a_dead_letter_waits_for_its_queue_that_others_have_deleted() -> None:
    async with open_amqp() as broker:
        bench = Bench(broker, DeadLetter("no use"))
        await ask(commands.Queue.Declare(queue=bench.grave))
        await broker.declare(Topology(queues=[Queue(name=bench.queue, dead_letters=bench.grave)]))
        await delete(queues=[bench.grave])
        await publish(bench.queue, Properties())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.handle, SOON)
            await trio.sleep(LOOKED_AT)
            await ask(commands.Queue.Declare(queue=bench.grave))
            await wait_for(lambda: depth(bench.grave), 1)
            nursery.cancel_scope.cancel()

        assert (bench.runs, await depth(bench.queue)) == (1, 0)
    await delete(queues=[bench.grave])


async def test_dead_letters_wait_for_a_queue_that_is_full() -> None:
    async with open_amqp() as broker:
        bench = Bench(broker, DeadLetter("no use"))
        grave = Queue(name=bench.grave, max_length=1)
        await broker.declare(Topology(queues=[grave, Queue(name=bench.queue, dead_letters=bench.grave)]))
        await publish(bench.grave, Properties())
        await publish(bench.queue, Properties())
        await publish(bench.queue, Properties())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.handle, 2 * SOON)
            await trio.sleep(LOOKED_AT)
            first, second = await take_one(broker, bench.grave), await take_one(broker, bench.grave)
            third = await take_one(broker, bench.grave)
            nursery.cancel_scope.cancel()

        assert (bench.runs, await depth(bench.queue)) == (2, 0)
        assert [Counter(dict(letter.headers))["kernel-death-attempts"] for letter in (first, second, third)] == [
            0,
            1,
            1,
        ]


async def make_unusable(place: str) -> None:
    """Take a place for delayed messages with a queue that the driver cannot use; a retry of others may have made it."""
    await delete(queues=[place])
    [_] = await ask(commands.Queue.Declare(queue=place, arguments={"x-max-length": 1}))


async def test_a_retry_that_can_wait_nowhere_is_put_aside_by_the_broker() -> None:
    place = "kernel.delay.kept.47."
    await make_unusable(place)
    async with open_amqp() as broker:
        bench = Bench(broker, Retry(0.047))
        await bench.declare()
        await publish(bench.queue, Properties())

        await bench.handle()
        letter = await take_one(broker, bench.grave)

        assert (bench.runs, await depth(bench.queue)) == (1, 0)
        assert (letter.headers["kernel-death-reason"], letter.headers["kernel-death-queue"]) == (
            "rejected",
            bench.queue,
        )
    await delete(queues=[place])
    await ask(commands.Exchange.Delete(exchange=place))


async def test_a_retry_that_can_wait_nowhere_and_is_put_aside_nowhere_is_dropped_with_an_event() -> None:
    place, events = "kernel.delay.kept.46.", list[Event]()
    await make_unusable(place)
    async with open_amqp(events=events) as broker:
        bench = Bench(broker, Retry(0.046))
        await broker.declare(Topology(queues=[Queue(name=bench.queue)]))
        await publish(bench.queue, Properties(message_id="m"))

        await bench.handle()

        dropped = [event.message_id for event in events if isinstance(event, MessageDropped)]
        assert (bench.runs, dropped, await depth(bench.queue)) == (1, ["m"], 0)
    await delete(queues=[place])
    await ask(commands.Exchange.Delete(exchange=place))


@pytest.mark.parametrize(
    ("reply", "exchange"),
    [
        (Envelope(subject="x" * 300), ""),
        (Envelope(subject="nobody"), ""),
        (Envelope(subject="nobody"), "kernel-no-such-exchange"),
        (Envelope(subject="nobody"), "amq.rabbitmq.trace"),
        (Envelope(subject="nobody", headers={"x": "y" * 140_000}), ""),
        (Envelope(subject="nobody", priority=11), ""),
    ],
    ids=["long address", "no queue", "no exchange", "an exchange of the broker's own", "large headers", "priority"],
)
async def test_an_answer_that_cannot_be_sent_is_dropped_with_an_event_and_the_request_is_done(
    reply: Envelope, exchange: str
) -> None:
    events: list[Event] = []
    async with open_amqp(events=events) as broker:
        bench = Bench(broker, Ack())
        await bench.declare()
        await publish(bench.queue, Properties())
        wish = Subscription(queue=bench.queue, prefetch=1, reply_exchange=exchange)
        async with broker.subscribe(wish) as deliveries:
            await settle(await take(deliveries), Ack(reply))

        dropped = [event.message_id for event in events if isinstance(event, MessageDropped)]
        assert (dropped, await depth(bench.queue)) == ([reply.id], 0)


async def test_an_answer_without_a_queue_arrives_and_is_not_called_dropped() -> None:
    """RabbitMQ delivers it, and returns it as well where it is mandatory."""
    events, answers = list[Event](), list[bytes]()
    heard = trio.Event()

    def hear(event: Delivered | TooLarge) -> None:
        answers.append(event.body if isinstance(event, Delivered) else b"")
        heard.set()

    async with open_amqp(events=events) as broker, open_link(SETTINGS) as link, link.open_channel() as channel:
        bench = Bench(broker, Ack())
        await bench.declare()
        await channel.consume(
            "amq.rabbitmq.reply-to", consumer_tag="c", on_delivery=hear, on_cancel=lambda _: None, no_ack=True
        )
        request = Properties(reply_to="amq.rabbitmq.reply-to", correlation_id="1")
        await channel.publish(exchange="", routing_key=bench.queue, properties=request, body=b"{}")
        async with broker.subscribe(Subscription(queue=bench.queue, prefetch=1)) as deliveries:
            delivery = await take(deliveries)
            reply = Envelope(subject=delivery.envelope.reply_to, body=b"answer", correlation_id="1")
            await settle(delivery, Ack(reply))
        with trio.fail_after(SOON):
            await heard.wait()

    assert answers == [b"answer"]
    assert [event for event in events if isinstance(event, MessageDropped)] == []


async def take_one(broker: AmqpBroker, queue: str) -> Envelope:
    async with broker.subscribe(Subscription(queue=queue, prefetch=1)) as deliveries:
        delivery = await take(deliveries)
        await settle(delivery, Ack())
        return delivery.envelope


async def wait_for(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    with trio.fail_after(SOON):
        while await look() != wanted:  # noqa: ASYNC110  the broker does not say
            await trio.sleep(0.05)
