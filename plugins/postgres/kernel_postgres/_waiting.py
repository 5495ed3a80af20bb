"""How trio waits for psycopg's generators, which say what they wait for and do no I/O that blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Final, Generic, TypeAlias, TypeVar, final

import attrs
import trio
from psycopg.waiting import Ready, Wait

ResultT = TypeVar("ResultT")
Connecting: TypeAlias = Generator[tuple[int, Wait], Ready | int, ResultT]

_TO_READ: Final = Wait.R
_TO_WRITE: Final = Wait.W
_CAN_READ: Final = Ready.R
_CAN_WRITE: Final = Ready.W
# A member of an enumeration is looked up in Python, which each statement would do four times.


@final
@attrs.define(eq=False, repr=False)
class Conversation(Generic[ResultT]):
    """One generator of psycopg on one socket. After a cancelled `go_on` it can go on."""

    _generator: Generator[Wait, Ready | int, ResultT]
    _socket: int
    _state: Wait | None = attrs.field(default=None, init=False)
    """What it waits for; None before it began."""

    async def go_on(self) -> ResultT:
        """Do what is to be done until the generator returns; raises what it raises.

        Cancellation: Is a checkpoint. If cancelled, nothing was done since the last wait.
        """
        if self._state is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                self._state = next(self._generator)
            except StopIteration as end:
                await trio.lowlevel.cancel_shielded_checkpoint()  # what was done cannot be undone
                return end.value  # type: ignore[no-any-return]  # what a StopIteration carries is not typed
        while True:
            ready = await wait_for(self._socket, self._state)
            try:
                self._state = self._generator.send(ready)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # as above


async def connect_with(generator: Connecting[ResultT], *, steps: trio.CapacityLimiter) -> ResultT:
    """Do the same for a generator whose socket may change, which is one that connects.

    Each step is done in a thread: libpq computes in them what the password and TLS ask for, which takes some
    milliseconds, and many connections that are opened at once would block the loop for the sum of them.

    Args:
        generator: What connects.
        steps: How many threads there may be.

    Cancellation: Is a checkpoint. If cancelled, the generator is to be thrown away; a step that has begun ends first.
    """
    ready: Ready | int | None = None
    while True:
        step = await trio.to_thread.run_sync(_step, generator, ready, limiter=steps)
        if isinstance(step, _Connected):
            return step.value
        ready = await wait_for(*step)


@final
@attrs.frozen(eq=False, repr=False)
class _Connected(Generic[ResultT]):
    """What a generator has returned: a `StopIteration` cannot be raised through a coroutine."""

    value: ResultT


def _step(generator: Connecting[ResultT], ready: Ready | int | None) -> tuple[int, Wait] | _Connected[ResultT]:
    try:
        return next(generator) if ready is None else generator.send(ready)
    except StopIteration as end:
        return _Connected(end.value)


async def wait_for(socket: int, state: Wait) -> Ready:
    """Wait until a socket can be read or written, whichever is asked for.

    Cancellation: Is a checkpoint.
    """
    if state == _TO_READ:
        await trio.lowlevel.wait_readable(socket)
        return _CAN_READ
    if state == _TO_WRITE:
        await trio.lowlevel.wait_writable(socket)
        return _CAN_WRITE
    return await _wait_for_either(socket)


async def _wait_for_either(socket: int) -> Ready:
    ready: list[Ready] = []
    async with trio.open_nursery() as nursery:

        async def wait(waits: Callable[[int], Awaitable[None]], came: Ready) -> None:
            await waits(socket)
            ready.append(came)
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, trio.lowlevel.wait_readable, Ready.R)
        nursery.start_soon(wait, trio.lowlevel.wait_writable, Ready.W)
    return ready[0] if len(ready) == 1 else Ready.RW
