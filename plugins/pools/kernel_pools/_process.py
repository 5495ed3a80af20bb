"""One process of a pool: asked one thing after the other, and buried when it has ended, with all that it has open here.

It is a worker of trio-parallel, of which this module alone knows: its context would keep the pipes of a process that
has ended until somebody collects them, and kill one that is starting with the call that it starts for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast, final

import attrs
import trio
from trio_parallel import BrokenWorkerError  # pyright: ignore[reportMissingTypeStubs]  it has none
from trio_parallel._proc import (  # noqa: PLC2701  # pyright: ignore[reportMissingTypeStubs]  the version is pinned
    SpawnProcWorker,
)

from kernel.abc import PlainWorker

from . import _child

STARTING: Final = "starting"
_PIPES: Final = ("_send_pipe", "_recv_pipe", "_child_send_pipe", "_child_recv_pipe")


@final
class DiedError(Exception):
    """The process died at what it was asked; the text says how."""


@final
class EndedError(Exception):
    """The process had ended before it was asked: nothing was done."""


@final
@attrs.define(eq=False, repr=False)
class Process:
    """A process, from before its start to its burial."""

    _worker: Any
    doing: str = attrs.field(default=STARTING, init=False)
    """What it does before it can be called."""
    calls: int = attrs.field(default=0, init=False)
    """How many handlers were called in it."""
    is_buried: bool = attrs.field(default=False, init=False)
    _made: dict[str, PlainWorker] = attrs.field(factory=dict[str, PlainWorker], init=False)
    """The workers that have an object in it."""

    @classmethod
    def of(cls, *, idle_timeout: float, init: Callable[[], object]) -> Process:
        """Return one that has not started."""
        return cls(cast("Any", SpawnProcWorker)(idle_timeout, init, bool))

    def has_made(self, worker: PlainWorker) -> bool:
        """Return whether it has an object for a worker, made of the same."""
        made = self._made.get(worker.id)
        return made is worker or (
            made is not None and made.use is worker.use and bool(made.arguments == worker.arguments)
        )

    def note_made(self, worker: PlainWorker) -> None:
        """Note that it has one now."""
        self._made[worker.id] = worker

    async def start(self) -> bytes:
        """Start it, and return what it says when it has started.

        Raises:
            OSError: if the system starts none. It is buried.
            DiedError, EndedError: as `ask`.

        Cancellation: Is a checkpoint. If cancelled, it is buried.
        """
        try:
            await self._worker.start()
        except BaseException:
            await self.kill()  # noqa: ASYNC102  it shields itself, and a process that is killed is gone at once
            raise
        return await self.ask(_child.stand_by)

    async def ask(self, function: Callable[..., bytes], *given: bytes | str) -> bytes:
        """Have a function called in it, and return what that returns.

        Raises:
            DiedError: if it died at that. It is buried.
            EndedError: if it was gone before. It is buried.

        Cancellation: Is a checkpoint. If cancelled, it is killed and buried.
        """
        outcome = None
        try:
            outcome = await self._worker.run_sync(function, *given)
        except BrokenWorkerError:
            how = _how(self._worker.proc.exitcode)
        except BaseException:
            await self.kill()  # noqa: ASYNC102  as above
            raise
        else:
            if outcome is not None:
                result: bytes = outcome.unwrap()
                return result
            how = ""
        # Not inside `except`: that error would keep what was sent, in the frames that it came through.
        self._bury()
        raise DiedError(how) if how else EndedError

    def has_ended(self) -> bool:
        """Return whether it has ended by itself, while nobody asked it; then it is buried."""
        if not (self.is_buried or self._worker.is_alive()):
            self._bury()
        return self.is_buried

    def dismiss(self) -> None:
        """Have it end when it has nothing to do."""
        self._worker.shutdown()

    async def wait_ended(self) -> None:
        """Wait until it has ended, and bury it.

        Cancellation: Is a checkpoint. If cancelled, it is as it was.
        """
        await self._worker.wait()
        self._bury()

    async def kill(self) -> None:
        """Kill it if it runs, and bury it.

        Cancellation: Is a checkpoint, and shielded: the system ends what is killed at once.
        """
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            if self.is_buried:
                return
            if self._worker.proc.pid is not None:
                self._worker.kill()
                await self._worker.wait()
        self._bury()

    def _bury(self) -> None:
        """Let go of what it had open: Python would do so when it collects what refers to it, whenever that is."""
        self.is_buried = True
        for name in _PIPES:
            getattr(self._worker, name).close()
        self._worker.proc.close()


def _how(code: int | None) -> str:
    """Return how a process has ended, as far as is known."""
    if code is None:
        return "it is not known how"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
