"""What finds a peer that sends and does not read, and what must not be taken for that; in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from kernel_amqp.link.link import Link
from pamqp import commands, frame
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, lockstep_stream_pair

from ..peer import Peer, answer
from ..scripted import (
    BEATING,
    Caught,
    beating,
    confirming,
    heartbeats_of,
    jump,
    linked,
    publish,
)

TWO = 20.0
"""Seconds of two heartbeats."""


@asynccontextmanager
async def alive(settings: Any = BEATING) -> AsyncGenerator[tuple[Peer, Link, trio.Nursery]]:
    """A peer that sends heartbeats, and reads nothing unless it is told to."""
    async with linked(beating, settings) as (peer, link), trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats_of, peer)
        nursery.cancel_scope.deadline = trio.current_time() + 3600
        yield peer, link, nursery
        nursery.cancel_scope.cancel()


async def question(peer: Peer) -> tuple[int, Any]:
    """Return channel and method of the next question."""
    channel, value = await peer.next()
    while isinstance(value, Heartbeat):
        channel, value = await peer.next()
    return channel, value


async def answer_after(peer: Peer, seconds: float) -> Any:
    channel, value = await question(peer)
    await trio.sleep(seconds)
    await peer.send(answer(value), channel=channel)
    return type(value)


@pytest.mark.parametrize("reading", [0.0, 2.0, 33.0, 37.4])
async def test_a_peer_that_reads_no_more_is_found_within_two_heartbeats(
    reading: float, autojump_clock: MockClock
) -> None:
    async with alive() as (peer, link, _):
        with trio.move_on_after(reading):
            await peer.serve()
        began = trio.current_time()
        lost = await link.wait_lost()
        seconds = trio.current_time() - began

    assert "answered nothing for 15 s" in lost.reason
    assert 10 < seconds <= TWO


async def test_one_thing_at_a_time_is_asked_every_half_interval(autojump_clock: MockClock) -> None:
    async with alive() as (peer, _, _):
        with trio.fail_after(15.1):
            asked = [await answer_after(peer, 0) for _ in range(2)]
            asked.append((await question(peer))[1].__class__)
        with trio.move_on_after(14) as scope:
            await question(peer)

    assert asked == [commands.Channel.Open, commands.Channel.Flow, commands.Channel.Flow]
    assert scope.cancelled_caught


async def test_without_heartbeats_nothing_is_asked(autojump_clock: MockClock) -> None:
    async with linked() as (peer, link):
        with trio.move_on_after(80_000) as scope:
            await peer.next()

        assert scope.cancelled_caught
        assert link.lost is None


# --- when the answer may take longer ------------------------------------------------------------------------------


async def block_for(peer: Peer, seconds: float) -> None:
    await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
    await trio.sleep(seconds)
    await peer.send(commands.Connection.Unblocked(), channel=0)


async def test_a_broker_that_is_blocked_answers_when_it_reads_again(autojump_clock: MockClock) -> None:
    async with alive() as (peer, link, nursery):
        await trio.sleep(6)  # it has been asked by now
        await block_for(peer, 300)
        await trio.sleep(14)
        nursery.start_soon(peer.serve)
        await trio.sleep(100)

        assert link.lost is None


async def test_a_broker_that_was_blocked_and_never_reads_again_is_found(autojump_clock: MockClock) -> None:
    async with alive() as (peer, link, _):
        await trio.sleep(6)
        await block_for(peer, 300)
        began = trio.current_time()
        lost = await link.wait_lost()
        seconds = trio.current_time() - began

    assert "answered nothing" in lost.reason
    assert 15 <= seconds <= TWO


async def test_a_line_may_be_as_slow_as_it_was_before(autojump_clock: MockClock) -> None:
    async with alive() as (peer, link, _):
        for seconds in (14.0, 27.0, 50.0, 90.0, 90.0, 2.0):
            await answer_after(peer, seconds)
        assert link.lost is None
        await question(peer)
        began = trio.current_time()
        await link.wait_lost()
        seconds = trio.current_time() - began

    assert seconds <= 15


class Far(Peer):
    """A peer whose answers take long from the beginning."""

    async def expect(self, kind: type[Any]) -> Any:
        value = await super().expect(kind)
        await trio.sleep(TWO)
        return value


async def test_a_line_may_be_as_slow_as_during_its_handshake(autojump_clock: MockClock) -> None:
    async with (
        linked(lambda stream: Far(stream, heartbeat=10), BEATING) as (peer, link),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(heartbeats_of, peer)
        for _ in range(10):
            await answer_after(peer, 1.1 * TWO + 0.3)
        assert link.lost is None
        nursery.cancel_scope.cancel()


async def test_an_answer_may_be_behind_a_large_message_up(autojump_clock: MockClock) -> None:
    async with confirming(peer_of=beating, settings=BEATING) as (peer, link, channel), trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats_of, peer)
        caught = Caught()
        nursery.start_soon(caught.run, publish, channel, "q", b"y" * 128 * 1024)
        await trio.sleep(60)
        assert link.lost is None
        nursery.start_soon(peer.serve)
        await trio.sleep(60)
        assert link.lost is None
        nursery.cancel_scope.cancel()

    assert caught.done.is_set()
    assert caught.error is None


async def test_an_answer_may_be_behind_large_messages_down(autojump_clock: MockClock) -> None:
    async with confirming(peer_of=beating, settings=BEATING) as (peer, link, _):
        for tag in range(60):
            await peer.deliver(tag + 1, b"y" * 4096)
            await trio.sleep(1)

        assert link.lost is None


async def test_a_confirm_of_what_was_published_later_is_an_answer(autojump_clock: MockClock) -> None:
    async with confirming(peer_of=beating, settings=BEATING) as (peer, link, channel), trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats_of, peer)
        await trio.sleep(6)
        nursery.start_soon(publish, channel)
        await peer.expect(commands.Channel.Open)
        await peer.expect_message()
        await peer.send(commands.Basic.Ack(1))
        await trio.sleep(300)
        assert link.lost is None
        nursery.cancel_scope.cancel()


# --- when there is no channel -------------------------------------------------------------------------------------


async def test_a_link_whose_channel_is_refused_goes_on(autojump_clock: MockClock) -> None:
    async with alive() as (peer, link, _):
        await peer.expect(commands.Channel.Open)
        await peer.send(commands.Channel.Close(504, "CHANNEL_ERROR", 20, 10))
        await trio.sleep(300)

        assert link.lost is None


@pytest.mark.parametrize("count", [1, 2])
async def test_the_last_channel_is_left_to_those_who_have_it_or_need_it(count: int, autojump_clock: MockClock) -> None:
    async with alive(attrs.evolve(BEATING, channel_max=count)) as (peer, link, nursery):
        nursery.start_soon(open_channels, peer, count)
        async with AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(link.open_channel())
            await trio.sleep(300)

            assert link.lost is None


async def open_channels(peer: Peer, count: int) -> None:
    for number in range(1, count + 1):
        await peer.open_channel(number)


# --- what is not the peer's fault ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 50_000], ids=["next", "behind_much"])
async def test_a_loop_that_was_held_up_reads_the_answer_first(before: int, autojump_clock: MockClock) -> None:
    for _ in range(20):  # who runs first is left to chance; and much is more than is read at once
        async with linked(beating, BEATING) as (peer, link):
            await trio.sleep(6)
            beats = frame.marshal(Heartbeat(), 0) * before
            await peer.stream.send_all(beats + frame.marshal(commands.Channel.OpenOk(), 1))
            jump(30)
            await trio.sleep(1)
            assert link.lost is None


async def test_leaving_waits_for_no_answer(autojump_clock: MockClock) -> None:
    async with linked(beating, BEATING) as (peer, link):
        await trio.sleep(6)
        await peer.expect(commands.Channel.Open)
        with trio.fail_after(2.1):
            await link.aclose()


async def test_a_question_that_is_not_written_has_the_time_of_the_write(autojump_clock: MockClock) -> None:
    async with linked(beating, BEATING, lockstep_stream_pair) as (peer, link), trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats_of, peer)
        lost = await link.wait_lost()
        nursery.cancel_scope.cancel()

    assert "taken nothing" in lost.reason
