from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest
import trio
from kernel_memory import MemoryBroker
from kernel_messaging import PublisherConfig, PublisherDriver
from trio.testing import MockClock

from kernel import Envelope
from kernel.abc import Binding, Broker, Exchange, Protocol, Queue, Topology, Transaction
from kernel.errors import UnknownOutcomeError, UnroutableError
from kernel.testing import fake_context, open_intake


def publisher(broker: Broker, protocol: Protocol, **config: Any) -> PublisherDriver:
    context = fake_context("driver/events", driver=broker, protocol=protocol)
    return PublisherDriver(config=PublisherConfig(**config), context=context)


async def bind(broker: MemoryBroker, *, exchange: str = "events") -> None:
    await broker.declare(
        Topology(
            exchanges=[Exchange(name=exchange)],
            queues=[Queue(name="all")],
            bindings=[Binding(queue="all", exchange=exchange, pattern="#")],
        )
    )


async def arrived(broker: MemoryBroker) -> list[Envelope]:
    return [delivery.envelope for delivery in await broker.peek("all")]


async def test_a_message_is_written_by_the_protocol_and_sent(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await bind(broker)
    async with publisher(broker, protocol).open() as events:
        sent = await events.publish("order.created", {"n": 1}, headers={"h": "x"}, priority=3)
    [envelope] = await arrived(broker)

    assert (envelope.subject, envelope.body, envelope.headers) == ("order.created", b'{"n": 1}', {"h": "x"})
    assert (envelope.id, envelope.priority) == (sent, 3)


async def test_the_id_can_be_chosen_and_is_new_otherwise(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await bind(broker)
    async with publisher(broker, protocol).open() as events:
        first, second = await events.publish("a", 1), await events.publish("a", 1)
        chosen = await events.publish("a", 1, id="mine")

    assert first != second
    assert chosen == "mine"
    assert [envelope.id for envelope in await arrived(broker)] == [first, second, "mine"]


async def test_a_delayed_message_comes_later(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await bind(broker)
    async with publisher(broker, protocol).open() as events:
        await events.publish("a", 1, delay=60)
        await trio.sleep(59)
        before = await arrived(broker)
        await trio.sleep(2)

        assert (len(before), len(await arrived(broker))) == (0, 1)


async def test_a_message_does_not_inherit_the_deadline_unless_asked_to(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await bind(broker)
    with trio.fail_after(5):
        deadline = trio.current_effective_deadline()
        async with publisher(broker, protocol).open() as events:
            await events.publish("a", 1)
        async with publisher(broker, protocol, deadline=True).open() as events:
            await events.publish("a", 1)

        assert [envelope.deadline for envelope in await arrived(broker)] == [math.inf, deadline]


async def test_nobody_bound_is_an_error_unless_it_is_not_mandatory(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with publisher(broker, protocol, mandatory=False).open() as events:
        await events.publish("a", 1)
    async with publisher(broker, protocol).open() as events:
        with pytest.raises(UnroutableError, match='"a" on exchange "events"'):
            await events.publish("a", 1)


async def test_without_declare_the_exchange_must_exist(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with publisher(broker, protocol, exchange="audit", declare=False).open() as events:
        with pytest.raises(UnroutableError, match='no exchange "audit"'):
            await events.publish("a", 1)
        await bind(broker, exchange="audit")
        await events.publish("a", 1)

    assert len(await arrived(broker)) == 1


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *(("delay", value, ValueError) for value in (-1.0, math.nan, math.inf, 1e7)),
        *(("delay", value, TypeError) for value in ("1", True, [1])),
        *(("priority", value, ValueError) for value in (-1, 10)),
        *(("priority", value, TypeError) for value in ("1", 1.5, True)),
    ],
)
async def test_values_out_of_range_are_refused(
    broker: MemoryBroker, protocol: Protocol, name: str, value: Any, error: type[Exception], autojump_clock: MockClock
) -> None:
    async with publisher(broker, protocol).open() as events:
        with pytest.raises(error, match=f"`{name}` is "):
            await events.publish("a", 1, **{name: value})


async def test_without_an_exchange_the_subject_names_the_queue(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with publisher(broker, protocol, exchange="", mandatory=True).open() as events:
        with pytest.raises(UnroutableError, match='there is no queue "all"'):
            await events.publish("all", 1)
        await broker.declare(Topology(queues=[Queue(name="all")]))
        await events.publish("all", 1)

    assert [envelope.subject for envelope in await arrived(broker)] == ["all"]


@attrs.define
class Recorded(Transaction):
    """Notes what is sent in it."""

    sent: list[tuple[Envelope, str, bool]] = attrs.field(factory=list[tuple[Envelope, str, bool]])

    async def execute(
        self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> Sequence[tuple[object, ...]]:
        raise NotImplementedError

    async def once(self, message_id: str, *, scope: str = "") -> bool:
        raise NotImplementedError

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = True) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append((envelope, exchange, mandatory))


async def test_in_a_transaction_the_protocol_writes_and_the_transaction_sends(
    broker: MemoryBroker, protocol: Protocol, autojump_clock: MockClock
) -> None:
    await bind(broker)
    transaction = Recorded()
    async with publisher(broker, protocol).open() as events:
        sent = await events.publish("a", {"n": 1}, headers={"h": "x"}, delay=2.0, transaction=transaction)

    [(envelope, exchange, mandatory)] = transaction.sent
    assert (envelope.id, envelope.subject, envelope.body) == (sent, "a", b'{"n": 1}')
    assert (envelope.headers, envelope.delay) == ({"h": "x"}, 2.0)
    assert (exchange, mandatory) == ("events", True)
    assert await arrived(broker) == []


class Away(Broker):
    """A broker that is away: it takes nothing, and says nothing."""

    async def declare(self, topology: Topology) -> None:
        await trio.lowlevel.checkpoint()

    def subscribe(self, subscription: object) -> Any:
        raise NotImplementedError

    async def send(self, envelope: Envelope, *, exchange: str, mandatory: bool = False) -> None:
        await trio.sleep_forever()


async def seconds_until_told(events: Any) -> float:
    """How long a publish waits until it says that it does not know; an hour if it does not."""
    began = trio.current_time()
    with (
        trio.move_on_after(3600),
        pytest.raises(UnknownOutcomeError, match=r'did not take "a" within .* with id="mine"'),
    ):
        await events.publish("a", 1, id="mine")
    return trio.current_time() - began


async def test_a_request_waits_ten_seconds_for_a_broker_that_is_away(
    protocol: Protocol, autojump_clock: MockClock
) -> None:
    async with open_intake() as intake, publisher(Away(), protocol).open() as events:
        async with intake.slot("GET /"):
            in_request = await seconds_until_told(events)
        with trio.move_on_after(3600) as outside:
            await events.publish("a", 1)

    assert (in_request, outside.cancelled_caught) == (10.0, True)


async def test_the_manifest_bounds_every_publish(protocol: Protocol, autojump_clock: MockClock) -> None:
    async with open_intake() as intake, publisher(Away(), protocol, timeout=3.0).open() as events:
        outside = await seconds_until_told(events)
        async with intake.slot("GET /"):
            in_request = await seconds_until_told(events)

    assert (outside, in_request) == (3.0, 3.0)
