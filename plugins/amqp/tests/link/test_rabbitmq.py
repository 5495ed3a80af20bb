"""The connection against the real broker."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kernel_amqp._errors import ChannelClosedError, LinkLostError, RefusedError, ReturnedError
from kernel_amqp.core import Properties, Settings, TooLarge
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.connect import LinkSettings
from kernel_amqp.link.link import Link, open_link
from pamqp import commands

from kernel import new_id
from kernel.testing import cancel_at_each_checkpoint

from ..relay import Relay, open_relay

Host = tuple[str, int]
PATIENCE = 5.0


def settings(host: Host, **core: Any) -> LinkSettings:
    return LinkSettings(hosts=(host,), core=Settings(**{"response": "\0guest\0guest", **core}))


@pytest.fixture
async def link(rabbitmq: Host) -> AsyncGenerator[Link]:
    async with open_link(settings(rabbitmq)) as link:
        yield link


@asynccontextmanager
async def confirming(link: Link) -> AsyncGenerator[tuple[LinkChannel, str]]:
    """A channel in confirm mode and a queue that goes with the connection."""
    async with link.open_channel() as channel:
        await channel.confirm_select()
        name = new_id()
        await channel.call(commands.Queue.Declare(queue=name, exclusive=True))
        yield channel, name


async def publish(channel: LinkChannel, key: str, data: bytes = b"x", **others: Any) -> None:
    given = {"exchange": "", "routing_key": key, "properties": Properties(), "body": data, **others}
    await channel.publish(**given)


class Taken:
    """Collects deliveries, and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.changed = trio.Event()

    def __call__(self, event: Any) -> None:
        self.events.append(event)
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, count: int) -> list[Any]:
        with trio.fail_after(PATIENCE):
            while len(self.events) < count:
                await self.changed.wait()
        return self.events


async def test_what_is_published_is_delivered_and_acknowledged_once(link: Link) -> None:
    async with confirming(link) as (channel, name):
        properties = Properties(message_id="m", headers={"a": 1, "b": [True, "c"]}, delivery_mode=2, timestamp=1)
        await publish(channel, name, b"hello", properties=properties)
        taken = Taken()
        await channel.consume(name, consumer_tag="c", on_delivery=taken, on_cancel=print)
        (event,) = await taken.wait(1)
        assert (event.body, event.routing_key, event.redelivered) == (b"hello", name, False)
        assert (event.properties.message_id, event.properties.headers) == ("m", {"a": 1, "b": [True, "c"]})
        channel.ack(event.delivery_tag)
        await channel.flush()
        await channel.cancel_consumer("c")
        answer = await channel.call(commands.Queue.Declare(queue=name, passive=True))
        assert isinstance(answer, commands.Queue.DeclareOk)
        assert answer.message_count == 0


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_bodies_of_any_size_arrive_whole(link: Link, size: int) -> None:
    data = random.Random(size).randbytes(size)
    async with confirming(link) as (channel, name):
        taken = Taken()
        await channel.consume(name, consumer_tag="c", on_delivery=taken, on_cancel=print)
        await publish(channel, name, data)
        assert [event.body for event in await taken.wait(1)] == [data]


async def test_body_above_the_limit_is_told_and_not_kept(rabbitmq: Host) -> None:
    async with open_link(settings(rabbitmq, max_message_bytes=1000)) as link, confirming(link) as (channel, name):
        taken = Taken()
        await channel.consume(name, consumer_tag="c", on_delivery=taken, on_cancel=print)
        await publish(channel, name, bytes(300_000))
        await publish(channel, name, b"small")
        large, small = await taken.wait(2)
        assert isinstance(large, TooLarge)
        assert large.size == 300_000
        assert small.body == b"small"
        channel.nack(large.delivery_tag, requeue=False)
        channel.ack(small.delivery_tag)
        await channel.flush()


async def test_channel_errors_name_code_text_and_method_and_disturb_nobody(link: Link) -> None:
    async with confirming(link) as (channel, name):
        async with link.open_channel() as other:
            with pytest.raises(ChannelClosedError, match=r"406 .*'true'.*'false'") as caught:
                await other.call(commands.Queue.Declare(queue=name, exclusive=True, auto_delete=True))
            assert (caught.value.code, caught.value.method) == (406, "queue.declare")
            assert "auto_delete" in caught.value.text
        async with link.open_channel() as other:
            with pytest.raises(ChannelClosedError, match=r"404 .*no queue") as caught:
                await other.call(commands.Queue.Declare(queue=new_id(), passive=True))
            assert (caught.value.code, caught.value.method) == (404, "queue.declare")
        async with link.open_channel() as other:
            with pytest.raises(ChannelClosedError, match=r"403 ACCESS_REFUSED") as caught:
                await other.call(commands.Exchange.Declare(exchange="amq.mine"))
            assert (caught.value.code, caught.value.method) == (403, "exchange.declare")
        async with link.open_channel() as other:
            await other.confirm_select()
            with pytest.raises(ChannelClosedError, match=r"404 .*no exchange") as caught:
                await publish(other, "key", exchange=new_id())
            assert caught.value.method == "basic.publish"
            assert caught.value.written
        await publish(channel, name)
        assert link.lost is None


async def test_unroutable_mandatory_message_is_returned_and_others_are_taken(link: Link) -> None:
    async with confirming(link) as (channel, name), trio.open_nursery() as nursery:
        returned: list[str] = []

        async def send(key: str) -> None:
            try:
                await publish(channel, key, b"x" * 10, mandatory=True, properties=Properties(message_id=key))
            except ReturnedError as error:
                returned.append(error.routing_key)

        for number in range(50):
            nursery.start_soon(send, name if number % 2 else f"nowhere-{number}")
    assert sorted(returned) == sorted(f"nowhere-{number}" for number in range(0, 50, 2))


async def test_full_queue_that_rejects_refuses(link: Link) -> None:
    async with link.open_channel() as channel:
        await channel.confirm_select()
        name = new_id()
        arguments: Any = {"x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.call(commands.Queue.Declare(queue=name, exclusive=True, arguments=arguments))
        await publish(channel, name)
        with pytest.raises(RefusedError):
            await publish(channel, name)
        await publish(channel, new_id())  # to no queue at all, and not mandatory


async def test_consumer_hears_when_its_queue_is_deleted(link: Link) -> None:
    async with confirming(link) as (channel, name):
        cancelled = Taken()
        await channel.consume(name, consumer_tag="c", on_delivery=print, on_cancel=cancelled)
        await channel.call(commands.Queue.Delete(queue=name))
        assert await cancelled.wait(1) == ["c"]


async def test_leaving_a_channel_gives_back_what_was_not_settled(link: Link) -> None:
    async with confirming(link) as (channel, name):
        for number in range(3):
            await publish(channel, name, b"%d" % number)
        async with link.open_channel() as other:
            taken = Taken()
            await other.consume(name, consumer_tag="c", on_delivery=taken, on_cancel=print)
            other.ack((await taken.wait(3))[0].delivery_tag)
        again = Taken()
        await channel.consume(name, consumer_tag="c", on_delivery=again, on_cancel=print)
        events = await again.wait(2)
        assert [(event.body, event.redelivered) for event in events] == [(b"1", True), (b"2", True)]


async def test_an_ack_of_another_channels_tag_is_not_sent(link: Link) -> None:
    async with confirming(link) as (channel, name):
        await publish(channel, name)
        async with link.open_channel() as gone:
            taken = Taken()
            await gone.consume(name, consumer_tag="c", on_delivery=taken, on_cancel=print)
            (event,) = await taken.wait(1)
        async with link.open_channel() as successor:
            assert successor._core.number == gone._core.number
            with pytest.raises(ChannelClosedError, match=r"left"):
                gone.ack(event.delivery_tag)
            await successor.flush()  # a foreign ack would have closed it with 406
        assert link.lost is None


@pytest.mark.slow
async def test_publishers_cancelled_at_random_lose_nothing_that_was_confirmed(link: Link) -> None:
    confirmed: set[bytes] = set()
    chance = random.Random(4)

    async def publisher(channel: LinkChannel, name: str, number: int) -> None:
        for attempt in range(20):
            data = b"%d/%d/" % (number, attempt) + bytes(chance.choice([1, 200, 200_000]))
            with trio.move_on_after(chance.choice([0.0, 0.001, 0.005, PATIENCE])):
                await publish(channel, name, data)
                confirmed.add(data)

    async with confirming(link) as (channel, name):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(publisher, channel, name, number)
        taken = Taken()
        await channel.consume(name, consumer_tag="c", on_delivery=taken, on_cancel=print)
        events = await taken.wait(len(confirmed))
        await channel.flush()
        assert confirmed <= {event.body for event in events}
        assert len(confirmed) > 200
    assert link.lost is None


@pytest.mark.slow
async def test_link_cancelled_at_any_checkpoint_leaves_nothing_open(rabbitmq: Host) -> None:
    async def operation() -> None:
        async with open_link(settings(rabbitmq)) as link, confirming(link) as (channel, name):
            await publish(channel, name)
            await channel.consume(name, consumer_tag="c", on_delivery=lambda _: None, on_cancel=print)
            await channel.flush()

    assert await cancel_at_each_checkpoint(operation) > 10


@pytest.mark.slow
async def test_reset_connection_is_found_at_once(rabbitmq: Host) -> None:
    async with (
        open_relay(rabbitmq) as relay,
        open_link(settings(("127.0.0.1", relay.port))) as link,
        confirming(link) as (channel, name),
    ):
        relay.hold(down=True)
        with trio.move_on_after(0.1):
            await publish(channel, name)
        relay.cut()
        with trio.fail_after(4):
            lost = await link.wait_lost()
        assert f"127.0.0.1:{relay.port}" in lost.reason
        with pytest.raises(LinkLostError) as caught:
            await publish(channel, name)
        assert not caught.value.written


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_black_hole_is_found_within_two_heartbeats(rabbitmq: Host, direction: str) -> None:
    async with open_relay(rabbitmq) as relay:
        given = settings(("127.0.0.1", relay.port), heartbeat=3.0)
        async with open_link(given) as link, confirming(link) as (channel, name):
            await publish(channel, name)
            _hold(relay, direction)
            began = trio.current_time()
            with pytest.raises(LinkLostError) as caught, trio.fail_after(10):
                await publish(channel, name)
            assert caught.value.written
            assert trio.current_time() - began <= 6.3
            assert link.lost is not None


def _hold(relay: Relay, direction: str) -> None:
    relay.hold(**{direction: True})


async def test_who_finds_no_free_channel_waits_for_one(rabbitmq: tuple[str, int]) -> None:
    core = Settings(response="\0guest\0guest", channel_max=2, heartbeat=0.0)
    order: list[str] = []
    async with open_link(LinkSettings(hosts=(rabbitmq,), core=core)) as link, trio.open_nursery() as nursery:

        async def use(name: str) -> None:
            async with link.open_channel() as channel:
                await channel.flush()
                order.append(name)

        with trio.move_on_after(0.2) as all_used:
            async with link.open_channel(), link.open_channel():
                for number in range(50):
                    nursery.start_soon(use, str(number))
                await trio.sleep_forever()

    assert all_used.cancelled_caught
    assert len(order) == 50


async def test_who_waits_for_a_channel_is_told_when_the_connection_is_lost(rabbitmq: tuple[str, int]) -> None:
    core = Settings(response="\0guest\0guest", channel_max=1, heartbeat=0.0)
    settings = LinkSettings(hosts=(rabbitmq,), core=core)
    async with open_link(settings) as link, link.open_channel(), trio.open_nursery() as nursery:
        nursery.start_soon(link.aclose)
        with pytest.raises(LinkLostError):
            async with link.open_channel():
                pass
