"""Checkpoints that cost little."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Final, TypeVar, final

import attrs
import trio
from outcome import Outcome
from typing_extensions import override

_STEPS: Final = 32


@final
@attrs.define(eq=False)
class Pace:
    """Lets a task go on for some steps before the others have their turn.

    For a source or broker that often has what is asked for at hand: a full checkpoint takes longer than all that such
    a one does for a message. So each step notices cancellation, and one in 32 lets other tasks run: no task can keep
    the others waiting for more than 31 steps. May be shared by tasks.
    """

    _left: int = attrs.field(default=_STEPS, init=False)

    def step(self) -> Coroutine[object, object, None]:
        """Check for cancellation and, when it is time, let others run.

        Cancellation: Is a checkpoint at which others run one time in 32.
        """
        self._left -= 1
        return trio.lowlevel.checkpoint_if_cancelled() if self._left > 0 else self.turn()  # noqa: ASYNC105  awaited by the caller

    async def turn(self) -> None:
        """Let others run.

        Cancellation: Is a checkpoint.
        """
        self._left = _STEPS
        await trio.lowlevel.checkpoint()


_ResultT = TypeVar("_ResultT")


@final
class _Nothing(Outcome[None]):
    """None, as often as it is wanted; an outcome of trio's own is good for one time."""

    __slots__ = ()

    @override
    def unwrap(self) -> None:
        return None

    @override
    def send(self, gen: Generator[_ResultT, None, object]) -> _ResultT:
        return gen.send(None)

    @override
    async def asend(self, agen: AsyncGenerator[_ResultT, None]) -> _ResultT:
        return await agen.asend(None)


_NOTHING: Final = _Nothing()


def wake(task: trio.lowlevel.Task) -> None:
    """Reschedule a task that waits in `trio.lowlevel.wait_task_rescheduled`, which returns None there.

    As `trio.lowlevel.reschedule(task)`, which makes an outcome for each task: on the way of every message that takes
    longer than all else that waking does.

    Args:
        task: Each wait is to be ended once, by this or by its abort function.
    """
    trio.lowlevel.reschedule(task, _NOTHING)


@final
class _TurnEnds(trio.abc.Instrument):
    """Calls what is to be called at the end of the turn; nothing else of trio tells when that is."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        self._token: Final = trio.lowlevel.current_trio_token()

    def add(self, call: Callable[[], None]) -> None:
        """Call it at the end of this turn."""
        self._calls.append(call)

    def before_io_wait(self, timeout: float) -> None:
        """Call what is to be called. Called by trio, which has decided by now for how long it will wait."""
        del timeout
        for call in self._calls:  # grows, if a call adds another
            try:
                call()
            except BaseException as error:  # noqa: ASYNC103, BLE001  trio would log it, and call no instrument of ours again
                self._token.run_sync_soon(_raise, error)
        self._calls.clear()


def _raise(error: BaseException) -> None:
    raise error


_turn_ends: Final[trio.lowlevel.RunVar[_TurnEnds]] = trio.lowlevel.RunVar("kernel_turn_ends")


def at_turn_end(call: Callable[[], None]) -> None:
    """Have something called, once, when all tasks that can run have run, and before trio waits for anything.

    For drivers that send what many tasks made in one turn in one piece. A task that is woken for that has its turn
    after all others, and costs as much as several small messages.

    Args:
        call: Does something that does not wait. It must not wake tasks, since trio has decided by then for how long it
            waits: `trio.lowlevel.TrioToken.run_sync_soon` does. What it raises ends the run, as
            `trio.TrioInternalError`.

    Raises:
        RuntimeError: outside of trio.
    """
    try:
        turn_ends = _turn_ends.get()
    except LookupError:
        turn_ends = _TurnEnds()
        _turn_ends.set(turn_ends)
        trio.lowlevel.add_instrument(turn_ends)
    turn_ends.add(call)
