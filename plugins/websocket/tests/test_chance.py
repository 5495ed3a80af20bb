"""Calls while callers give up, connections break and either side starts again, by chance: each ends, once.

`KERNEL_CHANCES=25` has all 200 of each protocol, and not a part.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, final

import pytest
import trio

from kernel import answers
from kernel.errors import KernelError
from kernel.testing import free_port, open_proxy

from .service import calling, serving, url_of
from .strangers import REQUEST, masked, raw, read_head

pytestmark = pytest.mark.slow
SEEDS = range(int(os.environ.get("KERNEL_CHANCES", "2")))
FAULTS: Final = 8
"""Of each seed."""
CALLS: Final = 6
"""Under way at each fault."""


@final
class Desk:
    """What is called; remembers what runs, in whichever life."""

    running = Counter[str]()

    @answers("*.wait")
    async def wait(self, name: str, turns: int) -> str:
        self.running[name] += 1
        try:
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            if turns > 100:
                await trio.sleep_forever()
            return name
        finally:
            self.running[name] -= 1


@final
class Lives:
    """Something that is open, and can be opened again."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self.opened = opened
        self.now: Any = None
        self.up, self.again = trio.Event(), trio.Event()

    async def run(self) -> None:
        while True:
            async with self.opened() as self.now:
                self.up.set()
                await self.again.wait()
            self.again = trio.Event()

    async def restart(self) -> None:
        self.up = trio.Event()
        self.again.set()
        await self.up.wait()


async def turns(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("protocol", ["jsonrpc", "ufw_websocket"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_every_call_ends_once_with_a_result_or_an_error_of_ours(seed: int, protocol: str) -> None:
    chance, ended = random.Random(seed), Counter[str]()
    Desk.running.clear()
    port = free_port()
    table = {"protocol": protocol, "timeout": 5.0, "reconnect_most": 0.05}
    async with open_proxy("127.0.0.1", port) as proxy, trio.open_nursery() as living:
        server = Lives(lambda: serving({"desk": Desk}, protocol=protocol, port=port))
        client = Lives(lambda: calling(f"ws://127.0.0.1:{proxy.port}/", **table))
        for lives in (server, client):
            living.start_soon(lives.run)
            await lives.up.wait()
        faults: list[Callable[[], Any]] = [server.restart, client.restart, turns_of(proxy.reset)]

        async def ask(name: str, count: int) -> object:
            return await client.now[1].call("desk.wait", [name, count])

        async def call(name: str, scope: trio.CancelScope) -> None:
            with scope:
                try:
                    answer = await ask(name, chance.choice([0, 1, 5, 20, 1000]))
                    ended[name] += answer == name
                except KernelError:
                    ended[name] += 1
            ended[name] += scope.cancelled_caught

        for number in range(FAULTS):
            names = [f"{number}/{at}" for at in range(CALLS)]
            scopes = [trio.CancelScope() for _ in names]
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for name, scope in zip(names, scopes, strict=True):
                        nursery.start_soon(call, name, scope)
                    await turns(chance.randrange(40))
                    chance.choice(scopes).cancel()
                    await turns(chance.randrange(20))
                    await chance.choice(faults)()
                    await turns(chance.randrange(20))
                    for scope in scopes:
                        scope.cancel()
                while +Desk.running:
                    await trio.lowlevel.checkpoint()
                while True:
                    try:
                        assert await ask("after", 0) == "after"
                        break
                    except KernelError:
                        continue

        living.cancel_scope.cancel()

    assert set(ended.values()) == {1}
    assert len(ended) == FAULTS * CALLS


def turns_of(act: Callable[[], object]) -> Callable[[], Any]:
    async def acted() -> None:
        await trio.lowlevel.checkpoint()
        act()

    return acted


async def test_a_cancelled_callee_ends_within_one_round_trip() -> None:
    chance, left = random.Random(5), list[int]()
    async with serving({"desk": Desk}) as service, calling(url_of(service)) as (_, rpc):
        for play in range(40):
            names = [f"{play}.{number}" for number in range(chance.randrange(1, 5))]
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(rpc.call, "desk.wait", [name, 1000])
                while sum(Desk.running[name] for name in names) < len(names):
                    await rpc.call("desk.wait", ["knocks", 0])
                nursery.cancel_scope.cancel()
            await rpc.call("desk.wait", ["knocks", 0])
            left += [Desk.running[name] for name in names]

    assert set(left) == {0}


@pytest.mark.parametrize("leaves", [False, True], ids=["cancels", "leaves"])
async def test_what_is_given_up_as_soon_as_it_is_asked_for_is_not_handled_for_ever(leaves: bool) -> None:
    ask, knock = (
        masked(0x81, b'{"jsonrpc": "2.0", "method": "desk.wait", "params": ["%d", %d], "id": %d}' % (*what,))
        for what in ((1, 1000, 1), (2, 0, 2))
    )
    take_back = masked(0x81, b'{"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}}')
    Desk.running.clear()
    async with serving({"desk": Desk}) as service:
        for _ in range(30):
            async with raw(url_of(service)) as stream:
                await stream.send_all(REQUEST)
                await read_head(stream)
                with trio.fail_after(5):
                    await stream.send_all(ask + (masked(0x88, (1000).to_bytes(2)) if leaves else take_back + knock))
                    assert await stream.receive_some()  # it has read all of that
                    while +Desk.running:
                        await trio.lowlevel.checkpoint()
