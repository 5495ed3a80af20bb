"""Leases on RabbitMQ: queues in which one message stands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from kernel_amqp import AmqpBroker, AmqpConfig, AmqpDriver
from kernel_amqp.broker.leases import PREFIX, AmqpLease, _Look
from kernel_amqp.core import Properties, with_names
from kernel_amqp.link.link import open_link
from pamqp import commands

from kernel import new_id
from kernel.abc import Lease
from kernel.errors import UnavailableError
from kernel.testing import check_leasing, fake_context

from ..bench import SETTINGS, delete, depth

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("rabbitmq")]
NAMES: set[str] = set()


@pytest.fixture(autouse=True)
def queues(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Delete the queues of the leases that a test has used."""
    make = AmqpBroker.lease

    def noted(self: AmqpBroker, name: str) -> Lease:
        lease = make(self, name)
        assert isinstance(lease, AmqpLease)
        NAMES.add(lease._queue)
        return lease

    monkeypatch.setattr(AmqpBroker, "lease", noted)
    yield
    trio.run(_delete_all)


async def _delete_all() -> None:
    await delete(queues=NAMES)
    NAMES.clear()


@asynccontextmanager
async def open_place(**config: object) -> AsyncGenerator[AmqpBroker]:
    settings = AmqpConfig(**config)  # type: ignore[arg-type]  # as a test says
    async with AmqpDriver(config=settings, context=fake_context("driver/rabbit")).open() as broker:
        yield broker


def name() -> str:
    return f"test.{new_id()}"


async def test_amqp_keeps_every_promise_of_a_place_of_leases() -> None:
    await check_leasing(open_place)


async def test_a_lease_has_the_prefix_of_the_driver() -> None:
    mark = name()
    async with open_place(prefix="shop.") as one, open_place() as other:
        await one.lease(mark).write("one", after=0)
        state = await other.lease(mark).read()

    assert state.version == 0
    assert await depth(f"shop.{PREFIX}{mark}") == 1


async def test_one_message_stays_in_the_queue_however_often_it_is_read_and_written() -> None:
    mark = name()
    async with open_place() as one, open_place() as two:
        for version in range(5):
            assert await (one, two)[version % 2].lease(mark).write(str(version), after=version)
            await two.lease(mark).read()

    assert await depth(PREFIX + mark) == 1


async def test_of_two_messages_that_a_crash_has_left_the_later_one_counts() -> None:
    mark = name()
    async with open_place() as place:
        await place.lease(mark).write("first", after=0)
        await place.lease(mark).write("second", after=1)
        await put(PREFIX + mark, "first", version=1)

        state = await place.lease(mark).read()

    assert (state.version, state.value) == (2, "second")
    assert await depth(PREFIX + mark) == 1


async def put(queue: str, text: str, *, version: int) -> None:
    properties = Properties(type="lease", headers={"kernel-version": version})
    async with open_link(SETTINGS) as link, link.open_channel() as channel:
        await channel.confirm_select()
        await channel.publish(exchange="", routing_key=queue, properties=properties, body=text.encode())


async def test_who_holds_a_lease_lets_nobody_else_look_until_its_connection_is_gone() -> None:
    mark = name()
    async with open_place() as place, trio.open_nursery() as nursery:
        lease = place.lease(mark)
        await lease.write("first", after=0)
        states: list[str] = []

        async def read() -> None:
            states.append((await lease.read()).value)

        async with open_link(SETTINGS) as link, link.open_channel() as channel:
            look = _Look()
            look.channel = channel
            await look.begin(PREFIX + mark)
            nursery.start_soon(read)
            while await depth_of_consumers(PREFIX + mark) < 2:  # noqa: ASYNC110  the broker tells nobody
                await trio.sleep(0.02)
            assert states == []

    assert states == ["first"]


async def depth_of_consumers(queue: str) -> int:
    async with open_link(SETTINGS) as link, link.open_channel() as channel:
        answer = await channel.call(with_names(commands.Queue.Declare(passive=True), queue=queue))
    assert isinstance(answer, commands.Queue.DeclareOk)
    return answer.consumer_count or 0


async def test_what_is_no_queue_of_a_lease_is_told() -> None:
    mark = name()
    NAMES.add(PREFIX + mark)
    async with open_link(SETTINGS) as link, link.open_channel() as channel:
        await channel.call(with_names(commands.Queue.Declare(durable=True), queue=PREFIX + mark))
    async with open_place() as place:
        with pytest.raises(UnavailableError, match=r"cannot be had: .*PRECONDITION_FAILED.*single-active-consumer"):
            await place.lease(mark).read()
