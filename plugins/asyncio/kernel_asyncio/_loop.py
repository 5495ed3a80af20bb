"""A loop of asyncio, and calls that are handed over to tasks which are there already: to make one for each costs more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Any, ClassVar, Final, TypeVar, cast, final

import attrs
import outcome
import trio
from typing_extensions import override

from kernel import Usage
from kernel.abc import Executor, PlainWorker
from kernel.errors import UnavailableError

from ._ending import end_tasks, throw_away
from ._library import trio_asyncio

ResultT = TypeVar("ResultT")

ENDED: Final = "the loop of asyncio has ended"

_KEPT: Final = frozenset({"sniffio_current_async_library_cvar", "sniffio", "trio_asyncio.loop"})
"""Variables of a context that say which loop runs: those of the task stay. Others come with each call."""


@final
@attrs.define(eq=False, repr=False)
class _Call:
    """One call, on its way from trio to asyncio and back."""

    function: Callable[..., object]
    make: Callable[[], Awaitable[object]]
    context: Context
    done: trio.Event = attrs.field(factory=trio.Event, init=False)
    result: outcome.Outcome[object] | None = attrs.field(default=None, init=False)
    task: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    """Which makes it; None before and after."""
    is_cancelled: bool = attrs.field(default=False, init=False)

    def cancel(self) -> None:
        """End it; in asyncio's loop."""
        self.is_cancelled = True
        if self.task is not None:
            self.task.cancel()

    def end(self, result: outcome.Outcome[object]) -> None:
        """Give the caller what came first."""
        if not self.done.is_set():
            self.result = result
            self.done.set()


@final
@attrs.define(eq=False, repr=False)
class AsyncioLoop(Executor):
    """An event loop of asyncio that runs in the same thread as trio's, and calls what is written for asyncio.

    A worker that names its driver with `runs_in` has handlers for asyncio: `async def`, as everywhere.
    """

    calls_async: ClassVar[bool] = True

    _loop: Any
    _tasks: int
    _cancel_timeout: float
    _context: Context
    """That of the loop."""
    _is_closing: bool = attrs.field(default=False, init=False)
    """Whether tasks are to end: one whose call is cancelled when they are cancelled cannot tell the two apart."""
    _calls: set[_Call] = attrs.field(factory=set["_Call"], init=False)
    """Those that somebody waits for."""
    _made: dict[asyncio.Task[Any], _Call] = attrs.field(factory=dict["asyncio.Task[Any]", "_Call"], init=False)
    """Those that tasks make at this moment."""
    _queue: asyncio.Queue[_Call] = attrs.field(factory=asyncio.Queue["_Call"], init=False)

    async def run(self, function: Callable[..., Awaitable[ResultT]], *args: object, **kwargs: object) -> ResultT:
        """Call an async function of asyncio and return its result.

        Args:
            function: May use whatever asyncio offers.
            args: Given by position.
            kwargs: Given by name.

        Raises:
            Exception: what the function raises.
            UnavailableError: if the loop ends before the function does.

        Cancellation: Is a checkpoint. If cancelled, the function gets a `CancelledError`, and is waited for, for
            `cancel_timeout` at most.
        """
        call = _Call(function, lambda: function(*args, **kwargs), copy_context())
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._loop.is_running():
            raise UnavailableError(ENDED)
        self._calls.add(call)
        self._soon(self._queue.put_nowait, call)
        try:
            await self._wait(call)
        finally:
            self._calls.discard(call)
        assert call.result is not None
        return cast("ResultT", call.result.unwrap())

    async def _wait(self, call: _Call) -> None:
        try:
            await call.done.wait()
        except trio.Cancelled:
            if not call.done.is_set():
                self._soon(call.cancel)
            with trio.move_on_after(self._cancel_timeout, shield=True):
                await call.done.wait()
            if not call.done.is_set():
                self._soon(self._insist, call)
            raise

    def _insist(self, call: _Call) -> None:
        """Cancel again and again what nobody waits for, until its task is free; in asyncio's loop.

        A cancellation there comes once and can be lost: `asyncio.wait_for` of Python 3.11 does so where what it waits for
        ends at the same moment (cpython issue 86296), and drivers wait for a place in their pools with it.
        """
        if call.task is not None:
            call.cancel()
            self._loop.call_later(self._cancel_timeout, self._insist, call, context=self._context)

    @override
    async def call(
        self, worker: PlainWorker, method: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> object:
        if worker.is_function:
            return await self.run(
                cast("Callable[..., Awaitable[object]]", worker.use), *args, **{**worker.arguments, **kwargs}
            )
        return await self.run(getattr(worker.instance, method), *args, **kwargs)

    def _soon(self, function: Callable[..., object], *args: object) -> None:
        self._loop.call_soon(function, *args, context=self._context)

    def usage(self) -> Usage:
        """Return how many tasks make a call now. May be called from any thread."""
        return Usage(used=len(self._made), waiting=self._queue.qsize(), limit=self._tasks)

    def close(self) -> None:
        """Have the tasks end when they are cancelled."""
        self._is_closing = True

    def fail(self) -> None:
        """Tell every caller that the loop has ended."""
        for call in self._calls:
            call.end(outcome.Error(UnavailableError(ENDED)))

    def name(self, task: asyncio.Task[object]) -> str:
        """Return what a task runs, for the log."""
        call = self._made.get(task)
        told: object = task.get_coro() if call is None else call.function
        return getattr(told, "__qualname__", "") or repr(told)

    async def serve(self) -> None:  # noqa: ASYNC910  of asyncio, which has no checkpoints
        """Make calls, one after the other; of asyncio."""
        me = cast("asyncio.Task[None]", asyncio.current_task())
        while not self._is_closing:
            call = await self._queue.get()
            if not call.is_cancelled:
                call.task, self._made[me] = me, call
                try:
                    call.end(await _made(call))
                finally:  # it is no answer that the loop is being closed, or the task thrown away
                    call.end(outcome.Error(UnavailableError(ENDED)))
                    call.task = None
                    del self._made[me]
                while call.is_cancelled and me.cancelling():
                    me.uncancel()
            else:
                call.done.set()


async def _made(call: _Call) -> outcome.Outcome[object]:  # noqa: ASYNC910  as above
    """Make a call with the context variables of its caller; what it raises is its result."""
    given = [(one, one.set(value)) for one, value in call.context.items() if one.name not in _KEPT]
    try:
        return outcome.Value(await call.make())
    except asyncio.CancelledError as error:  # noqa: ASYNC103  that of the call is its result
        if not call.is_cancelled:
            raise  # the loop is being closed
        return outcome.Error(error)  # noqa: ASYNC910  as above
    except (KeyboardInterrupt, SystemExit, Exception) as error:  # noqa: BLE001  it is the caller's
        return outcome.Error(error)  # noqa: ASYNC910  as above
    finally:
        for variable, token in given:
            variable.reset(token)


@asynccontextmanager
async def open_loop(
    *, tasks: int, cancel_timeout: float, exit_timeout: float, on_error: Callable[[str, BaseException | None], None]
) -> AsyncGenerator[AsyncioLoop]:
    """Run a loop of asyncio while inside; its tasks end before it does, or are abandoned.

    Args:
        tasks: How many make calls.
        cancel_timeout: Seconds that a cancelled call has to end.
        exit_timeout: Seconds that the tasks have to end, when it is left.
        on_error: Is told what asyncio says of errors that nobody waits for, and of tasks that were abandoned.

    Raises:
        UnavailableError: if something in asyncio has stopped the loop; what is inside is cancelled then.

    Cancellation: Is a checkpoint. The exit takes `exit_timeout` at most, also when cancelled.
    """
    library, has_stopped, left = trio_asyncio(), False, dict[asyncio.Task[Any], str]()

    def abandon() -> None:
        while left:
            task, name = left.popitem()
            if throw_away(task):
                on_error(f"{name} did not end within {exit_timeout:g} s after it was cancelled, and is abandoned", None)

    async with library.open_loop() as loop:
        # Without a handler of its own, an error that nobody waits for ends the loop, when the garbage is collected.
        def handle(_: object, told: Mapping[str, Any]) -> None:
            on_error(str(told.get("message", "")), told.get("exception"))

        loop.set_exception_handler(handle)
        opened = AsyncioLoop(loop, tasks, cancel_timeout, copy_context())
        serving: list[asyncio.Task[None]] = []

        async def start() -> None:  # noqa: ASYNC910  as above
            serving.extend(asyncio.get_running_loop().create_task(opened.serve()) for _ in range(tasks))

        await library.aio_as_trio(start)()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                nonlocal has_stopped
                await loop.wait_stopped()
                has_stopped = True
                opened.fail()
                nursery.cancel_scope.cancel()

            try:
                yield opened
            finally:
                opened.close()
                left |= {task: opened.name(task) for task in await end_tasks(loop, exit_timeout)}  # noqa: ASYNC102  it shields itself
                if loop.is_running():  # on its way out it does what is due, and one that never waits is always due
                    abandon()
                nursery.cancel_scope.cancel()
    abandon()
    if has_stopped:
        raise UnavailableError(f"{ENDED}: something in it has called stop()")
