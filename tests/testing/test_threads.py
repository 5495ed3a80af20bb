"""A clock that jumps stands still while a thread works, whatever thread it is and however it waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kernel import handles
from kernel._manifest.registry import Registry, discover
from kernel.testing import hold_clock_for_threads, open_kernel

WORK = 0.02
"""Real seconds that a thread works."""
Ask = Callable[[], Awaitable[None]]


@contextmanager
def by_trio() -> Iterator[Ask]:
    async def ask() -> None:
        await trio.to_thread.run_sync(time.sleep, WORK)

    yield ask


@contextmanager
def by_queue() -> Iterator[Ask]:
    """A thread of a driver's own, which waits for work in a queue and tells the loop when it is done."""
    work: queue.Queue[Callable[[], None] | None] = queue.Queue()
    token = trio.lowlevel.current_trio_token()

    def run() -> None:
        while (done := work.get()) is not None:
            time.sleep(WORK)
            token.run_sync_soon(done)

    async def ask() -> None:
        done = trio.Event()
        work.put(done.set)
        await done.wait()

    thread = threading.Thread(target=run)
    thread.start()
    yield ask
    work.put(None)
    thread.join()


@contextmanager
def by_condition() -> Iterator[Ask]:
    """The same with a condition that is waited for in short pieces, as whoever looks for something again and again."""
    lock, wanted = threading.Condition(), list[Callable[[], None] | None]()
    token = trio.lowlevel.current_trio_token()

    def take() -> Callable[[], None] | None:
        with lock:
            while not wanted:
                lock.wait(0.001)
            return wanted.pop()

    def run() -> None:
        while (done := take()) is not None:
            time.sleep(WORK)
            token.run_sync_soon(done)

    def put(done: Callable[[], None] | None) -> None:
        with lock:
            wanted.append(done)
            lock.notify()

    async def ask() -> None:
        done = trio.Event()
        put(done.set)
        await done.wait()

    thread = threading.Thread(target=run)
    thread.start()
    yield ask
    put(None)
    thread.join()


@contextmanager
def by_pool() -> Iterator[Ask]:
    token = trio.lowlevel.current_trio_token()
    with ThreadPoolExecutor(max_workers=1) as pool:

        async def ask() -> None:
            done = trio.Event()
            pool.submit(time.sleep, WORK).add_done_callback(lambda _: token.run_sync_soon(done.set))
            await done.wait()

        yield ask


@pytest.mark.slow
@pytest.mark.parametrize("kind", [by_trio, by_queue, by_condition, by_pool])
async def test_the_clock_stands_still_while_a_thread_works(autojump_clock: Any, kind: Any) -> None:
    hold_clock_for_threads()
    times: list[float] = []
    with trio.move_on_after(3600), kind() as ask:
        for _ in range(20):
            await ask()
            times.append(trio.current_time())

    assert times == [0.0] * 20


async def test_the_clock_jumps_when_threads_wait(autojump_clock: Any) -> None:
    hold_clock_for_threads()
    with by_queue() as ask:
        await ask()
        await trio.sleep(3600)

    assert trio.current_time() == 3600.0


async def test_a_thread_that_was_there_before_does_not_count(autojump_clock: Any) -> None:
    over = threading.Event()

    def idle() -> None:
        while not over.is_set():
            time.sleep(0.001)

    thread = threading.Thread(target=idle)
    thread.start()
    hold_clock_for_threads()
    await trio.sleep(3600)
    over.set()
    thread.join()

    assert trio.current_time() == 3600.0


# --- the same service on brokers with and without threads -------------------------------------------------------------


class Packer:
    """Fails once at each order, so that a retry waits for its backoff."""

    def __init__(self) -> None:
        self.tried: set[int] = set()

    @handles("order.*")
    async def pack(self, number: int) -> None:
        await trio.sleep(5.0)
        if number not in self.tried:
            self.tried.add(number)
            raise OSError("not yet")


ON = {"driver": "queue", "protocol": "json"}
SHOP: Any = {
    "kernel": {"name": "shop"},
    "drivers": {"queue": {"plugin": "memory"}, "events": {"plugin": "publisher", **ON}},
    "dispatchers": {"orders": {"plugin": "consumer", "queue": "orders", "bindings": ["order.*"], **ON}},
    "workers": {
        "packer": {
            "use": "packer",
            "dispatcher": "orders",
            "retry": {"attempts": 2, "backoff_initial": 60.0, "jitter": 0.0},
        }
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("run", range(20))
@pytest.mark.parametrize("broker", ["memory", "sqlite"])
async def test_a_service_takes_the_same_virtual_time_on_each_broker(
    autojump_clock: Any, tmp_path: Path, broker: str, run: int
) -> None:
    table = {"plugin": broker} | ({"path": f"{tmp_path}/queue.db"} if broker == "sqlite" else {})
    registry = Registry((*discover().plugins, *Registry.of({"workers": {"packer": Packer}}).plugins))
    async with open_kernel(SHOP, registry=registry, replace={"drivers.queue": table}, expected=OSError) as service:
        for number in range(3):
            await service.publish("events", "order.created", number)
        await service.publish("events", "order.created", 3, delay=600.0)
        settled = await service.wait_settled(8)
        took = trio.current_time()

    assert sorted(event.attempt for event in settled) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert took == pytest.approx(600.0 + 5.0 + 60.0 + 5.0, abs=0.01)
