"""Loops that something in them stops, and tasks that do not heed that they are cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import trio
from kernel_asyncio import AsyncioConfig, AsyncioDriver, AsyncioTaskFailed

from kernel import Event, State, StateChanged
from kernel.errors import RemoteError, UnavailableError
from kernel.testing import OpenKernel, fake_context

from .test_loop import double, manifest


def driver(events: list[Event] | None = None, *, stop_timeout: float = 2.0, **config: Any) -> AsyncioDriver:
    context = fake_context("driver/aio", events=events, stop_timeout=stop_timeout)
    return AsyncioDriver(config=AsyncioConfig(**config), context=context)


async def stop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(60)


async def hang() -> None:
    await asyncio.sleep(60)


async def stubborn() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def spin() -> None:
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def leave_stubborn() -> None:
    TASKS.append(asyncio.create_task(stubborn()))
    await asyncio.sleep(0.01)


TASKS: list[asyncio.Task[None]] = []


async def test_a_loop_that_is_stopped_fails_its_callers_at_once_and_the_driver() -> None:
    failed: list[str] = []

    async def call(function: Any) -> None:
        with pytest.raises(UnavailableError, match="loop of asyncio has ended"):
            await aio.run(function)
        failed.append(function.__name__)

    with trio.fail_after(5), pytest.raises(UnavailableError, match=r"stop\(\)"):  # noqa: PT012
        async with driver(tasks=3).open() as aio, trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            for function in (hang, stop, hang):
                nursery.start_soon(call, function)

    assert sorted(failed) == ["hang", "hang", "stop"]


async def test_tasks_of_a_loop_that_is_stopped_are_cancelled() -> None:
    cleaned: list[str] = []

    async def clean() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("cleaned")

    async def call(function: Any) -> None:
        with suppress(UnavailableError):
            await aio.run(function)

    events: list[Event] = []
    with trio.fail_after(5), pytest.raises(UnavailableError):  # noqa: PT012
        async with driver(events).open() as aio, trio.open_nursery() as nursery:
            nursery.start_soon(call, clean)
            await aio.run(double, 1)
            nursery.start_soon(call, stop)

    assert (cleaned, events) == (["cleaned"], [])


@pytest.mark.parametrize("by_call", [True, False])
async def test_a_task_that_does_not_heed_its_cancellation_is_abandoned_and_named(*, by_call: bool) -> None:
    events: list[Event] = []
    began = trio.current_time()
    async with driver(events, cancel_timeout=0.05, stop_timeout=0.4).open() as aio:
        if by_call:
            with trio.move_on_after(0.05):
                await aio.run(stubborn)
        else:
            await aio.run(leave_stubborn)

    assert trio.current_time() - began < 2
    (told,) = events
    assert isinstance(told, AsyncioTaskFailed)
    assert "stubborn did not end within 0.2 s" in told.message
    TASKS.clear()


async def test_a_task_that_never_waits_is_abandoned_too() -> None:
    events: list[Event] = []
    with trio.fail_after(5):
        async with driver(events, cancel_timeout=0.05, stop_timeout=0.2).open() as aio:
            with trio.move_on_after(0.05):
                await aio.run(spin)

    assert [event.message.split()[0] for event in events if isinstance(event, AsyncioTaskFailed)] == ["spin"]


class Stopping:
    """A worker that stops its loop, when it is asked to."""

    async def __call__(self, number: int) -> int:
        if number < 0:
            await stop()
        return 2 * number


async def test_a_driver_whose_loop_was_stopped_is_started_again(open_kernel: OpenKernel) -> None:
    table = manifest(use=f"{__name__}:Stopping", retry={"attempts": 1})
    async with open_kernel(table, expected=UnavailableError) as service:
        with trio.fail_after(10):
            with pytest.raises((RemoteError, UnavailableError)):
                await service.call("rpc", "double", -1)
            # Until that is noticed, a call is told that the loop has ended; from then on it waits for the new one.
            await service.wait_event(StateChanged, lambda event: event.new is State.BACKOFF)
            assert await service.call("rpc", "double", 4) == 8
