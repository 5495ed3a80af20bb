"""Checkpoints that cost little."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Final, final

import attrs
import trio

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
