"""The conformance check of drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import attrs
import trio

from ._cancel import cancel_and_time
from ._leaks import no_task_leaks
from ._promise import expect, prove
from ._threads import hold_clock_for_threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..abc import Driver

ResourceT = TypeVar("ResourceT")


async def check_driver(
    make: Callable[[], Driver[ResourceT]],
    *,
    use: Callable[[ResourceT], Awaitable[None]],
    stop_timeout: float = 2.0,
) -> None:
    """Test a driver against the promises of `kernel.abc.Driver`.

    Works on the real clock and on an autojump clock. What ignores cancellation for ever cannot be ended from
    outside: give such tests a timeout of their own.

    Args:
        make: Returns a new driver; called for each case.
        use: Does with the resource what users do. Must end by itself, and may be called by two tasks at once.
        stop_timeout: Seconds that closing may take.

    Raises:
        AssertionError: naming the promise that is broken, and what happened instead.

    Cancellation: Is a checkpoint.
    """
    hold_clock_for_threads()
    bench = _Bench(make, use, stop_timeout)
    await prove("what a driver opens is usable, and closed afterwards", bench.open_and_close)
    await prove("a driver that was closed can be opened again, as a new object", bench.open_again)
    await prove("two tasks can use the resource at once", bench.use_twice)
    await prove("closing takes at most stop_timeout", bench.close_in_time)
    await prove("a driver that is cancelled leaves nothing behind", bench.cancel_everywhere)


@final
@attrs.frozen(repr=False)
class _Bench(Generic[ResourceT]):
    make: Callable[[], Driver[ResourceT]]
    use: Callable[[ResourceT], Awaitable[None]]
    stop_timeout: float

    async def live(self, users: int = 1) -> None:
        async with self.make().open() as resource, trio.open_nursery() as nursery:
            for _ in range(users):
                nursery.start_soon(self.use, resource)

    async def open_and_close(self) -> None:
        async with no_task_leaks():
            await self.live()

    async def open_again(self) -> None:
        expect(self.make() is not self.make(), "make() returned the same driver twice")
        async with no_task_leaks():
            await self.live()
            await self.live()

    async def use_twice(self) -> None:
        async with no_task_leaks():
            await self.live(users=2)

    async def close_in_time(self) -> None:
        async with self.make().open() as resource:
            await self.use(resource)
            began = trio.current_time()
        self._in_time(trio.current_time() - began, "")

    async def cancel_everywhere(self) -> None:
        await self.live()  # what is made once for a process, such as a cache of threads, is no leak
        at = 1
        while True:
            try:
                async with no_task_leaks():
                    took = await cancel_and_time(self.live, at)
            except AssertionError as error:
                raise AssertionError(f"{error}, when cancelled at checkpoint {at}") from error
            if took is None:
                return
            self._in_time(took, f" when cancelled at checkpoint {at}")
            at += 1

    def _in_time(self, took: float, when: str) -> None:
        expect(took <= self.stop_timeout, f"it took {took:.3g} s{when}, more than {self.stop_timeout:g} s")
