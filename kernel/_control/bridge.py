"""From the control thread into the event loop of the service and back, without ever waiting for one that is blocked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar, cast, final

import attrs
import trio

from .wire import RefusedError

T = TypeVar("T")

ANSWERS_WITHIN: Final = 1.0
"""Seconds that the event loop has for something that does not wait."""


@final
@attrs.define(eq=False, repr=False)
class _Reply(Generic[T]):
    """What came of a call, on its way back."""

    token: trio.lowlevel.TrioToken
    """Of the loop that waits for it."""
    done: trio.Event = attrs.field(factory=trio.Event, init=False)
    value: T | None = attrs.field(default=None, init=False)
    error: Exception | None = attrs.field(default=None, init=False)
    is_left: bool = attrs.field(default=False, init=False)
    """Whether who asked has been told that nothing is done."""

    def send(self) -> None:
        """Wake who waits. Called in the other loop, which may outlive this one."""
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self.done.set)

    async def wait(self) -> T:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


@final
@attrs.frozen(eq=False, repr=False)
class Bridge:
    """Calls functions in the event loop of the service; used in another one."""

    loop: trio.lowlevel.TrioToken
    nursery: trio.Nursery
    """Of the service's loop: what waits runs in it."""

    async def ask(self, call: Callable[..., T], *arguments: object) -> T:
        """Call a function that does not wait, and return what it returns.

        Raises:
            RefusedError: if the loop does not get to it in time; then it is not called.
        """
        reply = _Reply[T](trio.lowlevel.current_trio_token())

        def make() -> None:
            if reply.is_left:  # who was told no may have done something else by now
                return
            try:
                reply.value = call(*arguments)
            except Exception as error:  # noqa: BLE001  it is raised where it was asked for
                reply.error = error
            reply.send()

        self._soon(make)
        with trio.move_on_after(ANSWERS_WITHIN):
            return await reply.wait()
        reply.is_left = True
        raise RefusedError("the event loop of the service is blocked: see `kernel why`")

    async def run(self, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Await a function there, and return what it returns. Who does not want to wait for ever has a deadline.

        Cancellation: Is a checkpoint. If cancelled, the function goes on.
        """
        reply = _Reply[T](trio.lowlevel.current_trio_token())

        async def make() -> None:  # noqa: ASYNC910  whether the call waits is its own to say
            try:
                reply.value = await call(*arguments)
            except Exception as error:  # noqa: BLE001  as above
                reply.error = error
            reply.send()

        self._soon(self.nursery.start_soon, make)
        return await reply.wait()

    def _soon(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self.loop.run_sync_soon(call, *arguments)
        except trio.RunFinishedError:
            raise RefusedError("the service has stopped") from None
