"""The end of a turn of the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio


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
