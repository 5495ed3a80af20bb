"""What handlers do: all that a program may, and much that it should not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, final

import attrs
import trio

from kernel import Ack, DeadLetter, Retry, Return
from kernel.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from ._draw import Task

Act: TypeAlias = Callable[["Task"], Awaitable[object]]


@attrs.frozen
class FrozenError(Exception):
    """Takes no note."""

    text: str = "frozen"


class BusyError(TransientError):
    """Does not call its base, so that it has no `after` of its own."""

    def __init__(self, text: str) -> None:
        self.text = text


class ForeignError(BaseException):
    """Is no `Exception`."""


class UnprintableError(Exception):
    """Cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@final
@attrs.frozen
class Says:
    """Waits, and then returns a value or raises it."""

    value: object

    async def __call__(self, task: Task) -> object:
        await trio.sleep(task.seconds)
        if isinstance(self.value, BaseException):
            raise type(self.value)(*self.value.args)
        return self.value


async def _at_once(task: Task) -> None:
    """Return without a checkpoint."""


async def _raises_at_once(task: Task) -> NoReturn:
    raise ValueError("at once")


async def _asks_for_later(task: Task) -> NoReturn:
    await trio.sleep(task.seconds)
    raise TransientError("later", after=1.5)


async def _is_frozen(task: Task) -> NoReturn:
    await trio.sleep(task.seconds)
    raise FrozenError


async def _raises_a_group(task: Task) -> NoReturn:
    await trio.sleep(task.seconds)
    raise ExceptionGroup("two", [ValueError("one"), OSError("other")])


async def _exits(task: Task) -> NoReturn:
    await trio.sleep(task.seconds)
    sys.exit(3)


async def _swallows(task: Task) -> object:
    """Take its cancellation for an end like any other."""
    try:
        await trio.sleep(task.seconds)
    except trio.Cancelled:
        return "swallowed"
    return None


async def _raises_when_cancelled(task: Task) -> None:
    try:
        await trio.sleep(task.seconds)
    except trio.Cancelled:
        raise ValueError("in the middle") from None


async def _exits_when_cancelled(task: Task) -> None:
    try:
        await trio.sleep(task.seconds)
    except trio.Cancelled:
        sys.exit(4)


async def _cleans_up(task: Task) -> None:
    """Take a while, shielded, to end when it is cancelled."""
    try:
        await trio.sleep(task.seconds)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(task.more)


async def _is_shielded(task: Task) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(task.more)
    await trio.sleep(task.seconds)


async def _opens_a_nursery(task: Task) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(trio.sleep, task.seconds)


async def _fails_in_a_nursery(task: Task) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 100.0)
        nursery.start_soon(Says(OSError("child")), task)


async def _exits_in_a_nursery(task: Task) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 100.0)
        nursery.start_soon(_exits, task)


async def _foreign_in_a_nursery(task: Task) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Says(ForeignError()), task)


async def _has_its_own_timeout(task: Task) -> None:
    with trio.move_on_after(0.2):
        await trio.sleep(task.seconds)
    await trio.sleep(0.1)


ACTS: Final[Mapping[str, Act]] = {
    "at once": _at_once,
    "done": Says(None),
    "done again": Says(None),
    "done once more": Says(None),
    "answers": Says({"done": True}),
    "acks": Says(Ack()),
    "retries": Says(Retry(1.0, "again")),
    "refuses": Says(DeadLetter("refused")),
    "returns": Says(Return()),
    "returns a class": Says(Retry),
    "raises": Says(ValueError("broken")),
    "raises at once": _raises_at_once,
    "raises for good": Says(PermanentError("for good")),
    "raises for now": Says(TransientError("for now")),
    "asks for later": _asks_for_later,
    "raises what has no after": Says(BusyError("busy")),
    "raises what takes no note": _is_frozen,
    "raises what has no words": Says(UnprintableError()),
    "raises a group": _raises_a_group,
    "raises what is foreign": Says(ForeignError()),
    "raises asyncio's cancellation": Says(asyncio.CancelledError()),
    "exits": _exits,
    "exits in a nursery": _exits_in_a_nursery,
    "foreign in a nursery": _foreign_in_a_nursery,
    "swallows": _swallows,
    "raises when cancelled": _raises_when_cancelled,
    "exits when cancelled": _exits_when_cancelled,
    "cleans up": _cleans_up,
    "is shielded": _is_shielded,
    "opens a nursery": _opens_a_nursery,
    "fails in a nursery": _fails_in_a_nursery,
    "has its own timeout": _has_its_own_timeout,
}
LETS_GO: Final = frozenset(ACTS) - {
    "swallows", "raises when cancelled", "exits when cancelled", "cleans up", "is shielded",
}  # fmt: skip
"""Acts that end as soon as they are cancelled, with nothing but that."""
