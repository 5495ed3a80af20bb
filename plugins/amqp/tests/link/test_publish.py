"""Publishing over a connection whose broker is scripted: confirms, returns, cancellation, loss. In virtual time."""

from __future__ import annotations

import random

import pytest
import trio
from kernel_amqp._errors import ConfirmLateError, LinkLostError, RefusedError, ReturnedError
from kernel_amqp.core import Properties
from kernel_amqp.link.channel import LinkChannel
from kernel_amqp.link.link import Link
from kernel_amqp.link.receipts import Receipt
from pamqp import body, commands, header
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from kernel.testing import cancel_at_each_checkpoint

from ..scripted import (
    BEATING,
    Caught,
    beating,
    confirming,
    heartbeats_of,
    publish,
    served,
)


async def test_publish_returns_when_it_is_confirmed(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        method, _, data = await peer.expect_message()
        assert (method.routing_key, data) == ("q", b"x")
        await wait_all_tasks_blocked()
        assert not caught.done.is_set()
        await peer.send(commands.Basic.Ack(1))
        await caught.done.wait()
        assert caught.error is None


async def test_one_ack_confirms_many_and_a_nack_refuses_one(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        all_caught = [Caught() for _ in range(4)]
        for caught in all_caught:
            nursery.start_soon(caught.run, publish, channel)
            await peer.expect_message()  # so that they are in order
        await peer.send(commands.Basic.Ack(2, True), commands.Basic.Nack(4), commands.Basic.Ack(3))
        for caught in all_caught:
            await caught.done.wait()
        assert [type(caught.error) for caught in all_caught] == [type(None)] * 3 + [RefusedError]


async def test_message_that_the_broker_never_answers_is_given_up_after_half_a_minute(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        late, next_ = Caught(), Caught()
        nursery.start_soon(late.run, publish, channel)
        await peer.expect_message()
        began = trio.current_time()
        while not late.done.is_set():
            await trio.sleep(0.5)
            link.sweep()
        waited = trio.current_time() - began
        nursery.start_soon(next_.run, publish, channel)
        await peer.expect_message()
        await peer.send(commands.Basic.Ack(1), commands.Basic.Ack(2))
        await next_.done.wait()

        assert isinstance(late.error, ConfirmLateError)
        assert 30 <= waited <= 36
        assert next_.error is None


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (commands.Basic.Ack(1), type(None)),
        (commands.Basic.Ack(1, True), type(None)),
        (commands.Basic.Nack(1), RefusedError),
    ],
    ids=["taken", "taken with others", "refused"],
)
async def test_answer_that_somebody_holds_a_receipt_for_is_waited_for_however_long_it_takes(
    answer: commands.Basic.Ack | commands.Basic.Nack, failure: type[object], autojump_clock: MockClock
) -> None:
    receipts: list[Receipt] = []
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        nursery.start_soon(_sweep, link)
        with trio.move_on_after(100) as patience:
            await _with_receipt(channel, receipts)
        await peer.send(answer)
        answers = [await receipts[0].wait() for _ in range(2)]
        nursery.cancel_scope.cancel()

        assert patience.cancelled_caught
        assert [type(each) for each in answers] == [failure] * 2


async def _sweep(link: Link) -> None:
    while True:
        await trio.sleep(1)
        link.sweep()


async def _with_receipt(channel: LinkChannel, receipts: list[Receipt]) -> None:
    await channel.publish(exchange="", routing_key="q", properties=Properties(), body=b"x", on_written=receipts.append)


async def test_returned_message_is_told_to_its_own_publisher(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        all_caught = {name: Caught() for name in ("a", "b", "c")}
        for name, caught in all_caught.items():
            nursery.start_soon(caught.run, _mandatory, channel, name)
            await peer.expect_message()
        returned = (
            commands.Basic.Return(312, "NO_ROUTE", "", "q"),
            header.ContentHeader(body_size=1, properties=commands.Basic.Properties(message_id="b")),
            body.ContentBody(b"x"),
        )
        await peer.send(*returned, commands.Basic.Ack(3, True))
        for caught in all_caught.values():
            await caught.done.wait()
        assert all_caught["a"].error is all_caught["c"].error is None
        error = all_caught["b"].error
        assert isinstance(error, ReturnedError)
        assert (error.code, error.routing_key) == (312, "q")


async def test_returned_message_is_told_to_a_lone_publisher(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        for number, is_routed in ((1, False), (2, True)):
            caught = Caught()
            nursery.start_soon(caught.run, _mandatory, channel, "m")
            await peer.expect_message()
            head = header.ContentHeader(body_size=0, properties=commands.Basic.Properties(message_id="m"))
            returned = () if is_routed else (commands.Basic.Return(312, "NO_ROUTE", "", "q"), head)
            await peer.send(*returned, commands.Basic.Ack(number))
            await caught.done.wait()
            assert (caught.error is None) is is_routed


async def test_equal_messages_that_both_come_back_are_told_to_both(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        both = Caught(), Caught()
        for caught in both:
            nursery.start_soon(caught.run, _mandatory, channel, "m")
            await peer.expect_message()
        head = header.ContentHeader(body_size=0, properties=commands.Basic.Properties(message_id="m"))
        returned = (commands.Basic.Return(312, "NO_ROUTE", "", "q"), head)
        await peer.send(*returned, *returned, commands.Basic.Ack(2, True))
        for caught in both:
            await caught.done.wait()
            assert isinstance(caught.error, ReturnedError)


async def _mandatory(channel: LinkChannel, message_id: str | None) -> None:
    await publish(channel, mandatory=True, properties=Properties(message_id=message_id))


async def test_return_of_a_cancelled_publish_is_not_blamed_on_the_next_like_it(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await _mandatory(channel, None)
        caught = Caught()
        nursery.start_soon(caught.run, _mandatory, channel, None)
        for _ in range(2):
            await peer.expect_message()
        head = header.ContentHeader(body_size=0, properties=commands.Basic.Properties())
        await peer.send(commands.Basic.Return(312, "NO_ROUTE", "", "q"), head, commands.Basic.Ack(2, True))
        await caught.done.wait()
        assert caught.error is None


async def test_cancelled_publish_leaves_the_stream_whole_and_the_next_one_its_own_confirm(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await publish(channel, "not-sent")
        with trio.move_on_after(1):
            await publish(channel, "cancelled", b"y" * 300_000)
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "next")
        assert (await peer.expect_message())[0].routing_key == "cancelled"
        assert (await peer.expect_message())[0].routing_key == "next"
        await peer.send(commands.Basic.Ack(1))
        await wait_all_tasks_blocked()
        assert not caught.done.is_set()
        await peer.send(commands.Basic.Ack(2))
        await caught.done.wait()
        assert caught.error is None


async def test_publish_cancelled_at_any_checkpoint_leaves_a_link_that_works(autojump_clock: MockClock) -> None:
    async def operation() -> None:
        async with served() as link, link.open_channel() as channel:
            await channel.confirm_select()
            try:
                await publish(channel, "first", b"y" * 200_000)
            finally:
                with trio.fail_after(5, shield=True):
                    await publish(channel, "second")

    assert await cancel_at_each_checkpoint(operation) > 5


@pytest.mark.parametrize("seed", range(5))
async def test_of_publishers_that_are_cancelled_at_random_every_other_is_confirmed(
    seed: int, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)
    confirmed: set[int] = set()
    cancelled: set[int] = set()

    async def publisher(channel: LinkChannel, number: int) -> None:
        for attempt in range(10):
            with trio.move_on_after(chance.choice([0.0, 0.001, 0.002, 9.0])) as scope:
                await publish(channel, f"{number}", bytes(chance.randrange(3000)))
                confirmed.add(number * 10 + attempt)
            if scope.cancelled_caught:
                cancelled.add(number * 10 + attempt)
            await trio.sleep(chance.random() / 1000)

    async with served() as link:
        async with link.open_channel() as channel:
            await channel.confirm_select()
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(publisher, channel, number)
        assert link.lost is None
    assert len(confirmed) + len(cancelled) == 500
    assert not confirmed & cancelled
    assert len(confirmed) > 100 < len(cancelled)


async def test_publish_that_was_sent_and_not_confirmed_is_written_when_the_link_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        await peer.expect_message()
        await trio.aclose_forcefully(peer.stream)
        await caught.done.wait()
        assert isinstance(caught.error, LinkLostError)
        assert caught.error.written
        assert "peer:5672" in str(caught.error)
        assert isinstance(link.lost, LinkLostError)
        with pytest.raises(LinkLostError) as late:
            await publish(channel)
        assert not late.value.written


async def test_publish_that_waited_behind_a_stuck_write_is_not_written(autojump_clock: MockClock) -> None:
    async with confirming(pair=lockstep_stream_pair, peer_of=beating, settings=BEATING) as connected:
        peer, link, channel = connected
        began = trio.current_time()
        sent, waiting = Caught(), Caught()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeats_of, peer)
            nursery.start_soon(sent.run, publish, channel)
            await wait_all_tasks_blocked()
            nursery.start_soon(waiting.run, publish, channel)
            lost = await link.wait_lost()
            await waiting.done.wait()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began <= 20
        assert "taken nothing" in lost.reason
        assert sent.error.written
        assert not waiting.error.written


async def test_publish_that_the_end_of_the_connection_overtook_is_not_written(autojump_clock: MockClock) -> None:
    for _ in range(40):  # who of reader, writer and publisher is first is left to chance
        async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
            await peer.send(commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0), channel=0)
            caught = Caught()
            nursery.start_soon(caught.run, publish, channel)
            await caught.done.wait()
            first = (await peer.next())[1]
            assert isinstance(caught.error, LinkLostError)
            assert caught.error.written is isinstance(first, commands.Basic.Publish)


async def test_large_publish_is_written_as_soon_as_a_part_of_it_is(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "q", b"y" * 500_000)
        await peer.next()
        await trio.aclose_forcefully(peer.stream)
        await caught.done.wait()
        assert caught.error.written
