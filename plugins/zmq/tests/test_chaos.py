"""Random cancellations, resets and restarts on each side: every call ends once, and the next good one works.

Each seed is one play of `ACTS` acts. `ZMQ_SEEDS=20` plays so many of each kind, instead of the few of the gate.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import zmq

from kernel import Listening, answers, handles
from kernel.errors import CallTimeoutError, RemoteError, UnavailableError, UnknownOutcomeError
from kernel.testing import Proxy, RunningService, open_proxy

from .raw import LOCAL, Inbox, address_of, open_raw, serving

pytestmark = pytest.mark.slow

ACTS = 10
SEEDS = range(int(os.environ.get("ZMQ_SEEDS", "2")))
TIMEOUT = 1.0
TYPED = (CallTimeoutError, RemoteError, UnavailableError, UnknownOutcomeError)
Act = Callable[[], Awaitable[object]]


class Desk:
    """What is called; knows who is in it."""

    inside = 0

    @answers("desk.double")
    async def double(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number * 2

    @answers("desk.slow")
    async def slow(self, number: int) -> int:
        self.inside += 1
        try:
            await trio.sleep(number % 5 * 0.01 if number % 5 else 60)
        finally:
            self.inside -= 1
        return number * 2


@attrs.define(eq=False)
class Lives:
    """A service that ends and is opened again when the test says so."""

    open: Callable[[], Any]
    service: RunningService = attrs.field(init=False)
    _is_up: trio.Event = attrs.field(factory=trio.Event, init=False)
    _ends: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        while True:
            async with self.open() as self.service:
                self._is_up.set()
                await self._ends.wait()
            self._ends = trio.Event()

    async def wait_up(self) -> None:
        await self._is_up.wait()

    async def restart(self) -> None:
        self._is_up = trio.Event()
        self._ends.set()
        await self._is_up.wait()


@asynccontextmanager
async def living(*services: Lives) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        for service in services:
            nursery.start_soon(service.run)
        for service in services:
            await service.wait_up()
        yield
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Calls:
    """Calls under way, and how each has ended."""

    rpc: Any
    chance: random.Random
    began: int = 0
    ended: list[str] = attrs.field(factory=list[str])

    async def make(self) -> None:
        self.began += 1
        number = self.began
        method = self.rpc.desk.slow if self.chance.random() < 0.5 else self.rpc.desk.double
        outcome = "cancelled"
        try:
            with trio.move_on_after(self.chance.choice([0.001, 0.01, 0.03, 30])):
                assert await method(number) == number * 2
                outcome = "answered"
        except TYPED as error:
            outcome = type(error).__name__
        self.ended.append(outcome)


async def play(calls: Calls, acts: list[Act], chance: random.Random) -> None:
    """Make calls while this and that happens, and wait for the end of each."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(ACTS):
                for _ in range(chance.randrange(6)):
                    nursery.start_soon(calls.make)
                await trio.sleep(chance.random() * 0.02)
                await chance.choice(acts)()

    assert len(calls.ended) == calls.began
    assert calls.rpc.in_flight == 0


async def works_again(rpc: Any) -> None:
    with trio.fail_after(20):
        while True:
            try:
                assert await rpc.desk.double(21) == 42
            except TYPED:
                continue
            return


async def nobody_is_inside(service: RunningService) -> None:
    """Wait until no handler runs: what a reset kept from being told of ends with its deadline."""
    desk = service.resource("worker/desk")
    with trio.fail_after(10):
        while desk.inside:  # noqa: ASYNC110  a worker tells nobody
            await trio.sleep(0.01)


def desk_at(address: str) -> dict[str, Any]:
    return {"dispatchers": {"desk": {"plugin": "zmq_reply", "bind": [address], "concurrency": 5}}}


def rpc_to(address: str) -> dict[str, Any]:
    return {"drivers": {"rpc": {"plugin": "zmq_request", "connect": [address], "timeout": TIMEOUT}}}


async def port_of(service: RunningService) -> int:
    return int((await service.wait_event(Listening)).address.rpartition(":")[2])


@pytest.mark.parametrize("seed", SEEDS)
async def test_calls_end_once_whatever_happens_to_the_replier_and_between(seed: int) -> None:
    chance = random.Random(seed)
    async with serving({"desk": Desk}, **desk_at(LOCAL)) as first:
        port = await port_of(first)
    desk = Lives(lambda: serving({"desk": Desk}, **desk_at(f"tcp://127.0.0.1:{port}")))
    async with (
        living(desk),
        open_proxy("127.0.0.1", port, seed=seed) as proxy,
        serving({}, **rpc_to(f"tcp://127.0.0.1:{proxy.port}")) as caller,
    ):
        calls = Calls(caller.resource("driver/rpc"), chance)
        await play(calls, [desk.restart, resetting(proxy), resetting(proxy), trio.lowlevel.checkpoint], chance)

        await works_again(calls.rpc)
        await nobody_is_inside(desk.service)


def resetting(proxy: Proxy) -> Act:
    async def reset() -> None:
        await trio.lowlevel.checkpoint()
        proxy.reset()

    return reset


@pytest.mark.parametrize("seed", SEEDS)
async def test_calls_end_once_whatever_a_plain_rep_does(seed: int, address: str) -> None:
    chance = random.Random(seed)
    scopes: list[trio.CancelScope] = []

    async def one_life() -> None:
        async with open_raw(zmq.REP, bind=address) as rep:
            while True:
                [body] = await rep.recv()
                await trio.sleep(chance.random() * 0.005)
                number = int(body.partition(b"[")[2].partition(b"]")[0])
                await rep.send([b'{"result": %d}' % (number * 2)])

    async def lives() -> None:
        while True:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await one_life()
            await trio.sleep(chance.random() * 0.02)

    async def restart() -> None:
        await trio.lowlevel.checkpoint()
        scopes[-1].cancel()

    async with serving({}, **rpc_to(address)) as caller, trio.open_nursery() as nursery:
        nursery.start_soon(lives)
        calls = Calls(caller.resource("driver/rpc"), chance)
        await play(calls, [restart, trio.lowlevel.checkpoint], chance)

        await works_again(calls.rpc)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", SEEDS)
async def test_callers_that_come_and_go_leave_nothing_behind(seed: int, address: str) -> None:
    chance = random.Random(seed)

    async def visit() -> None:
        kind = chance.choice([zmq.REQ, zmq.DEALER])
        async with open_raw(kind, connect=address) as peer:
            for _ in range(chance.randrange(4) if kind == zmq.DEALER else 1):
                body = [chance.choice([b"desk.slow", b"desk.double"]), b"[%d]" % chance.randrange(1, 5)]
                await peer.send(body if kind == zmq.REQ else [b"", *body])
            with trio.move_on_after(chance.random() * 0.02):
                await peer.recv()

    desk = Lives(lambda: serving({"desk": Desk}, **desk_at(address)))
    async with living(desk), serving({}, **rpc_to(address)) as caller:
        calls = Calls(caller.resource("driver/rpc"), chance)
        await play(calls, [visit, visit, visit, visit, desk.restart], chance)

        await works_again(calls.rpc)
        await nobody_is_inside(desk.service)


async def test_a_cancelled_callee_ends_within_one_round_trip(address: str) -> None:
    chance = random.Random(5)
    async with serving({"desk": Desk}, **desk_at(address), **rpc_to(address)) as service:
        rpc, desk = service.resource("driver/rpc"), service.resource("worker/desk")
        await rpc.desk.double(1)
        left: list[int] = []
        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(chance.randrange(1, 5)):
                    nursery.start_soon(rpc.desk.slow, 5)  # without an end
                with trio.fail_after(5):
                    while not desk.inside:
                        await rpc.desk.double(1)
                nursery.cancel_scope.cancel()
            await rpc.desk.double(1)
            left.append(desk.inside)

    assert left == [0] * 40


class Ear:
    def __init__(self) -> None:
        self.heard = Inbox()

    @handles("news")
    async def hear(self, payload: int) -> None:
        self.heard.put(payload)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_subscriber_hears_again_whatever_happens_to_the_proxy_the_publisher_and_itself(seed: int) -> None:
    chance = random.Random(seed)
    async with open_raw(zmq.XSUB, bind=LOCAL) as one, open_raw(zmq.XPUB, bind=LOCAL) as other:
        places = {"publishers": address_of(one), "subscribers": address_of(other)}
    news = {"plugin": "zmq_publish", "connect": [places["publishers"]]}
    ear = {"plugin": "zmq_subscribe", "connect": [places["subscribers"]], "topics": ["news"]}
    proxy = Lives(lambda: serving({}, drivers={"proxy": {"plugin": "zmq_proxy", **places}}))
    publisher = Lives(lambda: serving({}, drivers={"news": news}))
    subscriber = Lives(lambda: serving({"ear": Ear}, dispatchers={"ear": ear}))
    each = [proxy, publisher, subscriber]
    async with living(*each):
        for number in range(ACTS):
            await chance.choice(each).restart()
            with trio.fail_after(20):
                while number not in subscriber.service.resource("worker/ear").heard.seen:
                    await publisher.service.publish("news", "news", number)
                    await trio.sleep(0.01)
