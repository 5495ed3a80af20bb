"""The tasks in which the deliveries of a dispatcher are handled: each does one errand after the other.

To make a task, and a cancel scope, for each delivery costs as much as many a handler. `intake` says which errands there
are, and what follows from their verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context, copy_context
from typing import Final, final

import attrs
import trio

from .._core.broker import Delivery
from .._core.envelope import Outcome, Return
from .._core.loop import wake
from .attempt import Verdict
from .judge import only_passing, owned
from .leash import Attempting, Leash

_RETURNED: Final = Verdict(Return())
_NO_CONTEXT: Final = Context()
"""That of a task that has no errand, so that it holds nothing of the last one's."""


@final
@attrs.define(eq=False, repr=False)
class Ended:
    """What somebody waits for who wants to know the outcome."""

    event: trio.Event = attrs.field(factory=trio.Event)
    outcome: Outcome = attrs.field(factory=Return)


@final
@attrs.define(eq=False, repr=False)
class Revocable:
    """A delivery whose handler can be cancelled from outside."""

    name: str
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)


@final
@attrs.define(eq=False, repr=False)
class Errand:
    """A delivery that has its slot."""

    delivery: Delivery
    ended: Ended | None = None
    revocable: Revocable | None = None
    began: float = attrs.field(default=math.inf, init=False)
    """When a task began it, in `trio.current_time()`; infinite in the turn before that: another time would have an age."""


@final
@attrs.define(eq=False, repr=False)
class _Runner:
    """One task."""

    task: trio.lowlevel.Task
    errand: Errand | None
    """None while it has none."""
    _idle: dict[_Runner, None]
    """Those that have none, it among them."""
    is_ending: bool = attrs.field(default=False, init=False)
    """Whether the verdict on the errand is there, and being acted upon."""

    def dismiss(self, _: object) -> trio.lowlevel.Abort:
        """Leave those that wait for an errand, since it is cancelled."""
        del self._idle[self]
        return trio.lowlevel.Abort.SUCCEEDED


@final
@attrs.define(eq=False, repr=False)
class Runners:
    """The tasks of one life of a dispatcher: as many as errands were under way at a time, at most."""

    _name: str
    """What the tasks are called."""
    _nursery: trio.Nursery
    _pipeline: Attempting
    _finish: Callable[[Errand, Verdict], Awaitable[None] | None]
    """Acts upon a verdict, whatever happens around; returns what is to be awaited, if anything is: it shields itself."""
    _all: dict[_Runner, None] = attrs.field(factory=dict[_Runner, None], init=False)
    _idle: dict[_Runner, None] = attrs.field(factory=dict[_Runner, None], init=False)
    _elsewhere: dict[int, trio.lowlevel.Task] = attrs.field(factory=dict[int, trio.lowlevel.Task], init=False)
    """The tasks that work on deliveries which runners wait for, by the deliveries' `id`: a plugin's delivery need not
    be hashable."""

    def start(self, errand: Errand) -> None:
        """Have a task that is idle do an errand, or a new one; in a copy of the context that this is called in.

        So it sees the context variables of whoever submitted it, and no others: what a handler leaves in them is not
        for the next one.
        """
        if self._idle:
            runner, _ = self._idle.popitem()
            runner.errand = errand
            runner.task.context = copy_context()
            wake(runner.task)
        else:
            self._nursery.start_soon(self._run, errand, name=self._name)

    def working_on(self, delivery: Delivery) -> None:
        """Note that the current task works on a delivery that is under way, and that a runner waits for."""
        self._elsewhere[id(delivery)] = trio.lowlevel.current_task()

    def at_work(self) -> Iterator[tuple[Delivery, trio.lowlevel.Task]]:
        """Return what is under way, and the task that works on it."""
        for runner in self._all:
            if runner.errand is not None:
                delivery = runner.errand.delivery
                yield delivery, self._elsewhere.get(id(delivery), runner.task)

    def under_way(self) -> list[tuple[Delivery, float, trio.lowlevel.Task]]:
        """Return what is under way, when it was begun, and the task that works on it. May be called from any thread.

        What has been given to a task that has not run since was begun at an infinite time.
        """
        errands = [(runner.errand, runner.task) for runner in list(self._all)]
        return [
            (errand.delivery, errand.began, self._elsewhere.get(id(errand.delivery), task))
            for errand, task in errands
            if errand is not None
        ]

    async def _run(self, errand: Errand) -> None:
        runner = _Runner(trio.lowlevel.current_task(), errand, self._idle)
        self._all[runner] = None
        try:
            while True:
                await self._run_on(Leash(), runner)
        except BaseException as error:  # noqa: BLE001  what a handler raised while it was cut is not the dispatcher's
            raise only_passing(error) from None
        finally:
            if runner.errand is not None and not runner.is_ending:
                waits = self._end(runner, _RETURNED)
                if waits is not None:
                    await waits  # noqa: ASYNC102  it shields itself
            del self._all[runner]

    async def _run_on(self, leash: Leash, runner: _Runner) -> None:  # noqa: ASYNC910  it waits when all is done
        """Do errands until the leash is used up: by a call that was cut, or by the deadline of the last one."""
        with leash.entered():
            while True:
                if runner.errand is None:
                    await self._next_errand(runner)
                began = leash.began = trio.current_time()
                if began >= leash.deadline:
                    break  # since it waited: what came meanwhile has its time before it
                waits = self._end(runner, await self._attempt(leash, runner))
                if waits is not None:
                    await waits
        if leash.verdict is not None:
            waits = self._end(runner, leash.verdict)
            if waits is not None:
                await waits

    def _next_errand(self, runner: _Runner) -> Awaitable[object]:
        """Wait for the next; the end of the nursery ends it, and so may the deadline of the last call."""
        runner.task.context = _NO_CONTEXT  # which holds from the next step of the task on
        self._idle[runner] = None
        return trio.lowlevel.wait_task_rescheduled(runner.dismiss)  # noqa: ASYNC105  awaited by the caller

    def _attempt(self, leash: Leash, runner: _Runner) -> Awaitable[Verdict]:
        errand = runner.errand
        assert errand is not None
        errand.began = leash.began
        if errand.revocable is None:
            return self._pipeline.attempt(errand.delivery, leash)
        leash.loosen()
        return self._attempt_revocable(errand.delivery, errand.revocable)

    def _end(self, runner: _Runner, verdict: Verdict) -> Awaitable[None] | None:
        """Act upon a verdict; return what is to be awaited for that, if anything is."""
        assert runner.errand is not None
        waits = self._finish(runner.errand, verdict)
        if waits is not None:
            return self._end_slowly(runner, waits)
        self._ended(runner)
        return None

    async def _end_slowly(self, runner: _Runner, waits: Awaitable[None]) -> None:
        runner.is_ending = True
        await waits
        runner.is_ending = False
        self._ended(runner)

    def _ended(self, runner: _Runner) -> None:
        if self._elsewhere and runner.errand is not None:
            self._elsewhere.pop(id(runner.errand.delivery), None)
        runner.errand = None

    async def _attempt_revocable(self, delivery: Delivery, revocable: Revocable) -> Verdict:
        """Run an attempt until it is revoked; what a handler raises when it is cancelled is part of the verdict."""
        verdict = _RETURNED
        try:
            with revocable.scope as scope:
                if not scope.cancel_called:
                    verdict = await self._pipeline.attempt(delivery)
        except BaseException as error:  # noqa: ASYNC103  part of the verdict
            if not revocable.scope.cancel_called:
                raise
            verdict = Verdict(Return(), error=owned(error))
        return verdict  # noqa: ASYNC910  whoever settles it waits, if anybody has to
