from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from kernel_asyncio import AsyncioConfig, AsyncioDriver, AsyncioLoop, AsyncioTaskFailed, _library

from kernel import Event, Usage, current_delivery
from kernel.errors import RemoteError
from kernel.testing import OpenKernel, check_driver, fake_context

VARIABLE: ContextVar[int] = ContextVar("VARIABLE", default=0)


def driver(events: list[Event] | None = None, **config: Any) -> AsyncioDriver:
    return AsyncioDriver(config=AsyncioConfig(**config), context=fake_context("driver/aio", events=events))


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def seen() -> int:
    await asyncio.sleep(0)
    return VARIABLE.get()


async def use(aio: AsyncioLoop) -> None:
    assert await aio.run(double, 2) == 4


@pytest.mark.slow
async def test_it_keeps_the_promises_of_a_driver() -> None:
    await check_driver(lambda: driver(tasks=3), use=use)


async def test_what_asyncio_returns_and_raises_comes_back() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async with driver().open() as aio:
        assert await aio.run(double, 4) == 8
        with pytest.raises(ZeroDivisionError):
            await aio.run(fail)


async def test_whoever_looks_sees_how_many_tasks_make_a_call() -> None:
    asked: list[Callable[[], Usage]] = []
    begun, go = trio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await go.wait()

    context = attrs.evolve(fake_context("driver/aio"), report_usage=asked.append)
    async with AsyncioDriver(config=AsyncioConfig(tasks=1), context=context).open() as aio:
        [look] = asked
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio.run, hold)
            await begun.wait()
            nursery.start_soon(aio.run, hold)
            await trio.testing.wait_all_tasks_blocked()

            assert look() == Usage(used=1, waiting=1, limit=1)
            go.set()
        assert look() == Usage(used=0, limit=1)


async def test_each_call_has_the_context_variables_of_its_caller_and_of_no_other() -> None:
    got: dict[int, int] = {}
    async with driver(tasks=1).open() as aio:

        async def call(number: int) -> None:
            VARIABLE.set(number)
            got[number] = await aio.run(seen)

        async with trio.open_nursery() as nursery:
            for number in range(1, 4):
                nursery.start_soon(call, number)

        assert got == {1: 1, 2: 2, 3: 3}
        assert await aio.run(seen) == 0


async def test_timeouts_groups_and_streams_of_asyncio_work() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def talk() -> bytes:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, asyncio.timeout(5), asyncio.TaskGroup() as group:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"tea\n")
            reading = group.create_task(reader.readline())
            line = await reading
            writer.close()
            await writer.wait_closed()
        return line

    async with driver().open() as aio:
        assert await aio.run(talk) == b"tea\n"


async def test_a_cancelled_call_is_cancelled_in_asyncio_and_its_task_goes_on() -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with driver(tasks=1).open() as aio:
        for _ in range(3):
            with trio.move_on_after(0.02) as scope:
                await aio.run(hang)
            assert scope.cancelled_caught
        assert await aio.run(double, 1) == 2

    assert ended == ["cancelled"] * 3


@pytest.mark.slow
async def test_200_random_cancellations_leave_every_answer_with_its_question() -> None:
    chance = random.Random(1)

    async def slow(number: int) -> int:
        await asyncio.sleep(0.0005)
        return number

    async with driver(tasks=2).open() as aio:
        for number in range(200):
            with trio.move_on_after(chance.choice([0.0, 0.0002, 0.0006, 0.001])):
                await aio.run(slow, -1)
            assert await aio.run(slow, number) == number


async def test_a_call_that_does_not_heed_its_cancellation_is_waited_for_so_long() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)

    async with driver(cancel_timeout=0.05).open() as aio:
        with trio.fail_after(5), trio.move_on_after(0.02) as scope:
            await aio.run(stubborn)

        assert scope.cancelled_caught
        assert await aio.run(double, 1) == 2


@pytest.mark.parametrize("lost", [1, 3])
async def test_a_call_that_loses_its_cancellation_gives_its_task_back(lost: int) -> None:
    """As in `asyncio.wait_for`, now and then: what goes on then for ever would keep the task of all who come later."""
    heard: list[int] = []

    async def endless() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard.append(len(heard))
                if len(heard) > lost:
                    raise

    async def timed() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "in time"
        return "never"

    async with driver(tasks=1, cancel_timeout=0.02).open() as aio:
        with trio.move_on_after(0.02):
            await aio.run(endless)
        with trio.fail_after(10):
            assert await aio.run(timed) == "in time"

    assert heard == list(range(lost + 1))


async def test_a_task_that_fails_and_nobody_waits_for_is_told_and_the_loop_goes_on() -> None:
    import gc  # noqa: PLC0415  only this test

    async def fail() -> None:
        raise ZeroDivisionError("oops")

    async def leave_behind() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        del task
        gc.collect()

    events: list[Event] = []
    async with driver(events).open() as aio:
        await aio.run(leave_behind)
        assert await aio.run(double, 1) == 2

    (told,) = events
    assert isinstance(told, AsyncioTaskFailed)
    assert told.error == "ZeroDivisionError: oops"


# --- workers -------------------------------------------------------------------------------------------------------


class Waiting:
    """A worker that is written for asyncio."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    async def __call__(self, number: int) -> list[Any]:
        await asyncio.sleep(0)
        delivery = current_delivery()
        assert delivery is not None
        if number < 0:
            raise ValueError(f"{number} is negative")
        return [2 * number, delivery.envelope.subject]


def manifest(**worker: Any) -> dict[str, Any]:
    consumer = {"plugin": "consumer", "driver": "queue", "protocol": "json", "queue": "q", "bindings": ["#"]}
    return {
        "kernel": {"name": "test"},
        "drivers": {
            "queue": {"plugin": "memory"},
            "rpc": {"plugin": "rpc_client", "driver": "queue", "protocol": "json"},
            "aio": {"plugin": "asyncio"},
        },
        "dispatchers": {"incoming": consumer},
        "workers": {"w": {"use": f"{__name__}:Waiting", "dispatcher": "incoming", "runs_in": "aio", **worker}},
    }


async def test_a_worker_may_be_written_for_asyncio(open_kernel: OpenKernel) -> None:
    async with open_kernel(manifest(), expected=ValueError) as service:
        assert await service.call("rpc", "double", 4) == [8, "double"]
        with pytest.raises(RemoteError, match="-1 is negative"):
            await service.call("rpc", "double", -1)


# --- Python 3.14 ----------------------------------------------------------------------------------------------------


def test_check_says_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 14, 0))

    assert list(AsyncioDriver.check(AsyncioConfig())) == [_library.WHY_NOT]
    with pytest.raises(ImportError, match="Python 3"):
        _library.trio_asyncio()
