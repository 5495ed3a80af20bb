"""The processes of a pool: started when they are needed, kept while they are well, replaced when they are used up."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Iterator
from typing import Final, final

import attrs
import trio

from kernel.abc import Complaints, Context, PlainWorker

from . import _child, _crossing
from ._answers import answer_of, failure_of
from ._config import ProcessPoolConfig
from ._process import STARTING, DiedError, EndedError, Process

LOOK: Final = 1.0
"""Seconds between two looks for processes that ended while nobody asked them: until then they are zombies."""


@final
@attrs.define(eq=False, repr=False)
class _Way:
    """The way of a process to being ready for a worker."""

    worker: PlainWorker
    failure: str = attrs.field(default="", init=False)
    """Why it has not become ready; empty if it has, or was gone before."""
    over: trio.Event = attrs.field(factory=trio.Event, init=False)


@final
class _UnwritableError(Exception):
    """What a worker is made with cannot be serialized."""


@final
@attrs.define(eq=False, repr=False)
class Children:
    """Processes, of which each is somebody's, or free. Whoever takes one gives it back; the number is theirs to bound."""

    _context: Context
    _config: ProcessPoolConfig
    _nursery: trio.Nursery
    """In which processes get ready, and end: whoever waits for one may give up, and it is kept."""
    _complaints: Complaints
    _said: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """What the complaint of each worker is."""
    _free: list[Process] = attrs.field(factory=list[Process], init=False)
    """Those that get ready among them; the last one was used last."""
    _ways: dict[Process, _Way] = attrs.field(factory=dict[Process, _Way], init=False)

    async def take(self, worker: PlainWorker) -> Process | None:
        """Return a process that is ready for a worker; None if it did not get ready, which is complained of.

        Cancellation: Is a checkpoint. If cancelled, what gets ready goes on, and is there for the next.
        """
        await trio.lowlevel.checkpoint()
        while True:
            process = self._choose(worker)
            try:
                failure = await self._wait_ready(process, worker)
            except BaseException:
                self.give_back(process)
                raise
            if failure:
                self.give_back(process)
                return None
            if not process.is_buried:
                return process

    def give_back(self, process: Process) -> None:
        """Let others have a process; one that is used up ends."""
        if process.is_buried:
            return
        if 0 < self._config.max_tasks_per_child <= process.calls:
            self._nursery.start_soon(self._see_off, process)
        else:
            self._free.append(process)

    async def bury(self) -> None:  # noqa: ASYNC910  it goes on for ever
        """Take note of free processes that have ended by themselves."""
        while True:
            await trio.sleep(LOOK)
            self._free = [one for one in self._free if one in self._ways or not one.has_ended()]

    async def aclose(self, seconds: float) -> None:
        """Have all free processes end, and kill what is left after so many seconds.

        Cancellation: Is a checkpoint, and shielded.
        """
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            free = [one for one in self._free if one not in self._ways and not one.is_buried]
            async with trio.open_nursery() as nursery:
                for process in free:
                    nursery.start_soon(self._end, process, seconds)

    # --- getting ready ------------------------------------------------------------------------------------------

    def _choose(self, worker: PlainWorker) -> Process:
        """Take a free process, the one that is ready soonest; or one that has not started."""
        self._free = [one for one in self._free if not one.is_buried]
        best = max(self._free, key=lambda one: (one not in self._ways, one.has_made(worker), one.calls), default=None)
        if best is None:
            return self._new()
        self._free.remove(best)
        return best

    def _new(self) -> Process:
        init = functools.partial(_child.begin, self._config.environment, logging.getLogger().level)
        return Process.of(idle_timeout=self._config.idle_timeout, init=init)

    async def _wait_ready(self, process: Process, worker: PlainWorker) -> str:
        """Wait until a process is ready for a worker, or is buried; return why not."""
        while not process.is_buried:
            way = self._ways.get(process)
            if way is None:
                if process.has_made(worker):
                    break
                way = self._ways[process] = _Way(worker)
                self._nursery.start_soon(self._prepare, process, way)
            await way.over.wait()
            if way.failure and way.worker is worker:
                return way.failure
        return ""  # noqa: ASYNC910  `take` has waited

    async def _prepare(self, process: Process, way: _Way) -> None:
        limit, trace = self._config.child_start_timeout, ""
        with trio.move_on_after(limit) as scope:
            way.failure, trace = await self._go(process, way.worker)
        if scope.cancelled_caught:
            way.failure = f"a process was still {process.doing} when child_start_timeout = {limit:g} s was over"
        self._tell(way.worker.id, way.failure, trace)
        del self._ways[process]
        way.over.set()

    async def _go(self, process: Process, worker: PlainWorker) -> tuple[str, str]:
        """Have a process become ready for a worker; return why it does not, if so, and where that was raised."""
        is_new = process.doing == STARTING
        try:
            for step in self._steps(process, worker):
                answer = answer_of(await step)
                if failure := failure_of(answer):
                    return f"a process fails at {process.doing}: {failure}", answer.trace
        except EndedError:  # another is taken, unless this one has never been there
            return f"a process died {process.doing}" * is_new, ""  # noqa: ASYNC910  a step waits
        except DiedError as died:
            return f"a process died {process.doing}: {died}", ""  # noqa: ASYNC910  as above
        except OSError as error:
            return f"a process cannot be started: {error}", ""  # noqa: ASYNC910  as above
        except _UnwritableError as error:
            return f"{worker.id} cannot be given its config in another process: {error}", ""  # noqa: ASYNC910  as above
        process.note_made(worker)
        return "", ""  # noqa: ASYNC910  as above

    def _steps(self, process: Process, worker: PlainWorker) -> Iterator[Awaitable[bytes]]:
        """Yield what is to be asked of a process, one after the other, and note what it is about meanwhile."""
        if process.doing == STARTING:
            yield process.start()
        process.doing = f"importing {worker.use.__module__}"
        yield process.ask(_child.load, worker.use.__module__)
        process.doing = f"making the object of {worker.id}"
        yield process.ask(_child.make, _written(worker))

    def _tell(self, worker: str, failure: str, trace: str) -> None:
        """Complain of what keeps processes from getting ready for a worker, or no longer; log each reason once."""
        if not failure:
            self._said.pop(worker, None)
            self._complaints.recover(worker)
        elif self._said.get(worker) != failure:
            self._said[worker] = failure
            self._context.log.warning(failure, worker=worker, **({"traceback": trace} if trace else {}))
            self._complaints.complain(worker, failure)

    async def _see_off(self, process: Process) -> None:
        await self._end(process, LOOK)

    async def _end(self, process: Process, seconds: float) -> None:
        process.dismiss()
        try:
            with trio.move_on_after(seconds):
                await process.wait_ended()
        finally:
            await process.kill()  # noqa: ASYNC102  it shields itself


def _written(worker: PlainWorker) -> bytes:
    making: _child.Making = (worker.id, worker.use, worker.is_function, worker.arguments)
    try:
        return _crossing.write(making)
    except Exception as error:
        raise _UnwritableError(f"{type(error).__name__}: {error}") from error
