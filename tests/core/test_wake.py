"""Waking tasks that have only to go on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import trio

from kernel import wake
from kernel._core.loop import _NOTHING


def abandon(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


async def test_a_task_goes_on_with_none_as_often_as_it_is_woken() -> None:
    async def sleeper() -> None:
        for _ in range(3):
            assert await trio.lowlevel.wait_task_rescheduled(abandon) is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper)
        await trio.testing.wait_all_tasks_blocked()
        [task] = nursery.child_tasks
        for _ in range(3):
            wake(task)
            await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks


async def test_what_is_sent_is_none_to_generators_of_both_kinds() -> None:
    """As every outcome can be."""

    def one() -> Generator[str, object, None]:
        assert (yield "first") is None
        yield "second"

    async def other() -> AsyncGenerator[str, object]:
        await trio.lowlevel.checkpoint()
        assert (yield "first") is None
        yield "second"

    plain, asynchronous = one(), other()

    assert [_NOTHING.send(plain), _NOTHING.send(plain)] == ["first", "second"]
    assert [await _NOTHING.asend(asynchronous), await _NOTHING.asend(asynchronous)] == ["first", "second"]
    await asynchronous.aclose()
