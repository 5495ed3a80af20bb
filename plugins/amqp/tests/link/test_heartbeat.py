"""Heartbeats both ways, in virtual time."""

from __future__ import annotations

from itertools import pairwise

import trio
from pamqp import commands
from pamqp.heartbeat import Heartbeat
from trio.testing import MockClock, lockstep_stream_pair, wait_all_tasks_blocked

from ..peer import Peer, answer
from ..scripted import (
    BEATING,
    beating,
    confirming,
    heartbeats_of,
    jump,
    linked,
)


async def test_silent_peer_is_found_within_two_heartbeats(autojump_clock: MockClock) -> None:
    async with linked(beating, BEATING) as (_, link):
        began = trio.current_time()
        lost = await link.wait_lost()
        assert 10 < trio.current_time() - began <= 20
        assert "nothing was heard for 20 s" in lost.reason


async def test_peer_that_beats_is_kept_and_hears_us(autojump_clock: MockClock) -> None:
    beats: list[float] = [0.0]

    async def hear(peer: Peer) -> None:
        while True:
            channel, value = await peer.next()
            beats.append(trio.current_time())
            if not isinstance(value, Heartbeat):  # whatever comes shows that we live
                await peer.send(answer(value), channel=channel)

    async with linked(beating, BEATING) as (peer, link), trio.open_nursery() as nursery:
        beats[0] = trio.current_time()
        nursery.start_soon(hear, peer)
        nursery.start_soon(heartbeats_of, peer)
        await trio.sleep(3600)
        assert link.lost is None
        nursery.cancel_scope.cancel()
    gaps = [after - before for before, after in pairwise(beats)]
    assert len(gaps) > 600
    assert max(gaps) <= 5.001


async def test_broker_that_is_blocked_may_leave_unread_what_is_written(autojump_clock: MockClock) -> None:
    async with (
        confirming(peer_of=beating, settings=BEATING, pair=lockstep_stream_pair) as (peer, link, channel),
        trio.open_nursery() as nursery,
    ):
        await peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        channel.ack(1)
        nursery.start_soon(heartbeats_of, peer)
        await trio.sleep(300)
        assert link.lost is None
        nursery.cancel_scope.cancel()


async def test_loop_that_was_held_up_does_not_blame_the_peer(autojump_clock: MockClock) -> None:
    for _ in range(20):  # who runs first, the reader or the watch, is left to chance
        async with linked(beating, BEATING) as (peer, link):
            await wait_all_tasks_blocked()
            await peer.send(Heartbeat(), channel=0)  # it waits to be read when 30 s have passed at once
            jump(30)
            await trio.sleep(1)
            assert link.lost is None


async def test_no_heartbeat_no_watch(autojump_clock: MockClock) -> None:
    async with linked() as (_, link):
        await trio.sleep(80_000)
        assert link.lost is None
