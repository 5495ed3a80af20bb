"""A service on RabbitMQ while the network, and then the broker itself, fails: nothing confirmed is lost, all heals."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from kernel import ComponentFailed, State, StateChanged
from kernel.testing import LineFaults, Proxy, open_proxy

from ._node import Node, running_node, scripts
from ._stage import HEARTBEAT, PROMPT, RECOVERY, staged, wait_until

pytestmark = pytest.mark.slow

HOLE = LineFaults(black_hole=True)
WATERMARK = "set_vm_memory_high_watermark"


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running_node(tmp_path_factory.mktemp("node"), programs) as node:
        yield node


# --- the network --------------------------------------------------------------------------------------------------


async def test_round_trips_that_become_longer_than_a_heartbeat_break_nothing(own_node: Node) -> None:
    """One and a half are the limit: beyond, what was written might as well have gone into a black hole."""
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        await stage.wait_works()
        connections = proxy.accepted
        proxy.to_server = proxy.to_client = LineFaults(latency=0.55 * HEARTBEAT, jitter=0.1)
        await stage.publish_many(10)
        await stage.wait_done()
        proxy.to_server = proxy.to_client = LineFaults()

    assert (stage.late, stage.refused) == (0, {})
    assert stage.slowest > HEARTBEAT
    assert proxy.accepted == connections


async def test_resets_lose_nothing_and_run_nothing_twice_at_a_time(own_node: Node) -> None:
    instants = random.Random(1)
    resets = 0

    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        async with stage.load():
            for _ in range(8):
                await trio.sleep(instants.uniform(0.1, 0.5))
                resets += proxy.reset()
        seconds = await stage.wait_works()

    failures = [event for event in stage.service.events if isinstance(event, ComponentFailed)]
    assert stage.late == 0
    assert max(seconds, stage.slowest) < RECOVERY
    assert stage.record.most_running == 1
    assert proxy.accepted == 2 + resets, "a connection went for another reason"
    assert len(failures) <= 8, "a channel went for another reason"


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_connection_in_a_black_hole_is_given_up(direction: str, own_node: Node) -> None:
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage, stage.load():
        await stage.wait_works()
        seconds: list[float] = []
        while len(seconds) < 3 and not (seconds and seconds[-1] < PROMPT):  # the load of a machine only adds
            setattr(proxy, direction, HOLE)
            proxy.let_go()
            seconds.append(await stage.wait_works())

    reasons = " ".join(event.reason for event in stage.service.events if isinstance(event, StateChanged))
    assert "nothing" in reasons, "it was not the service that found it"
    assert HEARTBEAT < min(seconds) < PROMPT
    assert stage.slowest < RECOVERY
    assert stage.late == 0
    assert stage.record.most_running == 1


async def test_a_black_hole_for_everybody_is_left_when_it_is_over(own_node: Node) -> None:
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage, stage.load():
        await stage.wait_works()
        proxy.to_server = proxy.to_client = HOLE
        await stage.wait_state(State.DEGRADED)
        await trio.sleep(HEARTBEAT)
        proxy.to_server = proxy.to_client = LineFaults()
        seconds = await stage.wait_works()
        await stage.wait_state(State.READY)

    assert seconds < RECOVERY
    assert stage.late == 0


async def test_a_service_in_a_black_hole_stops_in_time(own_node: Node) -> None:
    """No last word waits for an answer for ever, and what is in hand goes back to the queue."""
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        await stage.publish(stage.next_item(seconds=0.2))
        await wait_until(lambda: stage.record.most_running == 1)
        proxy.to_server = proxy.to_client = HOLE
        began = trio.current_time()
        result = await stage.service.stop()
        seconds = trio.current_time() - began

    assert seconds < 6
    assert result.status in (0, 3)
    assert stage.missing == set()


async def test_bytes_may_come_one_at_a_time(own_node: Node) -> None:
    """With the heartbeat of the defaults: what waits behind so many turns of the proxy is answered later than in 1 s."""
    async with open_proxy("127.0.0.1", own_node.port) as proxy:
        proxy.to_server = proxy.to_client = LineFaults(slice_bytes=1)
        async with staged(proxy.port, heartbeat=10.0) as stage:
            await stage.publish_all([stage.next_item(padding=300) for _ in range(10)])
            await stage.wait_done()
            connections = proxy.accepted

    assert len(stage.confirmed) == 10
    assert connections == 2


async def test_a_message_that_takes_longer_than_heartbeats_comes_through(own_node: Node) -> None:
    """Whoever takes bytes is alive, however long its frames are."""
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        connections = proxy.accepted
        proxy.to_server = proxy.to_client = LineFaults(bandwidth=30_000)
        number = await stage.publish(stage.next_item(padding=75_000))
        await stage.wait_done()
        proxy.to_server = proxy.to_client = LineFaults()

    assert number is not None
    assert stage.slowest > 2 * HEARTBEAT
    assert proxy.accepted == connections


async def test_publishers_wait_for_a_broker_that_is_away_inside_their_deadline(own_node: Node) -> None:
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        await stage.wait_works()
        proxy.go_down()
        proxy.reset()
        await stage.wait_state(State.DEGRADED)
        impatient = await stage.publish(deadline=0.3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.publish_many, 10)
            await trio.sleep(1)
            proxy.come_back()
            began = trio.current_time()
        seconds = trio.current_time() - began
        await stage.wait_works()

    assert impatient is None
    assert seconds < RECOVERY
    assert (stage.late, stage.refused) == (1, {})
    assert len(stage.confirmed) == 12


async def test_calls_end_with_their_answer_or_a_typed_error(own_node: Node) -> None:
    answers: list[int | None] = []

    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:

        async def call_often() -> None:
            while len(answers) < 300:
                answers.append(await stage.call())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call_often)
            for _ in range(4):
                await trio.sleep(0.3)
                proxy.reset()
        last = [await stage.call() for _ in range(5)]

    assert None not in last
    assert answers.count(None) == sum(stage.refused.values())
    assert 0 < answers.count(None) < 100
    assert stage.slowest < RECOVERY


@pytest.mark.parametrize("at", [0, 2, 3, 7], ids=["type", "channel", "size", "end"])
async def test_a_corrupted_byte_costs_the_connection_and_no_more(at: int, own_node: Node) -> None:
    """What comes from the broker while nobody sends is heartbeats: each of their fields has its turn."""
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        tried = proxy.accepted + 2
        proxy.to_client = LineFaults(corrupt_at=at)
        await wait_until(lambda: proxy.accepted >= tried)
        proxy.to_client = LineFaults()
        seconds = await stage.wait_works()

    assert seconds < RECOVERY
    assert stage.late == 0


async def test_a_service_that_starts_before_its_broker_waits_for_it(own_node: Node) -> None:
    async with open_proxy("127.0.0.1", own_node.port) as proxy:
        proxy.go_down()
        async with staged(proxy.port, ready=False) as stage:
            await trio.sleep(0.5)  # for which nothing but a try that fails is to be seen
            proxy.come_back()
            began = trio.current_time()
            await stage.service.kernel.wait_ready()
            await stage.wait_works()
            seconds = trio.current_time() - began
            failed = [event for event in stage.service.events if isinstance(event, ComponentFailed)]

    assert seconds < RECOVERY
    assert failed == []


async def test_a_connection_cut_at_any_byte_of_its_opening_is_tried_again(own_node: Node) -> None:
    async with open_proxy("127.0.0.1", own_node.port) as proxy, staged(proxy.port) as stage:
        for limit in (0, 1, 7, 8, 50, 500, 520, 540):
            proxy.to_client = LineFaults(cut_after=limit)
            tried = proxy.accepted + 2
            proxy.reset()
            await wait_until(partial(accepted, proxy, tried))
        proxy.to_client = LineFaults()
        seconds = await stage.wait_works()

    assert seconds < RECOVERY


def accepted(proxy: Proxy, count: int) -> bool:
    return proxy.accepted >= count


# --- the broker ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_broker_that_ends_and_returns_has_lost_nothing(end: str, own_node: Node) -> None:
    async with staged(own_node.port) as stage, stage.load():
        await stage.wait_works()
        await stage.publish_all([stage.next_item(fails=1) for _ in range(5)])  # these wait for their retry meanwhile
        await trio.to_thread.run_sync(getattr(own_node, end))
        await trio.to_thread.run_sync(own_node.start)
        seconds = await stage.wait_works()

    assert seconds < RECOVERY
    assert stage.late == 0
    assert stage.record.most_running == 1


async def test_publishers_wait_while_the_broker_blocks_them_and_consumers_go_on(own_node: Node) -> None:
    async with staged(own_node.port, concurrency=1) as stage:
        await stage.publish_all([stage.next_item(seconds=0.1) for _ in range(20)])
        before = len(stage.record.done)
        async with blocked(own_node), trio.open_nursery() as nursery:
            nursery.start_soon(stage.publish_many, 5)
            await stage.wait_state(State.DEGRADED)
            await stage.wait_done()
            await trio.sleep(2.5 * HEARTBEAT)
            during = len(stage.confirmed), len(stage.record.done)
            await release(own_node)
        await stage.wait_state(State.READY)

    assert before < 20
    assert during == (20, 20)
    assert len(stage.confirmed) == 25
    assert (stage.late, stage.refused) == (0, {})


@asynccontextmanager
async def blocked(node: Node) -> AsyncIterator[None]:
    """Let the node believe that it has no memory left; in the end it has."""
    await trio.to_thread.run_sync(partial(node.control, WATERMARK, "0.0000001"))
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await release(node)


async def release(node: Node) -> None:
    await trio.to_thread.run_sync(partial(node.control, WATERMARK, "0.4"))
