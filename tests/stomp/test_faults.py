"""A service over STOMP while the network, and then the server itself, fails: nothing confirmed is lost, all heals."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio

from kernel import State
from kernel.testing import LineFaults, Proxy, open_proxy

from ..amqp._stage import HEARTBEAT, PROMPT, RECOVERY, staged, wait_until
from .conftest import Server

pytestmark = pytest.mark.slow

HOLE = LineFaults(black_hole=True)


async def test_resets_lose_nothing_and_run_nothing_twice_at_a_time(server: Server) -> None:
    instants = random.Random(1)

    async with open_proxy("127.0.0.1", server.port) as proxy, staged(proxy.port, queue=server.kind_table) as stage:
        async with stage.load():
            for _ in range(8):
                await trio.sleep(instants.uniform(0.1, 0.5))
                proxy.reset()
        seconds = await stage.wait_works()

    assert stage.late == 0
    assert max(seconds, stage.slowest) < RECOVERY
    assert stage.record.most_running == 1


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_connection_in_a_black_hole_is_given_up(direction: str, server: Server) -> None:
    async with (
        open_proxy("127.0.0.1", server.port) as proxy,
        staged(proxy.port, queue=server.kind_table) as stage,
        stage.load(),
    ):
        await stage.wait_works()
        seconds: list[float] = []
        while len(seconds) < 3 and not (seconds and seconds[-1] < PROMPT):  # the load of a machine only adds
            setattr(proxy, direction, HOLE)
            proxy.let_go()
            seconds.append(await stage.wait_works())

    assert HEARTBEAT < min(seconds) < PROMPT
    assert stage.slowest < RECOVERY
    assert stage.late == 0
    assert stage.record.most_running == 1


async def test_a_black_hole_for_everybody_is_left_when_it_is_over(server: Server) -> None:
    async with (
        open_proxy("127.0.0.1", server.port) as proxy,
        staged(proxy.port, queue=server.kind_table) as stage,
        stage.load(),
    ):
        await stage.wait_works()
        proxy.to_server = proxy.to_client = HOLE
        await stage.wait_state(State.DEGRADED)
        await trio.sleep(HEARTBEAT)
        proxy.to_server = proxy.to_client = LineFaults()
        seconds = await stage.wait_works()
        await stage.wait_state(State.READY)

    assert seconds < RECOVERY
    assert stage.late == 0


async def test_a_service_in_a_black_hole_stops_in_time(server: Server) -> None:
    async with open_proxy("127.0.0.1", server.port) as proxy, staged(proxy.port, queue=server.kind_table) as stage:
        await stage.publish(stage.next_item(seconds=0.2))
        await wait_until(lambda: stage.record.most_running == 1)
        proxy.to_server = proxy.to_client = HOLE
        began = trio.current_time()
        result = await stage.service.stop()
        seconds = trio.current_time() - began

    assert seconds < 6
    assert result.status in (0, 3)


async def test_bytes_may_come_one_at_a_time(rabbit: Server) -> None:
    """With the heartbeat of the defaults: what waits behind so many turns of the proxy is answered later than in 1 s."""
    async with open_proxy("127.0.0.1", rabbit.port) as proxy:
        proxy.to_server = proxy.to_client = LineFaults(slice_bytes=1)
        async with staged(proxy.port, queue={**rabbit.kind_table, "heartbeat": 10.0}) as stage:
            await stage.publish_all([stage.next_item(padding=300) for _ in range(5)])
            await stage.wait_done()

    assert len(stage.confirmed) == 5


async def test_a_message_that_takes_longer_than_heartbeats_comes_through(server: Server) -> None:
    """Whoever takes bytes is alive, however long its frames are."""
    async with open_proxy("127.0.0.1", server.port) as proxy, staged(proxy.port, queue=server.kind_table) as stage:
        await stage.wait_works()
        connections = proxy.accepted
        proxy.to_server = proxy.to_client = LineFaults(bandwidth=30_000)
        number = await stage.publish(stage.next_item(padding=75_000))
        await stage.wait_done()
        proxy.to_server = proxy.to_client = LineFaults()

    assert number is not None
    assert stage.slowest > 2 * HEARTBEAT
    assert proxy.accepted == connections


async def test_calls_end_with_their_answer_or_a_typed_error(server: Server) -> None:
    answers: list[int | None] = []

    async with open_proxy("127.0.0.1", server.port) as proxy, staged(proxy.port, queue=server.kind_table) as stage:

        async def call_often() -> None:
            while len(answers) < 100:
                answers.append(await stage.call())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call_often)
            for _ in range(3):
                await trio.sleep(0.3)
                proxy.reset()
        last = [await stage.call() for _ in range(5)]

    assert None not in last
    assert answers.count(None) == sum(stage.refused.values())


async def test_a_service_that_starts_before_its_server_waits_for_it(server: Server) -> None:
    async with open_proxy("127.0.0.1", server.port) as proxy:
        proxy.go_down()
        async with staged(proxy.port, queue=server.kind_table, ready=False) as stage:
            await trio.sleep(0.5)  # for which nothing but a try that fails is to be seen
            proxy.come_back()
            await stage.service.kernel.wait_ready()
            seconds = await stage.wait_works()

    assert seconds < RECOVERY


async def test_a_connection_cut_at_any_byte_of_its_opening_is_tried_again(server: Server) -> None:
    async with open_proxy("127.0.0.1", server.port) as proxy, staged(proxy.port, queue=server.kind_table) as stage:
        for limit in (0, 1, 7, 50, 100, 130):
            proxy.to_client = LineFaults(cut_after=limit)
            tried = proxy.accepted + 2
            proxy.reset()
            await wait_until(partial(_accepted, proxy, tried))
        proxy.to_client = LineFaults()
        seconds = await stage.wait_works()

    assert seconds < RECOVERY


def _accepted(proxy: Proxy, count: int) -> bool:
    return proxy.accepted >= count


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_ends_and_returns_has_lost_nothing(end: str, server: Server) -> None:
    async with staged(server.port, queue=server.kind_table) as stage, stage.load():
        await stage.wait_works()
        await trio.to_thread.run_sync(getattr(server.process, end))
        await trio.to_thread.run_sync(server.process.start)
        seconds = await stage.wait_works()

    assert seconds < RECOVERY + HEARTBEAT
    assert stage.late == 0
    assert stage.record.most_running == 1
