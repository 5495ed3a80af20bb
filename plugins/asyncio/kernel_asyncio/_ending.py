"""How the tasks of a loop end: they are cancelled, waited for, and abandoned if they do not heed it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import trio


async def end_tasks(loop: Any, seconds: float) -> list[asyncio.Task[Any]]:  # noqa: ANN401  trio-asyncio has no types
    """Cancel what runs in a loop of trio-asyncio, and wait for it; returns what has not ended.

    The loop does not know these any more, and does not wait for them.

    Cancellation: Is none: it takes so many seconds at most, and none if the loop does not run.
    """
    with trio.move_on_after(seconds, shield=True):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def give_up() -> None:
                await loop.wait_stopped()
                nursery.cancel_scope.cancel()

            await loop.synchronize()  # what was begun before is to have begun
            for task in asyncio.all_tasks(loop):
                task.cancel()
            for task in asyncio.all_tasks(loop):
                await _ended(task)
            nursery.cancel_scope.cancel()
    left = list(asyncio.all_tasks(loop))
    for task in left:
        task.cancel()  # a loop that was stopped does once more what is due, on its way out
        asyncio._unregister_task(task)  # noqa: SLF001  documented, under "Extending"
    return left


async def _ended(task: asyncio.Task[Any]) -> None:
    done, context = trio.Event(), copy_context()
    task.add_done_callback(lambda _: done.set(), context=context)
    await done.wait()


def throw_away(task: asyncio.Task[Any]) -> bool:
    """Close what a task runs, if it has not ended; returns whether that was so."""
    if task.done():
        return False
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001  as asyncio's own gather does
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # that it is closed is no news
    coroutine: Any = task.get_coro()
    with suppress(RuntimeError, ValueError):  # it may refuse that as well, and reset variables of another context
        coroutine.close()
    return True
