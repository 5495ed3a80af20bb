"""What holds publishes back: a broker that is blocked, what is unsent, what has no answer. In virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from kernel_amqp._errors import ChannelClosedError, LinkLostError
from kernel_amqp.link.room import MAX_UNSENT
from pamqp import commands, frame
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from ..scripted import (
    Caught,
    confirming,
    publish,
)


async def test_publishes_wait_while_the_broker_is_blocked_and_nothing_of_them_is_written(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        assert link.blocked == "low on memory"
        with trio.move_on_after(3) as scope:
            await publish(channel, "cancelled")
        assert scope.cancelled_caught
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "next")
        channel.ack(7)
        assert (await peer.expect(commands.Basic.Ack)).delivery_tag == 7
        await peer.send(commands.Connection.Unblocked(), channel=0)
        assert (await peer.expect_message())[0].routing_key == "next"
        await peer.send(commands.Basic.Ack(1))
        await caught.done.wait()
        assert caught.error is None
        assert link.blocked == ""


async def test_publish_that_waits_for_a_blocked_broker_is_not_written_when_the_link_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(peer.stream)
        await caught.done.wait()
        assert isinstance(caught.error, LinkLostError)
        assert not caught.error.written
        assert link.lost is not None


async def test_publish_that_waits_for_a_blocked_broker_hears_of_its_channel(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel)
        await wait_all_tasks_blocked()
        await peer.send(commands.Channel.Close(404, "NOT_FOUND", 60, 40))
        await caught.done.wait()
        assert isinstance(caught.error, ChannelClosedError)
        assert not caught.error.written
        assert link.lost is None


async def test_unsent_bytes_are_bounded_and_publishers_take_turns(autojump_clock: MockClock) -> None:
    size, count = 100_000, 40
    arrived: list[str] = []
    async with confirming(pair=lockstep_stream_pair) as (peer, _, channel), trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(publish, channel, f"{number}", b"y" * size)
            await wait_all_tasks_blocked()
        waiting = len(channel._writer.room._wishes)
        unsent = channel._writer.room.unsent
        assert unsent <= MAX_UNSENT + size + 1000
        assert waiting >= count - unsent // size - 1
        for number in range(count):
            arrived.append((await peer.expect_message())[0].routing_key)
            await peer.send(commands.Basic.Ack(number + 1))
    assert arrived == [f"{number}" for number in range(count)]


async def test_publisher_that_gives_up_its_turn_holds_nobody_up(autojump_clock: MockClock) -> None:
    async with confirming(pair=lockstep_stream_pair) as (peer, _, channel), trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def give_up() -> None:
            with impatient:
                await publish(channel, "given up", b"y" * 900_000)

        for _ in range(3):
            nursery.start_soon(publish, channel, "taken", b"y" * 900_000)
            await wait_all_tasks_blocked()
        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(publish, channel, "taken", b"y" * 900_000)
        await wait_all_tasks_blocked()
        impatient.cancel()
        for number in range(4):
            assert (await peer.expect_message())[0].routing_key == "taken"
            await peer.send(commands.Basic.Ack(number + 1))


async def test_publishes_without_an_answer_are_bounded_and_cancelled_ones_count(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr("kernel_amqp.link.confirms.MAX_UNCONFIRMED", 3)
    async with confirming() as (peer, _, channel), trio.open_nursery() as nursery:
        for _ in range(3):
            with trio.move_on_after(1):
                await publish(channel, "cancelled")
        waiting = Caught()
        nursery.start_soon(waiting.run, publish, channel, "waits")
        for _ in range(3):
            assert (await peer.expect_message())[0].routing_key == "cancelled"
        with trio.move_on_after(100) as scope:
            await peer.next()
        assert scope.cancelled_caught
        await peer.send(commands.Basic.Ack(1))
        assert (await peer.expect_message())[0].routing_key == "waits"
        await peer.send(commands.Basic.Ack(4, True))
        await waiting.done.wait()
        assert waiting.error is None


class Counted:
    """A pair of streams of which the sends of one are counted."""

    def __init__(self) -> None:
        self.sends: list[int] = []

    def __call__(self) -> tuple[Any, Any]:
        ours, theirs = memory_stream_pair()
        send = ours.send_stream.send_all

        async def counted(data: bytes) -> None:
            self.sends.append(len(data))
            await send(data)

        ours.send_stream.send_all = counted
        return ours, theirs


async def test_many_small_writes_become_one_send(autojump_clock: MockClock) -> None:
    pair = Counted()
    async with confirming(pair=pair) as (peer, _, channel), trio.open_nursery() as nursery:
        pair.sends.clear()
        for _ in range(100):
            nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        assert len(pair.sends) <= 2
        for _ in range(100):
            await peer.expect_message()
        await peer.send(commands.Basic.Ack(100, True))


async def test_those_who_waited_for_a_blocked_broker_become_one_send(autojump_clock: MockClock) -> None:
    pair = Counted()
    async with confirming(pair=pair) as (peer, _, channel), trio.open_nursery() as nursery:
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await wait_all_tasks_blocked()
        for _ in range(100):
            nursery.start_soon(publish, channel)
        await wait_all_tasks_blocked()
        pair.sends.clear()
        await peer.send(commands.Connection.Unblocked(), channel=0)
        for _ in range(100):
            await peer.expect_message()
        assert len(pair.sends) <= 2
        await peer.send(commands.Basic.Ack(100, True))


async def test_room_that_was_kept_for_those_whose_channel_ends_is_given_back(autojump_clock: MockClock) -> None:
    async with confirming() as (peer, link, channel), trio.open_nursery() as nursery:
        nursery.start_soon(peer.open_channel, 2)
        async with link.open_channel() as other:
            await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
            await wait_all_tasks_blocked()
            all_caught = [Caught() for _ in range(5)]
            for caught in all_caught:
                nursery.start_soon(caught.run, publish, other, "q", b"y" * 600_000)
            waiting = Caught()
            await wait_all_tasks_blocked()
            nursery.start_soon(waiting.run, publish, channel, "waits", b"y" * 600_000)
            await wait_all_tasks_blocked()
            closing = frame.marshal(commands.Channel.Close(404, "NOT_FOUND", 60, 40), 2)
            await peer.stream.send_all(frame.marshal(commands.Connection.Unblocked(), 0) + closing)
            for caught in all_caught:
                await caught.done.wait()
                assert isinstance(caught.error, ChannelClosedError)
                assert not caught.error.written
            await peer.expect(commands.Channel.CloseOk)
            assert (await peer.expect_message())[0].routing_key == "waits"
            await peer.send(commands.Basic.Ack(1))
            await waiting.done.wait()
            assert waiting.error is None
            assert channel._writer.room._promised == 0
