"""Checkpoints that cost little."""

from __future__ import annotations

from typing import Final, final

import attrs
import trio

_STEPS: Final = 32


@final
@attrs.define(eq=False)
class Pace:
    """Lets a task go on for some steps before the others have their turn.

    A full checkpoint takes longer than all that the broker does for a message. So each step notices cancellation,
    and one in 32 lets other tasks run: no task can keep the others waiting for more than 31 steps.
    """

    _left: int = attrs.field(default=_STEPS, init=False)

    async def step(self) -> None:
        """Check for cancellation and, when it is time, let others run."""
        self._left -= 1
        if self._left > 0:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self.turn()

    async def turn(self) -> None:
        """Let others run."""
        self._left = _STEPS
        await trio.lowlevel.checkpoint()
