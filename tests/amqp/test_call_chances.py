"""Calls over RabbitMQ while callers give up, connections break and either side starts again, by chance: each ends once.

`KERNEL_CHANCES=25` has all 200 faults, and not a part. Each side has a way to the broker of its own.
"""

from __future__ import annotations

import os
import random
import statistics
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, final

import attrs
import pytest
import trio

from kernel import answers, new_id
from kernel.errors import CallTimeoutError, KernelError, RemoteError, UnavailableError, UnknownOutcomeError
from kernel.testing import LineFaults, Proxy, RunningService, open_kernel, open_proxy

from ._node import Node, running_node, scripts
from ._stage import forgive

pytestmark = pytest.mark.slow
SEEDS = range(int(os.environ.get("KERNEL_CHANCES", "1")))
FAULTS: Final = 8
"""Of each seed."""
CALLS: Final = 6
"""Under way at each fault."""
TIMEOUT: Final = 2.0
"""Seconds of a call: what nobody takes back, since who would has gone, ends by then."""
TYPED: Final = (CallTimeoutError, RemoteError, UnavailableError, UnknownOutcomeError)
Act = Callable[[], Awaitable[object]]


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    programs = scripts()
    if programs is None:
        pytest.skip("needs rabbitmq-server")
    with running_node(tmp_path_factory.mktemp("node"), programs) as node:
        yield node


@final
class Desk:
    """What is called; remembers what runs, in whichever life."""

    running = Counter[str]()

    @answers("desk.wait")
    async def wait(self, name: str, seconds: float) -> str:
        self.running[name] += 1
        try:
            await trio.sleep(seconds)
        finally:
            self.running[name] -= 1
        return name


@attrs.define(eq=False)
class Lives:
    """A service that ends and is opened again when the test says so."""

    opened: Callable[[], AbstractAsyncContextManager[RunningService]]
    now: RunningService = attrs.field(init=False)
    _up: trio.Event = attrs.field(factory=trio.Event, init=False)
    _again: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self) -> None:
        while True:
            async with self.opened() as self.now:
                self._up.set()
                await self._again.wait()
                await self.now.stop()
                forgive(self.now)
            self._again = trio.Event()

    async def wait_up(self) -> None:
        await self._up.wait()

    async def restart(self) -> None:
        self._up = trio.Event()
        self._again.set()
        await self._up.wait()


@attrs.define(eq=False)
class Stage:
    """Both sides, and what stands between."""

    caller: Lives
    callee: Lives
    ways: tuple[Proxy, Proxy]
    node: Node

    @property
    def rpc(self) -> Any:
        return self.caller.now.resource("driver/rpc")

    @property
    def faults(self) -> list[Act]:
        """What may happen, each to either side."""
        return [
            self.caller.restart,
            self.callee.restart,
            *(acting(way.reset) for way in self.ways),
            *(in_a_hole(way, direction) for way in self.ways for direction in ("to_server", "to_client")),
            self._close_connections,
        ]

    async def _close_connections(self) -> None:
        await trio.to_thread.run_sync(self.node.control, "close_all_connections", "by chance")

    async def wait_works(self) -> None:
        """Wait until a call is answered."""
        while True:
            try:
                assert await self.rpc.desk.wait("after", 0) == "after"
            except KernelError:
                continue
            return


def acting(act: Callable[[], object]) -> Act:
    async def acted() -> None:
        await trio.lowlevel.checkpoint()
        act()

    return acted


def in_a_hole(way: Proxy, direction: str) -> Act:
    """Return what lets nothing through, in one direction, on the connections there are; new ones are as they were."""

    async def lost() -> None:
        await trio.lowlevel.checkpoint()
        setattr(way, direction, LineFaults(black_hole=True))
        way.let_go()

    return lost


@asynccontextmanager
async def staged(node: Node) -> AsyncGenerator[Stage]:
    name = f"chances.{new_id()}"
    async with (
        open_proxy("127.0.0.1", node.port) as one,
        open_proxy("127.0.0.1", node.port) as other,
        trio.open_nursery() as nursery,
    ):
        stage = Stage(
            Lives(lambda: open_kernel(caller_at(one.port, name))),
            Lives(lambda: open_kernel(callee_at(other.port, name))),
            (one, other),
            node,
        )
        for lives in (stage.callee, stage.caller):
            nursery.start_soon(lives.run)
            await lives.wait_up()
        yield stage
        nursery.cancel_scope.cancel()


def broker_at(port: int) -> dict[str, object]:
    backoff = {"backoff_initial": 0.05, "backoff_max": 0.2}
    return {"plugin": "amqp", "hosts": [f"127.0.0.1:{port}"], "heartbeat": 1.0, **backoff}


def caller_at(port: int, name: str) -> dict[str, object]:
    rpc = {"plugin": "rpc_client", "driver": "queue", "protocol": "json", "exchange": name, "timeout": TIMEOUT}
    return {"kernel": {"name": "caller"}, "drivers": {"queue": broker_at(port), "rpc": rpc}}


def callee_at(port: int, name: str) -> dict[str, object]:
    desk = {
        "plugin": "consumer",
        "driver": "queue",
        "protocol": "json",
        "queue": name,
        "exchange": name,
        "bindings": ["desk.#"],
        "dead_letters": "",
        "cancellable": True,
        "concurrency": 50,
        "restart": {"max_restarts": 1000, "backoff_initial": 0.05, "backoff_max": 0.2},
    }
    return {
        "kernel": {"name": "desk", "grace_period": 8.0, "drain_timeout": 0.2},
        "drivers": {"queue": broker_at(port)},
        "dispatchers": {"desk": desk},
        "workers": {"desk": {"use": f"{__name__}:Desk", "dispatcher": "desk"}},
    }


async def call(stage: Stage, name: str, seconds: float, scope: trio.CancelScope, ended: Counter[str]) -> None:
    """Make a call, and note each way in which it ends."""
    with scope:
        try:
            ended[name] += await stage.rpc.desk.wait(name, seconds) == name
        except TYPED:
            ended[name] += 1
    ended[name] += scope.cancelled_caught


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_call_ends_once_with_a_result_or_an_error_of_ours(seed: int, own_node: Node) -> None:
    chance, ended = random.Random(seed), Counter[str]()
    Desk.running.clear()
    async with staged(own_node) as stage:
        for number in range(FAULTS):
            scopes = {f"{number}/{at}": trio.CancelScope() for at in range(CALLS)}
            with trio.fail_after(90):
                async with trio.open_nursery() as nursery:
                    for name, scope in scopes.items():
                        seconds = chance.choice([0.0, 0.005, 0.02, 0.1, 60.0])
                        nursery.start_soon(call, stage, name, seconds, scope, ended)
                    await trio.sleep(chance.random() * 0.05)
                    chance.choice(list(scopes.values())).cancel()
                    await chance.choice(stage.faults)()
                    await trio.sleep(chance.random() * 0.05)
                    chance.choice(list(scopes.values())).cancel()
                await stage.wait_works()
                while +Desk.running:  # noqa: ASYNC110  a worker tells nobody
                    await trio.sleep(0.01)
            assert stage.rpc.in_flight == 0

    assert set(ended.values()) == {1}
    assert len(ended) == FAULTS * CALLS


async def test_a_cancelled_callee_ends_within_one_round_trip(own_node: Node) -> None:
    chance = random.Random(5)
    trips, ends = list[float](), list[float]()
    Desk.running.clear()
    async with staged(own_node) as stage:
        for play in range(40):
            names = [f"{play}.{number}" for number in range(chance.randrange(1, 5))]
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(stage.rpc.desk.wait, name, 60.0)
                while sum(Desk.running[name] for name in names) < len(names):
                    trips.append(await seconds_of(stage.rpc.desk.wait("knocks", 0)))
                nursery.cancel_scope.cancel()
            ends.append(await seconds_of(until_none_runs(names)))

    assert statistics.median(ends) <= statistics.median(trips)
    assert max(ends) <= max(trips) + statistics.median(trips)


async def seconds_of(action: Awaitable[object]) -> float:
    began = trio.current_time()
    await action
    return trio.current_time() - began


async def until_none_runs(names: Iterable[str]) -> None:
    while any(Desk.running[name] for name in names):  # noqa: ASYNC110  a worker tells nobody
        await trio.sleep(0.0001)
