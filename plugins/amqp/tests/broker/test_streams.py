"""Streams, on the real broker: each test has one of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpOptions
from kernel_amqp.broker.streams import Progress

from kernel import Ack, DeadLetter, Envelope, Retry, Return, handles, new_id
from kernel.abc import Delivery, Queue, Subscription, Topology
from kernel.errors import ConflictError, SubscriptionLostError, TransientError
from kernel.testing import open_kernel, open_proxy

from ..bench import HERE, SOON, depth, open_amqp, take

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]

FIRST = AmqpOptions(type="stream", offset="first")


class Stream:
    """A stream and the queue for its dead letters."""

    def __init__(self, broker: AmqpBroker, options: AmqpOptions = FIRST) -> None:
        self.broker = broker
        self.name = f"stream{new_id()[:8]}"
        self.grave = f"{self.name}.dead"
        self.options = options

    async def declare(self, options: AmqpOptions | None = None) -> None:
        stream = Queue(name=self.name, dead_letters=self.grave, options=options or self.options)
        await self.broker.declare(Topology(queues=[Queue(name=self.grave), stream]))

    async def fill(self, *texts: str, value: str | None = None) -> None:
        headers = {} if value is None else {"x-stream-filter-value": value}
        for text in texts:
            envelope = Envelope(subject=self.name, id=text, headers=headers)
            await self.broker.send(envelope, exchange="", mandatory=True)

    @asynccontextmanager
    async def consumed(self, prefetch: int = 10) -> AsyncGenerator[AsyncIterator[Delivery]]:
        async with self.broker.subscribe(Subscription(queue=self.name, prefetch=prefetch)) as deliveries:
            yield deliveries

    async def took(self, count: int) -> list[str]:
        """Return the next ids of a subscription, each acknowledged."""
        async with self.consumed() as deliveries:
            return [await acknowledged(deliveries) for _ in range(count)]


async def kept(stream: Stream, count: int) -> list[str]:
    """Return what somebody else finds in a stream."""
    async with open_amqp() as broker:
        other = Stream(broker)
        other.name, other.grave = stream.name, stream.grave
        await other.declare()
        return await other.took(count)


async def acknowledged(deliveries: AsyncIterator[Delivery]) -> str:
    delivery = await take(deliveries)
    await settle(delivery, Ack())
    return delivery.envelope.id


async def settle(delivery: Delivery, outcome: Ack | Retry | DeadLetter | Return) -> None:
    if not delivery.settle_nowait(outcome):
        await delivery.settle(outcome)


@asynccontextmanager
async def opened(*texts: str, options: AmqpOptions = FIRST, config: AmqpConfig | None = None) -> AsyncGenerator[Stream]:
    async with open_amqp(config) as broker:
        stream = Stream(broker, options)
        await stream.declare()
        await stream.fill(*texts)
        yield stream


async def test_what_is_consumed_stays_for_the_next_one() -> None:
    async with opened("a", "b", "c") as stream:
        assert await stream.took(3) == ["a", "b", "c"]
        assert await kept(stream, 3) == ["a", "b", "c"]


async def test_a_handler_sees_where_a_message_stands() -> None:
    async with opened("a", "b") as stream, stream.consumed() as deliveries:
        places = [(await take(deliveries)).envelope.headers for _ in range(2)]

    assert places == [{"x-stream-offset": 0}, {"x-stream-offset": 1}]


@pytest.mark.parametrize(
    ("offset", "wanted"),
    [
        ("first", "a"),
        (2, "c"),
        ("1h", "a"),
        ((datetime.now(UTC) - timedelta(hours=1)).isoformat(), "a"),
        ("next", "new"),
        ((datetime.now(UTC) + timedelta(days=1)).isoformat(), "new"),
    ],
    ids=["first", "number", "interval", "time", "next", "time to come"],
)
async def test_it_begins_where_it_is_said(offset: int | str, wanted: str) -> None:
    options = AmqpOptions(type="stream", offset=offset)
    async with opened("a", "b", "c", options=options) as stream, stream.consumed() as deliveries:
        await stream.fill("new")

        assert await acknowledged(deliveries) == wanted


async def test_the_last_block_is_where_last_begins() -> None:
    options = AmqpOptions(type="stream", offset="last")
    async with opened("a", options=options) as stream:
        await stream.fill("b")

        assert await stream.took(1) in (["a"], ["b"])


async def test_a_subscription_goes_on_where_the_one_before_ended() -> None:
    async with opened("a", "b", "c", "d") as stream:
        assert await stream.took(2) == ["a", "b"]
        assert await stream.took(2) == ["c", "d"]


async def test_what_was_not_done_comes_again_and_what_was_does_not() -> None:
    async with opened("a", "b", "c", "d") as stream:
        async with stream.consumed() as deliveries:
            taken = [await take(deliveries) for _ in range(3)]
            await settle(taken[0], Ack())
            await settle(taken[2], Ack())

        assert await stream.took(2) == ["b", "d"]


async def test_what_was_in_hand_when_the_connection_broke_is_not_handled_twice() -> None:
    async with open_proxy(*HERE) as proxy:
        config = AmqpConfig(hosts=(f"127.0.0.1:{proxy.port}",), heartbeat=2.0, backoff_initial=0.05, backoff_max=0.2)
        async with opened("a", "b", "c", config=config) as stream:
            async with stream.consumed() as deliveries:
                first = await take(deliveries)
                proxy.reset()
                while stream.broker._consuming.current is not None:  # noqa: ASYNC110  nobody says
                    await trio.sleep(0.01)
                await settle(first, Ack())
                with pytest.raises(SubscriptionLostError):
                    await take(deliveries)

            assert await stream.took(2) == ["b", "c"]


async def test_a_retry_waits_here_and_others_go_on() -> None:
    async with opened("a", "b") as stream, stream.consumed(prefetch=1) as deliveries:
        first = await take(deliveries)
        await settle(first, Retry(0.1))
        second = await take(deliveries)
        await settle(second, Ack())
        again = await take(deliveries)

        assert [first.envelope.id, second.envelope.id, again.envelope.id] == ["a", "b", "a"]
        assert (first.attempt, again.attempt) == (1, 2)


async def test_attempts_are_counted_through_subscriptions() -> None:
    async with opened("a") as stream:
        async with stream.consumed() as deliveries:
            await settle(await take(deliveries), Retry(60.0))
        async with stream.consumed() as deliveries:
            assert (await take(deliveries)).attempt == 2


async def test_what_is_returned_comes_again_and_does_not_count() -> None:
    async with opened("a") as stream, stream.consumed() as deliveries:
        await settle(await take(deliveries), Return())

        assert (await take(deliveries)).attempt == 1


async def test_a_dead_letter_is_a_copy_in_a_queue_beside_it() -> None:
    async with opened("a", "b") as stream:
        async with stream.consumed() as deliveries:
            await settle(await take(deliveries), DeadLetter("no use"))
            await settle(await take(deliveries), Ack())
        async with stream.broker.subscribe(Subscription(queue=stream.grave, prefetch=1)) as deliveries:
            letter = await take(deliveries)
            await settle(letter, Ack())

        assert letter.envelope.id == "a"
        assert letter.envelope.headers["kernel-death-reason"] == "no use"
        assert await kept(stream, 2) == ["a", "b"], "nothing leaves a stream"


@pytest.mark.parametrize(("match_unfiltered", "wanted"), [(False, ["north", "end"]), (True, ["north", "none", "end"])])
async def test_a_filter_has_only_what_is_wanted_handled(match_unfiltered: bool, wanted: list[str]) -> None:
    options = AmqpOptions(type="stream", offset="first", filter=("n", "e"), match_unfiltered=match_unfiltered)
    async with opened(options=options) as stream:
        for text, value in (("north", "n"), ("south", "s"), ("none", None), ("end", "e")):
            await stream.fill(text, value=value)

        assert await stream.took(len(wanted)) == wanted
        assert await kept(stream, 4) == ["north", "south", "none", "end"]


async def test_more_comes_than_may_be_in_hand_at_a_time() -> None:
    texts = [f"m{number}" for number in range(300)]
    async with opened(*texts) as stream, stream.consumed(prefetch=1) as deliveries:
        assert [await acknowledged(deliveries) for _ in texts] == texts


async def test_two_who_consume_a_stream_through_one_driver_are_told() -> None:
    async with opened("a") as stream, stream.consumed():
        with pytest.raises(ConflictError, match="is consumed here already"):
            async with stream.consumed():
                raise AssertionError("it must not begin")


async def test_bounds_are_sent_as_a_stream_has_them() -> None:
    options = AmqpOptions(type="stream", max_length_bytes=1_000_000, max_age=3600.0)
    async with opened(options=options) as stream:
        with trio.fail_after(SOON):
            await stream.declare(options)
        async with open_amqp() as other:
            changed = Queue(name=stream.name, options=AmqpOptions(type="stream", max_length_bytes=5, max_age=3600.0))
            with pytest.raises(ConflictError, match=r"options\.max_length_bytes"):
                await other.declare(Topology(queues=[changed]))


def test_progress_forgets_what_nobody_will_ask_for() -> None:
    progress = Progress(FIRST)
    for offset in range(5000):
        progress.take_in(offset)
        progress.done(offset)

    assert progress.begin() == 5000
    assert len(progress._done) <= 1001


def test_progress_that_waits_for_one_message_keeps_what_is_done_behind_it() -> None:
    progress = Progress(FIRST)
    for offset in range(3000):
        progress.take_in(offset)
    for offset in range(1, 3000):
        progress.done(offset)

    assert progress.begin() == 0
    assert [offset for offset in range(3001) if progress.take_in(offset)] == [0, 3000]


# --- in a service ---------------------------------------------------------------------------------------------------

HANDLED: list[tuple[str, int]] = []


class Audit:
    @handles("#")
    async def audit(self, payload: str, delivery: Delivery) -> None:
        HANDLED.append((payload, delivery.attempt))
        if payload == "bad":
            raise TransientError("not now")


def service(name: str) -> dict[str, Any]:
    return {
        "drivers": {"rabbit": {"plugin": "amqp"}},
        "protocols": {"json": {}},
        "dispatchers": {
            "audit": {
                "plugin": "consumer",
                "driver": "rabbit",
                "protocol": "json",
                "queue": name,
                "options": {"type": "stream", "offset": "first"},
            }
        },
        "workers": {
            "audit": {
                "use": f"{__name__}:Audit",
                "dispatcher": "audit",
                "retry": {"attempts": 3, "backoff_initial": 0.01},
            }
        },
    }


async def test_a_service_tries_again_puts_aside_and_goes_on() -> None:
    HANDLED.clear()
    async with opened() as stream:
        for text in ("bad", "good"):
            await stream.broker.send(Envelope(subject=stream.name, body=f'"{text}"'.encode()), exchange="")
        async with open_kernel(service(stream.name), expected=Exception) as running:
            await running.wait_settled(4)

        assert sorted(HANDLED) == [("bad", 1), ("bad", 2), ("bad", 3), ("good", 1)]
        assert await depth(stream.grave) == 1
