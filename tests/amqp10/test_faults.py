"""A service over AMQP 1.0 while the network, and then the broker itself, fails: nothing accepted is lost, all heals."""

from __future__ import annotations

import random

import pytest
import trio

from kernel import State
from kernel.testing import LineFaults, open_proxy

from ..amqp._stage import BACKOFF, PROMPT, RECOVERY, staged
from ._node import IDLE, Amqp10Node

pytestmark = pytest.mark.slow

HOLE = LineFaults(black_hole=True)


async def test_resets_lose_nothing_and_run_nothing_twice_at_a_time(rabbit: Amqp10Node) -> None:
    instants = random.Random(1)

    async with open_proxy("127.0.0.1", rabbit.node.port) as proxy, staged(proxy.port, queue=rabbit.table()) as stage:
        async with stage.load():
            for _ in range(8):
                await trio.sleep(instants.uniform(0.1, 0.5))
                proxy.reset()
        seconds = await stage.wait_works()

    assert stage.late == 0
    assert max(seconds, stage.slowest) < RECOVERY
    assert stage.record.most_running == 1


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_connection_in_a_black_hole_is_given_up(direction: str, rabbit: Amqp10Node) -> None:
    async with (
        open_proxy("127.0.0.1", rabbit.node.port) as proxy,
        staged(proxy.port, queue=rabbit.table()) as stage,
        stage.load(),
    ):
        await stage.wait_works()
        seconds: list[float] = []
        while len(seconds) < 3 and not (seconds and seconds[-1] < PROMPT + BACKOFF):  # the load of a machine only adds
            setattr(proxy, direction, HOLE)
            proxy.let_go()
            seconds.append(await stage.wait_works())

    assert IDLE / 2 < min(seconds) < PROMPT + BACKOFF
    assert stage.slowest < RECOVERY
    assert stage.late == 0
    assert stage.record.most_running == 1


async def test_a_black_hole_for_everybody_is_left_when_it_is_over(rabbit: Amqp10Node) -> None:
    async with (
        open_proxy("127.0.0.1", rabbit.node.port) as proxy,
        staged(proxy.port, queue=rabbit.table()) as stage,
        stage.load(),
    ):
        await stage.wait_works()
        proxy.to_server = proxy.to_client = HOLE
        await stage.wait_state(State.DEGRADED)
        await trio.sleep(IDLE)
        proxy.to_server = proxy.to_client = LineFaults()
        seconds = await stage.wait_works()
        await stage.wait_state(State.READY)

    assert seconds < RECOVERY
    assert stage.late == 0


async def test_bytes_may_come_one_at_a_time(rabbit: Amqp10Node) -> None:
    async with open_proxy("127.0.0.1", rabbit.node.port) as proxy:
        proxy.to_server = proxy.to_client = LineFaults(slice_bytes=1)
        async with staged(proxy.port, queue=rabbit.table(idle_timeout=10.0)) as stage:
            await stage.publish_all([stage.next_item(padding=300) for _ in range(10)])
            await stage.wait_done()
            connections = proxy.accepted

    assert len(stage.confirmed) == 10
    assert connections == 2


async def test_a_message_that_takes_longer_than_the_idle_timeout_comes_through(rabbit: Amqp10Node) -> None:
    """Whoever takes bytes is alive, however long its frames are."""
    async with open_proxy("127.0.0.1", rabbit.node.port) as proxy, staged(proxy.port, queue=rabbit.table()) as stage:
        connections = proxy.accepted
        proxy.to_server = LineFaults(bandwidth=30_000)
        number = await stage.publish(stage.next_item(padding=75_000))
        await stage.wait_done()
        proxy.to_server = LineFaults()

    assert number is not None
    assert stage.slowest > 2 * IDLE
    assert proxy.accepted == connections


async def test_calls_end_with_their_answer_or_a_typed_error(rabbit: Amqp10Node) -> None:
    answers: list[int | None] = []

    async with open_proxy("127.0.0.1", rabbit.node.port) as proxy, staged(proxy.port, queue=rabbit.table()) as stage:

        async def call_often() -> None:
            while len(answers) < 200:
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
    assert stage.slowest < RECOVERY


async def test_a_service_that_starts_before_its_broker_waits_for_it(rabbit: Amqp10Node) -> None:
    async with open_proxy("127.0.0.1", rabbit.node.port) as proxy:
        proxy.go_down()
        async with staged(proxy.port, ready=False, queue=rabbit.table()) as stage:
            await trio.sleep(0.5)  # for which nothing but a try that fails is to be seen
            proxy.come_back()
            began = trio.current_time()
            await stage.service.kernel.wait_ready()
            await stage.wait_works()
            seconds = trio.current_time() - began

    assert seconds < RECOVERY


async def test_a_service_in_a_black_hole_stops_in_time(rabbit: Amqp10Node) -> None:
    async with open_proxy("127.0.0.1", rabbit.node.port) as proxy, staged(proxy.port, queue=rabbit.table()) as stage:
        await stage.wait_works()
        proxy.to_server = proxy.to_client = HOLE
        began = trio.current_time()
        result = await stage.service.stop()
        seconds = trio.current_time() - began

    assert seconds < 6
    assert result.status in (0, 3)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_broker_that_ends_and_returns_has_lost_nothing(end: str, rabbit: Amqp10Node) -> None:
    async with staged(rabbit.node.port, queue=rabbit.table()) as stage, stage.load():
        await stage.wait_works()
        await stage.publish_all([stage.next_item(fails=1) for _ in range(5)])  # these wait for their retry meanwhile
        await trio.to_thread.run_sync(getattr(rabbit.node, end))
        await trio.to_thread.run_sync(rabbit.node.start)
        seconds = await stage.wait_works()

    assert seconds < RECOVERY + 5  # the HTTP API comes some seconds after the port of AMQP
    assert stage.late == 0
    assert stage.record.most_running == 1
